"""Which modules of a model are its blocks: those of a list that run one after the other."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from ..common.errors import UserError
from ..common.eval_mode import evaluation_mode

#: Where a block has its hidden states: the position or the name of an argument.
Slot = int | str


@dataclass(frozen=True)
class BlockChain:
    """Modules that run one after the other, each on the hidden states that the one before it gives.

    Attributes:
        blocks: Their names, in the order in which they run.
        slot: Which argument the hidden states are.
        in_tuple: Whether a block gives them as the first entry of a tuple.
        late: Names of the parameters outside of the blocks that only run behind the last one.
    """

    blocks: tuple[str, ...]
    slot: Slot
    in_tuple: bool
    late: frozenset[str]

    def owner(self, name: str) -> int | None:
        """Position of the block that a parameter is in; None: it is outside of all."""
        return next((i for i, b in enumerate(self.blocks) if name.startswith(f'{b}.')), None)

    def output(self, hidden: Tensor) -> Any:
        """What a block gives that gives these hidden states."""
        return (hidden,) if self.in_tuple else hidden


@dataclass
class BlockCall:
    """A call of a member of a list: what it was given, and what it gave."""

    position: int
    args: tuple
    kwargs: dict[str, Any]
    output: Any = None

    def named(self) -> dict[Slot, Any]:
        """The arguments by position or name."""
        arguments: dict[Slot, Any] = dict(enumerate(self.args))
        arguments.update(self.kwargs)
        return arguments


@dataclass
class Observed:
    """What happened in a forward pass.

    Attributes:
        calls: Of each list's members, in order, by the list's name.
        running: Names of the lists of which a member runs now.
        owners: Modules with parameters of their own that ran, each with the lists that had run before it.
        outside: Names of the lists whose members' outputs were used by something else than a member.
    """

    calls: dict[str, list[BlockCall]] = field(default_factory=dict)
    running: list[str] = field(default_factory=list)
    owners: dict[str, list[dict[str, int]]] = field(default_factory=dict)
    outside: dict[str, str] = field(default_factory=dict)


class OutputUse(TorchFunctionMode):
    """Notes which functions use the output of a list's members while none of them runs.

    Args:
        observed: Where it is noted.
        lengths: How many members each list has.
    """

    def __init__(self, observed: Observed, lengths: dict[str, int]):
        super().__init__()
        self.observed, self.lengths = observed, lengths

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, '__name__', str(func))
        if name != '__get__':  # a shape or a device
            given = {id(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
            for members, calls in self.observed.calls.items():
                # The last output is what the rest of the model is for.
                earlier = [c.output for c in calls if c.position < self.lengths[members] - 1]
                if members not in self.observed.running and any(
                    id(x) in given for x in tree_leaves(earlier) if isinstance(x, Tensor)
                ):
                    self.observed.outside.setdefault(members, name)
        return func(*args, **kwargs)


def find_chain(model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> BlockChain:
    """Find the blocks of a model in one forward pass: of all lists that fit, the one with most weights.

    A list fits if each of its members runs once, in order, the first on what the model makes of its input
    and each other one on the very tensor that the one before it gave; and if nothing else uses these.

    Args:
        model: The model; on the meta device nothing is computed.
        args: Positional arguments of a call.
        kwargs: Keyword arguments of the call.

    Raises:
        UserError: no list fits; the message says why the largest one doesn't.
    """
    lists = {n: m for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m)}
    observed = Observed({name: [] for name in lists})
    use = OutputUse(observed, {name: len(members) for name, members in lists.items()})
    with evaluation_mode(model), torch.no_grad(), followed(model, lists, observed), use:
        model(*args, **kwargs)
    by_size = sorted(lists, key=lambda name: -sum(p.numel() for p in lists[name].parameters()))
    reasons = []
    for name in by_size:
        slot = slot_of(observed.calls[name], len(lists[name]))
        if name in observed.outside:
            slot = f'what they give is used by {observed.outside[name]} as well', None
        if slot[1] is not None:
            return chain_of(model, name, len(lists[name]), slot[1], observed)
        reasons.append(f'{name}: {slot[0]}')
    said = reasons[0] if reasons else 'it has no torch.nn.ModuleList'
    raise UserError(
        f"prune_cfg.execution.mode is 'streamed', but {type(model).__name__} has no blocks that run one "
        f'after the other ({said}); take mode="memory"'
    )


def slot_of(calls: list[BlockCall], length: int) -> tuple[str, Slot | None]:
    """Which argument takes the hidden states from one call to the next; else None, and the reason."""
    if [call.position for call in calls] != list(range(length)):
        return f'its {length} modules do not run once each, in their order', None
    for call in calls:
        given = hidden_of(call.output)
        if given is None:
            return f'module {call.position} gives more than one tensor', None
    first = calls[0].named()
    slots = [slot for slot, value in first.items() if isinstance(value, Tensor)]
    for previous, call in zip(calls, calls[1:], strict=False):
        given = hidden_of(previous.output)
        slots = [slot for slot in slots if call.named().get(slot) is given]
    if not slots:
        return 'a module does not read what the one before it gives, as it is', None
    return '', slots[0]


def hidden_of(output: Any) -> Tensor | None:
    """The only tensor of a block's output, that or the first entry of a tuple; None if there are more."""
    if isinstance(output, Tensor):
        return output
    if not isinstance(output, tuple | list) or not output or not isinstance(output[0], Tensor):
        return None
    return output[0] if all(x is None for x in output[1:]) else None


def chain_of(
    model: nn.Module, name: str, length: int, slot: Slot, observed: Observed
) -> BlockChain:
    """The chain of a list that fits."""
    blocks = tuple(f'{name}.{i}' for i in range(length))
    calls = observed.calls[name]
    late = {
        parameter
        for owner, runs in observed.owners.items()
        if not owner.startswith(f'{name}.') and all(run[name] == length for run in runs)
        for parameter, _ in model.get_submodule(owner).named_parameters(owner, recurse=False)
    }
    early = {id(p) for n, p in model.named_parameters(remove_duplicate=False) if n not in late}
    late = {n for n in late if id(model.get_parameter(n)) not in early}
    return BlockChain(blocks, slot, not isinstance(calls[0].output, Tensor), frozenset(late))


@contextmanager
def followed(
    model: nn.Module, lists: dict[str, nn.ModuleList], observed: Observed
) -> Iterator[None]:
    """Note in ``observed`` what runs while the body does."""
    with ExitStack() as stack:

        def hook(module: nn.Module, before: Any, after: Any = None) -> None:
            handle = module.register_forward_pre_hook(before, with_kwargs=True)
            stack.callback(handle.remove)
            if after:
                stack.callback(module.register_forward_hook(after).remove)

        def member(name: str, position: int, module: nn.Module) -> None:
            def before(module: nn.Module, args: tuple, kwargs: dict) -> None:
                observed.calls[name].append(BlockCall(position, args, kwargs))
                observed.running.append(name)

            def after(module: nn.Module, args: tuple, output: Any) -> None:
                observed.running.remove(name)
                last = [
                    c for c in observed.calls[name] if c.position == position and c.output is None
                ]
                if last:
                    last[-1].output = output

            hook(module, before, after)

        def owner(name: str, module: nn.Module) -> None:
            def before(module: nn.Module, args: tuple, kwargs: dict) -> None:
                done = {n: len(calls) for n, calls in observed.calls.items()}
                observed.owners.setdefault(name, []).append(done)

            hook(module, before)

        for name, members in lists.items():
            for position, module in enumerate(members):
                member(name, position, module)
        for name, module in model.named_modules():
            if module._parameters:
                owner(name, module)
        yield
