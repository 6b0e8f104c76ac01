"""``--int8``: an ONNX file in 8 bits, calibrated on a config's data (onnxruntime's static quantisation)."""

import logging
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import Tensor, nn

from ...common.building import built_from
from ...common.errors import UserError

FLAG = '--int8'
#: Samples that ranges of activations are taken from.
SAMPLES = 128
#: What is quantised: matrix products with weights, and convolutions.
OPERATORS = ('Conv', 'Gemm', 'MatMul')


def check_int8(cfg: Config) -> None:
    """Raise :class:`UserError` unless a config has data to calibrate on."""
    if not dataloader_of(cfg):
        raise UserError(
            f'{FLAG} takes the ranges of activations from data, but the config has no train_dataloader'
        )


def dataloader_of(cfg: Config) -> dict | None:
    """The config's ``calibration_dataloader``, else its ``train_dataloader``."""
    return cfg.get('calibration_dataloader') or cfg.get('train_dataloader')


def calibration_inputs(cfg: Config, model: nn.Module) -> list[Tensor]:
    """Batches of what the model's data preprocessor makes of training samples."""
    with built_from('train_dataloader'):
        loader = Runner.build_dataloader(dataloader_of(cfg), seed=0)
    batches, count = [], 0
    for batch in loader:
        with torch.no_grad():
            inputs = model.data_preprocessor(batch, False)['inputs']
        if not isinstance(inputs, Tensor):
            raise UserError(
                f'{FLAG}: {type(model).__name__} takes more than one tensor; leave it out'
            )
        batches.append(inputs.float().cpu())
        count += len(inputs)
        if count >= SAMPLES:
            break
    return batches


def quantised(data: bytes, batches: Iterable[Tensor]) -> bytes:
    """An ONNX graph with 8-bit weights, per channel, and activations.

    Products of two activations, as in attention, stay in float32: their ranges differ too much.

    Args:
        data: The graph in float32, with one input.
        batches: Values of the input.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as place:
        source, ready, target = (Path(place) / name for name in ('a.onnx', 'b.onnx', 'c.onnx'))
        source.write_bytes(data)
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.ERROR)  # it advises, at length
        try:
            quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
            graph = onnx.load(str(ready)).graph
            quantize_static(
                str(ready),
                str(target),
                Reader(graph.input[0].name, batches),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=list(OPERATORS),
                nodes_to_exclude=products_of_activations(graph),
                extra_options={'ActivationSymmetric': False, 'WeightSymmetric': True},
            )
        finally:
            root.setLevel(level)
        return target.read_bytes()


def products_of_activations(graph: Any) -> list[str]:
    """Names of the matrix products in which no factor is a weight."""
    constant = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in ('Constant', 'Transpose', 'Reshape', 'Identity') and all(
            name in constant for name in node.input
        ):
            constant.update(node.output)
    return [
        node.name
        for node in graph.node
        if node.op_type == 'MatMul' and not constant & set(node.input)
    ]


class Reader:
    """Gives batches to onnxruntime's calibration.

    Args:
        name: Of the graph's input.
        batches: Its values.
    """

    def __init__(self, name: str, batches: Iterable[Tensor]):
        self.name = name
        self.batches: Iterator[Tensor] = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        """The next arguments, or None."""
        batch = next(self.batches, None)
        return None if batch is None else {self.name: batch.numpy()}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """All arguments that are left."""
        return ({self.name: batch.numpy()} for batch in self.batches)

    def __len__(self) -> int:
        """Unknown: they are given one by one."""
        return 0

    def set_range(self, start_index: int, end_index: int) -> None:
        """See onnxruntime: some of the batches alone."""
        self.batches = islice(self.batches, start_index, end_index)
