"""Several checkpoints of one config side by side: what ``tools/compare.py`` does."""

import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from ..checkpoints.engines.files import is_engine_file, load_engine
from ..checkpoints.model_loading import Loaded, load_model
from ..common.device import best_device
from ..common.distributed import on_rank_0
from ..common.errors import UserError
from ..common.model_interface import tokens_per_second_of
from ..common.settings import read_settings
from ..evaluation.environment import environment
from ..evaluation.profiling import latency_note, profile
from ..evaluation.settings import ProfileSettings
from ..evaluation.test_set import TestSet, headline, select_metrics
from ..structure.prunable_weights import prunable_weights, stacked_weights

#: What a report's notes say about its figures, beside how latency and metrics were taken.
NOTES = {
    'reference': 'the first model; changes are relative to it',
    'structure': 'dense; slim: units are removed; masked: dense shapes, single weights set to zero; onnx, '
    'openvino, gguf: a file that onnxruntime, OpenVINO or llama.cpp runs on the CPU',
    'params': 'as built, zeros included; tied ones counted once',
    'zeros': 'fraction of the linear, convolution and attention weights that are exactly zero; '
    'zeros bring no speed-up by themselves',
    'flops': 'two per multiply-accumulate of matrix products and convolutions, one sample; zero '
    'weights count too',
    'tokens_per_s': 'tokens written one after the other after a short prompt, greedily, one text at a '
    'time; null for other models',
    'file_bytes': 'the whole file; a training checkpoint also holds its optimizer state',
    'weight_bytes': 'the tensors of its state_dict alone',
}


def row_labels(checkpoints: Sequence[str], labels: Sequence[str] | None = None) -> list[str]:
    """One name per checkpoint: those given, or folder and stem, longer where they are not distinct.

    Raises:
        UserError: too few or too many labels, an empty one, or two alike.
    """
    if labels is None:
        labels = path_labels(checkpoints)
        twice = most_common(labels)
        if twice:
            raise UserError(f'checkpoint {twice} is given twice; name each once, or give --labels')
        return labels
    if len(labels) != len(checkpoints):
        raise UserError(
            f'--labels has {len(labels)} names for {len(checkpoints)} checkpoints; give one for each'
        )
    if not all(label.strip() for label in labels):
        raise UserError('--labels holds an empty name; give each checkpoint one to be told by')
    twice = most_common(labels)
    if twice:
        raise UserError(f'--labels names two checkpoints {twice!r}; labels must be distinct')
    return list(labels)


def most_common(labels: Sequence[str]) -> str | None:
    """A label that stands there more than once, if there is one."""
    label, count = Counter(labels).most_common(1)[0]
    return label if count > 1 else None


def path_labels(checkpoints: Sequence[str]) -> list[str]:
    """The shortest ends of the paths, of a folder and a stem at least, that are distinct."""
    paths = [Path(os.path.abspath(path)) for path in checkpoints]
    for parts in range(2, max(len(path.parts) for path in paths)):
        labels = ['/'.join(path.with_suffix('').parts[1:][-parts:]) for path in paths]
        if len(set(labels)) == len(labels):
            return labels
    return [str(path) for path in paths]


def profile_settings(cfg: Config, **overrides: Any) -> ProfileSettings:
    """``prune_cfg.profile`` of a config, or its defaults.

    Args:
        cfg: The config.
        overrides: Values for its keys; None leaves a key as it is.
    """
    prune_cfg = cfg.get('prune_cfg') or {}
    given = prune_cfg.get('profile') or {} if isinstance(prune_cfg, Mapping) else {}
    if isinstance(given, Mapping):
        given = {**given, **{k: v for k, v in overrides.items() if v is not None}}
    return read_settings(ProfileSettings, given, 'prune_cfg.profile')


def compare(
    cfg: Config,
    checkpoints: Sequence[str],
    settings: ProfileSettings,
    labels: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    evaluate: bool = True,
) -> dict[str, Any]:
    """Count, time and evaluate checkpoints of one config; the first is the reference.

    All ranks call it and evaluate; rank 0 alone times. All models are in memory at once, as they
    are timed in turn: what slows the machine for a while then slows all alike.

    Args:
        cfg: The dense config, whatever the checkpoints are.
        checkpoints: Files: dense, slim or with single weights set to zero.
        settings: How to measure FLOPs and latency.
        labels: See :func:`row_labels`.
        metrics: Names as for ``--eval``; all of the config's metrics if None.
        evaluate: Whether to evaluate at all.

    Returns:
        The content of ``compare.json``.

    Raises:
        UserError: bad input.
    """
    names = row_labels(checkpoints, labels)
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    cfg = deepcopy(cfg)
    if evaluate:
        cfg.test_evaluator = select_metrics(cfg.get('test_evaluator'), metrics)
    models, rows = [], []
    for name, path in zip(names, checkpoints, strict=True):
        engine = is_engine_file(path)
        threads = settings.num_threads
        loaded = load_engine(cfg, path, threads) if engine else load_model(cfg, path, best_device())
        rows.append({'label': name, 'checkpoint': str(path), **describe(loaded, path)})
        models.append(loaded.model)
    for row, measured in zip(rows, on_rank_0(lambda: profile(models, settings)), strict=True):
        known = dict(params=row['params'], flops=None) if 'params' in row else {}
        row.update({**measured, **known}, metrics=None)
    speeds = on_rank_0(lambda: [tokens_per_second_of(model) for model in models])
    for row, speed in zip(rows, speeds, strict=True):
        row['tokens_per_s'] = speed
    chosen, said = {}, 'not asked for'
    if evaluate:
        test_set = TestSet(cfg)
        for row, model in zip(rows, models, strict=True):
            row['metrics'] = test_set.evaluate(model, row['label'])
        found = {k: v for row in rows for k, v in (row['metrics'] or {}).items()}
        chosen = headline(test_set.metrics, found)
        said = f'skipped: {test_set.missing}' if test_set.missing else "of the config's test data"
    return {
        'config': cfg.filename,
        'command': sys.argv,
        'models': rows,
        'headline': chosen,
        'notes': {
            **NOTES,
            'latency_ms': f'{latency_note(settings, models[0])}, timed in turn',
            'metrics': said,
        },
        'environment': environment(),
    }


def describe(loaded: Loaded, path: str) -> dict[str, Any]:
    """What a file and its weights tell without running the model."""
    network = loaded.checkpoint.get('network')
    if network is not None:
        return {
            'structure': network.structure,
            'zeros': None,
            'params': network.params,
            'file_bytes': os.path.getsize(path),
            'weight_bytes': network.weight_bytes,
        }
    structure = 'masked' if loaded.checkpoint.get('masks') else 'dense'
    tensors = {
        (t.untyped_storage().data_ptr(), t.storage_offset(), t.shape): t  # tied ones count once
        for t in loaded.checkpoint['state_dict'].values()
        if isinstance(t, Tensor)
    }.values()
    return {
        'structure': 'slim' if loaded.prior_state else structure,
        'zeros': zero_share(loaded.model),
        'file_bytes': os.path.getsize(path),
        'weight_bytes': sum(t.numel() * t.element_size() for t in tensors),
    }


def zero_share(model: nn.Module) -> float | None:
    """Fraction of the weights that a sparsifier may touch that are exactly zero."""
    weights = [*prunable_weights(model).values(), *stacked_weights(model).values()]
    total = sum(weight.numel() for weight in weights)
    return sum(int((weight == 0).sum()) for weight in weights) / total if total else None
