"""What a streamed run will take, from shapes alone: memory, disk and bytes read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..calibration.layer_inputs import weight_matrix
from ..calibration.sequential import group_by_input
from ..common.errors import UserError
from ..common.eval_mode import inference
from ..evaluation.example_inputs import Example
from ..methods.compensation.least_squares import kept_inputs
from ..methods.pruners.base import Pruner
from ..methods.pruners.execution import ExecutionSettings
from ..methods.pruners.structured import StructuredPruner
from ..methods.pruners.unstructured import WeightPruner
from ..structure.prune_state import PruneState
from .block_methods import batches_for
from .chain import BlockChain
from .live_bytes import activations_of, bytes_of

GB = 10**9
#: What libraries take that are loaded at the end of a run: metrics, tables and pictures.
AT_END = 2 * 10**8


@dataclass(frozen=True)
class Counts:
    """How many samples pass the blocks.

    Attributes:
        calibration: Calibration batches.
        batch_size: Samples in each.
        test: Test batches.
        test_batch_size: Samples in each.
        length: How much longer a sample is than the example of the model, such as a window of tokens.
    """

    calibration: int = 0
    batch_size: int = 1
    test: int = 0
    test_batch_size: int = 1
    length: float = 1.0


@dataclass(frozen=True)
class Estimate:
    """What a streamed run will take, in bytes.

    Attributes:
        process: What the process has before it reads weights.
        block: The largest block's weights.
        outside: Weights outside of the blocks.
        states: Hidden states in memory.
        activations: What a block makes of what passes it at once.
        method: What the method needs for a layer, beside its weights.
        outputs: The model's outputs, and what metrics make of them.
        disk: Files that are written: weights and hidden states.
        read: Weights that are read.
        written: Weights that are written.
    """

    process: int
    block: int
    outside: int
    states: int
    activations: int
    method: int
    outputs: int
    disk: int
    read: int
    written: int

    @property
    def peak(self) -> int:
        """The most memory at once: at a block, or where the model's outputs are computed."""
        at_block = self.block + self.activations + self.method
        at_end = self.outside + self.outputs + AT_END
        return self.process + self.states + max(at_block, at_end)

    def check(self, settings: ExecutionSettings) -> None:
        """Raise :class:`UserError` for more memory than the settings allow."""
        most = settings.most_memory
        if most is None or self.peak <= most:
            return
        raise UserError(
            f'prune_cfg.execution.max_memory is {settings.max_memory!r}, but the run is estimated to need '
            f'{self.peak / GB:.2f} GB (block {self.block / GB:.2f}, method {self.method / GB:.2f}, hidden '
            f'states {self.states / GB:.2f}, activations {self.activations / GB:.2f}, process '
            f'{self.process / GB:.2f}); raise it, take offload="disk", or fewer or shorter windows'
        )


def estimate(
    model: nn.Module,
    chain: BlockChain,
    example: Example,
    pruner: Pruner,
    counts: Counts,
    written: int | None = None,
) -> Estimate:
    """Estimate a streamed run.

    Args:
        model: The dense model on the meta device.
        chain: Its blocks.
        example: A call of one sample.
        pruner: The pruner.
        counts: How many samples pass the blocks.
        written: Bytes of the pruned weights; None: as many as of the dense ones.
    """
    state = model.state_dict(keep_vars=True)
    of_blocks = [
        {n: t for n, t in state.items() if n.startswith(f'{name}.')} for name in chain.blocks
    ]
    outside = {n: t for n, t in state.items() if chain.owner(n) is None}
    early = {n: t for n, t in outside.items() if n not in chain.late}
    args, kwargs = example
    found = passes(model, chain, args, kwargs)
    outputs, hidden, peak, held = (round(size * counts.length) for size in found)
    batches = batches_for(pruner, counts.calibration)
    per_batch = hidden * counts.batch_size
    per_test = hidden * counts.test_batch_size
    in_memory = pruner.execution.offload == 'cpu'
    streams = batches.pruned * per_batch + 2 * counts.test * per_test
    dense = batches.dense * per_batch
    waiting = max(batches.pruned + batches.dense - 1, 0) if in_memory else 0
    block_bytes = max(map(bytes_of, of_blocks))
    written = bytes_of(state) if written is None else written
    return Estimate(
        process=own_memory(),
        block=block_bytes,
        outside=bytes_of(outside),
        states=(streams + 2 * dense) if in_memory else 0,
        activations=waiting * counts.batch_size * (held + hidden)
        + peak * max(counts.batch_size, counts.test_batch_size if counts.test else 0),
        method=method_memory(model, pruner, example),
        outputs=outputs * counts.test_batch_size * 3 if counts.test else 0,
        disk=written + 2 * (streams + dense),
        read=sum(map(bytes_of, of_blocks)) + bytes_of(early) + bytes_of(outside),
        written=written,
    )


