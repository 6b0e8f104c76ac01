"""Scores of units, block by block: from weights, or from activations in one pass over the blocks."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..calibration.data import CalibrationData, forward_calls
from ..calibration.loss import mmengine_loss
from ..calibration.statistics import GRADIENT_STATISTICS
from ..common.errors import UserError
from ..common.eval_mode import inference
from ..common.glibc_memory import trim_heap
from ..common.precision import needs_half
from ..methods.pruners.structured import StructuredPruner
from ..structure.unit_group import UnitGroup
from .skeleton import Skeleton
from .stream import Stream, capture
from .view import run_view
from .window_data import WindowData


def check_criterion(pruner: StructuredPruner) -> None:
    """Raise :class:`UserError` for a criterion that needs the whole model at once."""
    criterion = pruner.criterion
    why = 'reads gradients of the whole model' if criterion.needed & GRADIENT_STATISTICS else ''
    if criterion.reads_ratio:
        why = 'ranks all weights together'
    if why:
        raise UserError(
            f"prune_cfg.execution.mode is 'streamed', but prune_cfg.criterion {type(criterion).__name__} "
            f'{why}; give its scores by --from-table, or take L1, L2, Activation or Wanda'
        )


def scores_by_block(
    pruner: StructuredPruner,
    skeleton: Skeleton,
    groups: Sequence[UnitGroup],
    data: CalibrationData | None,
    folder: Path,
) -> list[Tensor]:
    """The criterion's importance of every unit, as :meth:`StructuredPruner.scores` gives it.

    Args:
        pruner: The pruner.
        skeleton: The model and its files.
        groups: Unit groups, each within a block.
        data: Calibration batches, for a criterion that observes activations.
        folder: Where hidden states wait meanwhile.

    Returns:
        One float64 vector per group.
    """
    widened = data is not None and pruner.calibration.precision == 'float32'
    dtype = torch.float32 if widened and not needs_half(skeleton.model) else None
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Tensor] = {}
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix='.scoring-') as waiting,
        inference(skeleton.model),
    ):
        stream = None if data is None else started(pruner, skeleton, data, Path(waiting), dtype)
        for number in range(len(skeleton.chain.blocks)):
            view = skeleton.block(number, dtype)
            own = [group for group in groups if group.cuts[0].name.startswith(f'{view.path}.')]
            if own:
                windows = None
                if stream is not None and data is not None:
                    windows = WindowData(stream.windows(), data.batches, data.seed)
                scores = pruner.scores(view, own, windows, run_view)
                found |= {group.name: score for group, score in zip(own, scores, strict=True)}
            if stream is not None:
                stream.advance(view)
                stream.clean()
            skeleton.take(view)
            trim_heap()
    return [found[group.name] for group in groups]


def started(
    pruner: StructuredPruner,
    skeleton: Skeleton,
    data: CalibrationData,
    folder: Path,
    dtype: torch.dtype | None,
) -> Stream:
    """All calibration batches, before the first block."""
    early = skeleton.early()
    skeleton.load(early, dtype)
    calls = forward_calls(skeleton.model, data, mmengine_loss)
    in_memory = pruner.execution.offload == 'cpu'
    stream = capture(
        skeleton.model, skeleton.chain, calls, folder, 'scores', skeleton.device, in_memory
    )
    skeleton.free(early)
    return stream
