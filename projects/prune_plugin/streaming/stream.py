"""Batches on their way through the blocks of a model: what enters the first, each and the last."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from ..common.errors import UserError
from .chain import BlockChain, Slot
from .hidden_states import HiddenStates
from .view import BlockView

#: Runs the model on one batch.
Call = Callable[[], Any]
#: What may be among a block's arguments beside tensors: values that no block can change.
PLAIN = (type(None), bool, int, float, str, torch.dtype, torch.device)


class _Captured(BaseException):
    """Ends a forward pass at the last block; a BaseException, so that nothing catches it."""


@dataclass(frozen=True)
class Arguments:
    """What a block is called with, without its hidden states.

    Attributes:
        args: Positional arguments, None in the place of hidden states.
        kwargs: Keyword arguments, likewise.
        slot: Where hidden states go.
    """

    args: tuple
    kwargs: dict[str, Any]
    slot: Slot

    def with_hidden(self, hidden: Tensor) -> tuple[tuple, dict[str, Any]]:
        """The arguments of a call."""
        if isinstance(self.slot, str):
            return self.args, {**self.kwargs, self.slot: hidden}
        return (*self.args[: self.slot], hidden, *self.args[self.slot + 1 :]), self.kwargs


class Window:
    """A batch before a block: its hidden states, read when they are asked for, and other arguments.

    Args:
        states: The hidden states of all batches.
        number: Which of them.
        others: Of each block the other arguments.
        device: Where the block runs.
    """

    def __init__(self, states: HiddenStates, number: int, others: Sequence[Arguments], device: str):
        self.states, self.number, self.others, self.device = states, number, others, device

    def arguments(self, block: int) -> tuple[tuple, dict[str, Any]]:
        """What a block is called with."""
        return self.others[block].with_hidden(self.states[self.number].to(self.device))


class Stream:
    """All batches of one kind, before the same block.

    Args:
        folder: Where their hidden states wait.
        name: Of the stream, for file names.
        others: For each batch the other arguments of each block.
        device: Where blocks run.
        in_memory: Whether hidden states wait in memory.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        others: Sequence[Sequence[Arguments]],
        device: str,
        in_memory: bool,
    ):
        self.folder, self.name, self.others = folder, name, others
        self.device, self.in_memory = device, in_memory
        self.states: HiddenStates = HiddenStates(folder / f'{name}-0000.bin', in_memory)
        self.old: list[HiddenStates] = []

    def windows(self) -> list[Window]:
        """The batches as they are now."""
        states = self.states
        return [Window(states, i, others, self.device) for i, others in enumerate(self.others)]

    def copy(self, name: str, count: int | None = None) -> 'Stream':
        """Another stream of the first ``count`` batches (None: all), where this one is."""
        stream = Stream(self.folder, name, self.others[:count], self.device, self.in_memory)
        for number in range(len(stream.others)):
            stream.states.append(self.states[number])
        return stream

    @torch.no_grad()
    def through(self, view: BlockView, keep: bool = False) -> HiddenStates:
        """What a block makes of all batches; the stream stays where it is.

        Args:
            view: The block, with its weights.
            keep: Whether the hidden states before the block are needed in memory yet.
        """
        following = HiddenStates(
            self.folder / f'{self.name}-{view.number + 1:04d}.bin', self.in_memory
        )
        for window in self.windows():
            following.append(view(window))
            if not keep:
                self.states.forget(window.number)
        return following

    def step(self, following: HiddenStates) -> None:
        """Go on behind a block; the files before it stay until :meth:`clean`."""
        self.old.append(self.states)
        self.states.kept.clear()
        self.states = following

    def advance(self, view: BlockView) -> None:
        """Run all batches through a block."""
        self.step(self.through(view))

    def clean(self) -> None:
        """Remove the files before the last block."""
        for states in self.old:
            states.remove()
        self.old.clear()


