"""What to measure on another machine for a latency budget's table: ``tools/latency_table.py``."""

import shutil
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from torch import nn

from ..checkpoints.engines.timing import TIMING_ENGINES, onnx_call
from ..checkpoints.model_loading import load_model
from ..common.errors import UserError
from ..common.fileio import atomic_write
from ..common.json_csv import write_csv
from ..evaluation.example_inputs import Example, example_of
from ..methods.budgets import LatencyBudget
from ..methods.budgets.layer_shapes import (
    layer_shape,
    measured_counts,
    model_shape,
    owner_calls,
    slim_owner,
)
from ..methods.pruners import StructuredPruner
from ..methods.rounding import RoundTo, round_to_of
from . import measure_latency
from .prune import pruner_from_config

#: Tensors of a graph with more numbers than this are weights, which the script fills in.
LARGEST_KEPT = 256
FLAG = 'tools/latency_table.py'


def write_latency_shapes(
    cfg: Config, checkpoint: str | None, folder: Path, points: int | None = None
) -> list[Path]:
    """Write the list of layer shapes, their graphs, and the script that measures them.

    ``shapes.csv`` has a row for each layer shape and number of units, and one for the whole model. The
    graphs, in ``layers``, have no weights. Nothing is written if any layer can't be exported.

    Args:
        cfg: A config; its ``prune_cfg`` says which units there are, ``round_to``, and the batch size.
        checkpoint: The weights, dense or slim; None: as the config builds them.
        folder: Where to write; it exists.
        points: Numbers of units per layer; None: those of a latency budget in the config, else 5.

    Returns:
        The list and the script.

    Raises:
        UserError: the pruner isn't structured, a package is missing, or a layer can't be exported.
    """
    pruner = structured_pruner(cfg)
    TIMING_ENGINES['onnxruntime'].check(FLAG)
    budget = pruner.budget if isinstance(pruner.budget, LatencyBudget) else LatencyBudget()
    model = load_model(cfg, checkpoint).model
    groups = pruner.find(model).groups
    timing = pruner.timing(None)
    example = example_of(model, timing, timing['batch_size'], FLAG)
    rows: list[tuple] = []
    graphs: list[bytes] = []
    layers = folder / 'layers'
    for shape, units, layer, module, call in modules_to_time(
        model, groups, example, points or budget.points, pruner.round_to
    ):
        path = f'layers/{len(graphs):03}.onnx'
        graphs.append(without_weights(onnx_call(module, call, 'onnxruntime')[0]))
        rows.append((shape, units, layer, path, ''))
        print_log(f'{path}: {shape}, {units} units', 'current')
    layers.mkdir(exist_ok=True)
    for row, graph in zip(rows, graphs, strict=True):
        with atomic_write(folder / row[3], 'wb') as file:
            file.write(graph)
    script = folder / 'measure_latency.py'
    shutil.copyfile(measure_latency.__file__, script)
    write_csv(measure_latency.COLUMNS, rows, folder / 'shapes.csv')
    return [folder / 'shapes.csv', script]


def structured_pruner(cfg: Config) -> StructuredPruner:
    """The config's pruner, without the table that is still to be made.

    Raises:
        UserError: it removes no units, or its config is wrong.
    """
    cfg = deepcopy(cfg)
    prune_cfg = cfg.get('prune_cfg')
    budget = prune_cfg.get('budget') if isinstance(prune_cfg, dict) else None
    if isinstance(budget, dict) and budget.get('type') == 'latency':
        budget.pop('table', None)
        budget.pop('engine', None)
    pruner = pruner_from_config(cfg)
    if not isinstance(pruner, StructuredPruner):
        raise UserError(
            f'prune_cfg.type is {type(pruner).__name__!r}, which removes no units that could be timed; '
            "take 'StructuredPruner'"
        )
    return pruner


def modules_to_time(
    model: nn.Module, groups: list[Any], example: Example, points: int, round_to: RoundTo
) -> Iterator[tuple[str, int, str, nn.Module, Example]]:
    """Shape, number of units, name, module and its arguments: of the model, then of each layer shape."""
    total = sum(group.size for group in groups)
    yield model_shape(model, example), total, 'model', model, example
    calls, seen = owner_calls(model, groups, example), set()
    for group in groups:
        call = calls[group.owner]
        shape = layer_shape(model, group, call)
        if shape in seen:
            continue
        seen.add(shape)
        for count in measured_counts(group, points, round_to_of(round_to, group)).tolist():
            with torch.no_grad():
                yield shape, count, group.name, slim_owner(model, group, count), call


def without_weights(data: bytes) -> bytes:
    """An ONNX graph whose large float tensors have shapes alone."""
    import onnx

    model = onnx.load_model_from_string(data)
    for tensor in model.graph.initializer:
        count = torch.Size(tensor.dims).numel()
        if tensor.data_type == onnx.TensorProto.FLOAT and count > LARGEST_KEPT:
            tensor.ClearField('raw_data')
            tensor.ClearField('float_data')
    return model.SerializeToString()