def relative_length(example: Example, samples: Sequence[Any]) -> float:
    """How much longer the longest of some samples is than an example, by their first tensors."""

    def length(data: Any) -> int:
        tensors = (x for x in tree_leaves(data) if isinstance(x, Tensor))
        return next((x.numel() for x in tensors), 0)

    longest = max(map(length, samples), default=0)
    return longest / length(example) if longest and length(example) else 1.0


def passes(
    model: nn.Module, chain: BlockChain, args: tuple, kwargs: Mapping[str, Any]
) -> tuple[int, int, int, int]:
    """Of a forward pass of one sample the bytes of its outputs in float32, of the hidden states, and what
    a block makes: the most at once, and the most while a batch waits before a layer."""
    found: dict[str, Any] = {}

    def before(module: nn.Module, args: tuple, kwargs: dict) -> None:
        found.setdefault('call', (args, kwargs))

    first = model.get_submodule(chain.blocks[0])
    handle = first.register_forward_pre_hook(before, with_kwargs=True)
    with inference(model):
        output = model(*args, **kwargs)
        handle.remove()
        block_args, block_kwargs = found['call']
        peak, held = activations_of(first, block_args, block_kwargs)
    slot = chain.slot
    hidden = block_kwargs[slot] if isinstance(slot, str) else block_args[slot]
    elements = bytes_of(output) // (output.element_size() if isinstance(output, Tensor) else 1)
    return elements * 4, bytes_of(hidden), peak, held


def method_memory(model: nn.Module, pruner: Pruner, example: Example) -> int:
    """The most that a pruner needs for layers that share an input, beside their weights, in bytes."""
    names: list[str] = []
    need: Any = None
    sizes: list[list[tuple[int, int]]] = []
    if isinstance(pruner, WeightPruner):
        need = pruner.sparsifier.memory
        weights = pruner.chosen(model)
        if pruner.sparsifier.reads_inputs:
            names = [name.rpartition('.')[0] for name in weights]
        else:
            sizes = [[(w[0].numel(), len(w))] for w in weights.values()]
    elif isinstance(pruner, StructuredPruner) and pruner.compensation is not None:
        need = pruner.compensation.memory
        groups = pruner.find(model).groups
        kept = {group.name: torch.arange(1, group.size) for group in groups}
        names = list(kept_inputs(model, PruneState({g.name: g for g in groups}, kept)))
    sizes += shapes_by_input(model, names, *example) if names else []
    return max((need(sum(rows for _, rows in layers), layers[0][0]) for layers in sizes), default=0)


def shapes_by_input(
    model: nn.Module, names: Sequence[str], args: tuple, kwargs: Mapping[str, Any]
) -> list[list[tuple[int, int]]]:
    """Inputs and outputs of each layer, those of layers that share an input together."""
    with inference(model):
        steps = group_by_input(model, names, partial(model, *args, **kwargs))
    matrices = [[weight_matrix(model.get_submodule(name)) for name in step] for step in steps]
    return [[(m.shape[1], m.shape[0]) for m in step] for step in matrices]


def own_memory() -> int:
    """Bytes of private memory that this process has now; 0 where the system doesn't say."""
    try:
        lines = Path('/proc/self/status').read_text(encoding='utf-8').splitlines()
    except OSError:
        return 0
    entries = dict(line.split(':', 1) for line in lines if ':' in line)
    return int(entries.get('RssAnon', '0').split()[0]) * 1024


def peak_memory() -> int | None:
    """The most resident memory that this process has had, in bytes; None where the system doesn't say."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