class TensorPool:
    """Holds equal tensors once: masks and positions are the same for most batches and blocks."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []

    def __call__(self, value: Any) -> Any:
        """The value itself, or a tensor that is equal to it."""
        if not isinstance(value, Tensor):
            return value
        for known in self.tensors:
            alike = (known.shape, known.dtype) == (value.shape, value.dtype)
            if known is value or (alike and torch.equal(known, value)):
                return known
        self.tensors.append(value)
        return value


@torch.no_grad()
def capture(
    model: nn.Module,
    chain: BlockChain,
    calls: Iterable[Call],
    folder: Path,
    name: str,
    device: str,
    in_memory: bool,
) -> Stream:
    """Run a model on batches up to its first block, and note with what each block is called.

    Args:
        model: The model, in evaluation mode; only what is before the blocks needs weights.
        chain: Its blocks.
        calls: Each runs it on a batch.
        folder: See :class:`Stream`.
        name: See :class:`Stream`.
        device: See :class:`Stream`.
        in_memory: See :class:`Stream`.

    Raises:
        UserError: a block is given something that depends on the blocks before it.
    """
    pool = TensorPool()
    others: list[list[Arguments]] = []
    stream = Stream(folder, name, others, device, in_memory)
    for call in calls:
        of_blocks: list[Arguments] = []

        def record(
            number: int, args: tuple, kwargs: dict, given: list[Arguments] = of_blocks
        ) -> Any:
            hidden = kwargs[chain.slot] if isinstance(chain.slot, str) else args[chain.slot]
            if number == 0:
                stream.states.append(hidden)
            given.append(without_hidden(chain, number, args, kwargs, pool))
            if number == len(chain.blocks) - 1:
                raise _Captured
            # What depends on the blocks' output is told by its NaN.
            return chain.output(torch.full_like(hidden, torch.nan))

        with blocks_replaced(model, chain, record):
            try:
                call()
            except _Captured:
                pass
        others.append(of_blocks)
    return stream


def without_hidden(
    chain: BlockChain, number: int, args: tuple, kwargs: dict[str, Any], pool: TensorPool
) -> Arguments:
    """The arguments of a block without its hidden states, checked."""
    slot = chain.slot
    if isinstance(slot, str):
        kwargs = {**kwargs, slot: None}
    else:
        args = (*args[:slot], None, *args[slot + 1 :])
    leaves, structure = tree_flatten((args, kwargs))
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            depends = leaf.is_floating_point() and bool(leaf.isnan().any())
            what = 'depends on the blocks before it' if depends else ''
        else:
            what = '' if isinstance(leaf, PLAIN) else f'is a {type(leaf).__name__}'
        if what:
            raise UserError(
                f"prune_cfg.execution.mode is 'streamed', but an argument of {chain.blocks[number]} beside "
                f'its hidden states {what}; take mode="memory"'
            )
    args, kwargs = tree_unflatten([pool(leaf) for leaf in leaves], structure)
    return Arguments(args, kwargs, slot)


@contextmanager
def blocks_replaced(
    model: nn.Module, chain: BlockChain, replacement: Callable[[int, tuple, dict], Any]
) -> Iterator[None]:
    """Have ``replacement(number, args, kwargs)`` run in the place of each block."""
    modules = [model.get_submodule(name) for name in chain.blocks]
    try:
        for number, module in enumerate(modules):

            def forward(*args: Any, number: int = number, **kwargs: Any) -> Any:
                return replacement(number, args, kwargs)

            module.__dict__['forward'] = forward
        yield
    finally:
        for module in modules:
            module.__dict__.pop('forward', None)


@contextmanager
def ending_with(model: nn.Module, chain: BlockChain, hidden: Tensor) -> Iterator[None]:
    """Have the blocks pass on what they are given, and the last one give ``hidden``."""

    def replacement(number: int, args: tuple, kwargs: dict) -> Any:
        given = kwargs[chain.slot] if isinstance(chain.slot, str) else args[chain.slot]
        return chain.output(hidden if number == len(chain.blocks) - 1 else given)

    with blocks_replaced(model, chain, replacement):
        yield


class Finishing(nn.Module):
    """Stands for a model whose blocks a stream has passed, where its test data is evaluated.

    Args:
        model: The model; what is outside of the blocks has weights.
        chain: Its blocks.
        stream: The test batches, in order, behind the last block.
    """

    def __init__(self, model: nn.Module, chain: BlockChain, stream: Stream):
        super().__init__()
        self.model, self.chain, self.stream = model, chain, stream
        self.done = 0

    def test_step(self, batch: Any) -> Any:
        """The outputs of the next batch."""
        hidden = self.stream.states[self.done].to(self.stream.device)
        self.done += 1
        with ending_with(self.model, self.chain, hidden):
            return self.model.test_step(batch)
