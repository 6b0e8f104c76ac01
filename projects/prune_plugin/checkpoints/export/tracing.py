"""A model's forward pass as a graph, and whether what was made of it computes the same."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils._pytree import tree_leaves, tree_map

from ...common.errors import UserError, first_line
from ...evaluation.example_inputs import Example, require_example_input

#: Samples in the batch that is traced, and in those that are compared. A graph takes any number.
TRACED, COMPARED = 2, (1, 3)
#: Largest difference from PyTorch, relative to the output's largest absolute value.
LIMIT = 1e-4
COLOURS = re.compile(r'\x1b\[[\d;]*m')


@dataclass
class Traced:
    """A forward pass as a graph, and what the model itself gives.

    Attributes:
        name: The model's class.
        program: The graph; it takes any number of samples.
        batch_dims: In the structure of the arguments, ``{dimension: 'batch'}`` of each tensor.
        cases: Random arguments of ``COMPARED`` samples, each with the tensors that the model returns.
    """

    name: str
    program: ExportedProgram
    batch_dims: Any
    cases: list[tuple[Example, list[Tensor]]]


def tensors_of(value: Any) -> list[Tensor]:
    """All tensors in dicts, lists and tuples, in the order in which graphs take and return them."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def trace(
    model: nn.Module,
    flag: str,
    input_shape: Sequence[int] | None = None,
    prepare: Callable[[nn.Module], nn.Module] = lambda model: model,
) -> Traced:
    """Trace ``model(**model.dummy_inputs(2))`` with ``torch.export``, the number of samples left open.

    Args:
        model: In evaluation mode; its weights become float32 where they have 16 bits.
        flag: What errors begin with.
        input_shape: Shape of one sample, for models without ``dummy_inputs``.
        prepare: What is done with the model before it is traced, after it has been run.

    Raises:
        UserError: no example input, one that isn't made of tensors, or a forward pass that doesn't run
            on it or that ``torch.export`` doesn't follow.
    """
    name = type(model).__name__
    if any(p.dtype in (torch.float16, torch.bfloat16) for p in model.parameters()):
        model.float()
    example, *others = (
        random_example(model, size, input_shape, flag) for size in (TRACED, *COMPARED)
    )
    neither = 'neither --save-onnx nor --save-exported can write it; leave the flag out'
    with torch.no_grad(), plain_attention():
        try:
            cases = [(given, tensors_of(model(*given[0], **given[1]))) for given in others]
        except Exception as error:  # the model's own code may raise anything
            raise UserError(
                f"{flag}: forward(mode='tensor') of {name} fails on its example input ({said(error)}), "
                f'so {neither}'
            ) from error
        try:
            program, dims = export(prepare(model), example, others[-1])
        except Exception as error:  # as above
            raise UserError(
                f'{flag}: torch.export does not follow the forward pass of {name} ({said(error)}), '
                f'so {neither}'
            ) from error
    return Traced(name, program, dims, cases)


def random_example(
    model: nn.Module, batch_size: int, input_shape: Sequence[int] | None, flag: str
) -> Example:
    """The model's example input with random numbers in it, always the same ones.

    Whole numbers are taken as indices, below the size of the model's smallest embedding.
    """
    example = require_example_input(model, input_shape, batch_size, flag)
    strange = [
        v for v in tree_leaves(example) if not isinstance(v, Tensor | int | float | str | None)
    ]
    if strange:
        raise UserError(
            f'{flag}: {type(model).__name__} takes {type(strange[0]).__name__} beside tensors, which '
            'neither --save-onnx nor --save-exported can write; leave the flag out'
        )
    sizes = [m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)]
    generator = torch.Generator().manual_seed(batch_size)

    def fill(value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dtype == torch.bool:
            return value
        if value.is_floating_point():
            return torch.randn(value.shape, generator=generator).to(value)
        high = min(sizes, default=2)
        return torch.randint(high, value.shape, generator=generator).to(value)

    return tree_map(fill, example)


def export(model: nn.Module, example: Example, other: Example) -> tuple[ExportedProgram, Any]:
    """The graph, and its ``batch_dims``: those in which two examples of unequal batch size differ."""

    def dims(one: Any, two: Any) -> dict[int, str] | None:
        if not isinstance(one, Tensor):
            return None
        return {i: 'batch' for i in range(one.dim()) if one.shape[i] != two.shape[i]}

    args, kwargs = example
    # Examples have positional arguments or named ones, not both.
    batch_dims = tree_map(dims, kwargs or args, other[1] or other[0])
    batch = Dim('batch')

    def is_dims(value: Any) -> bool:
        return isinstance(value, dict) and all(name == 'batch' for name in value.values())

    shapes = tree_map(
        lambda found: None if found is None else {i: batch for i in found},
        batch_dims,
        is_leaf=is_dims,
    )
    program = torch.export.export(model, args, kwargs, dynamic_shapes=shapes)
    for node in program.graph.nodes:  # names of files and lines of this machine
        node.meta.pop('stack_trace', None)
    return program, batch_dims


@contextmanager
def plain_attention() -> Iterator[None]:
    """Keep ``nn.MultiheadAttention`` and its layers off their fused path, which no graph can hold."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def largest_difference(
    traced: Traced, run: Callable[[Example], Sequence[Tensor]], flag: str, way_out: str
) -> float:
    """How far ``run`` is from the model on random inputs, relative to the outputs' scale.

    Args:
        traced: The model's own outputs.
        run: Gives the same tensors by the file's graph.
        flag: What errors begin with.
        way_out: How the user's sentence ends.

    Raises:
        UserError: more than ``LIMIT``.
    """
    worst = max(difference(run(given), expected) for given, expected in traced.cases)
    if not worst <= LIMIT:
        raise UserError(
            f'{flag}: the graph of {traced.name} differs from PyTorch by {worst:.2g} of the output, '
            f'more than {LIMIT:g}; {way_out}'
        )
    return worst


def difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest absolute difference over that output's largest absolute value; the worst output's.

    Infinite if number, shapes or what is finite differ.
    """
    if [f.shape for f in found] != [e.shape for e in expected]:
        return float('inf')
    worst = 0.0
    for one, two in zip(found, expected, strict=True):
        one, two = one.double(), two.double()
        apart = torch.where(one == two, 0.0, (one - two).abs()).nan_to_num(torch.inf, torch.inf)
        finite = two[two.isfinite()].abs()
        scale = float(finite.max()) if finite.numel() else 0.0
        largest = float(apart.max()) if apart.numel() else 0.0
        worst = max(worst, largest / scale if scale else largest)
    return worst


def said(error: BaseException) -> str:
    """The kind of an error and the first line of what it says, if anything, without a full stop."""
    kind, text = type(error).__name__, COLOURS.sub('', first_line(error)).rstrip(' .:')
    return kind if text == kind else f'{kind}: {text}'
