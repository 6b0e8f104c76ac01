"""Tracing a model's forward pass, and comparing an exported graph with the model."""

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
from ...common.model_interface import export_view_of
from ...evaluation.example_inputs import Example, require_example_input
from .one_image import as_one_image

#: Batch size of the traced example, and those of the comparisons. The graph's batch size is dynamic.
TRACED, COMPARED = 2, (1, 3)
#: Largest accepted difference from PyTorch, relative to the output's largest absolute value.
LIMIT = 1e-4
ANSI_COLOURS = re.compile(r'\x1b\[[\d;]*m')


@dataclass
class Traced:
    """A traced forward pass, with reference outputs of the model.

    Attributes:
        name: Class name of the model.
        program: The graph, with a dynamic batch size.
        batch_dims: ``{dimension: 'batch'}`` for each tensor, in the structure of the arguments.
        cases: Random arguments, one for each batch size in ``COMPARED``, and the model's outputs for them.
        output_names: Names of the outputs, where a view of the model gives a dict.
    """

    name: str
    program: ExportedProgram
    batch_dims: Any
    cases: list[tuple[Example, list[Tensor]]]
    output_names: list[str] | None = None


def tensors_of(value: Any) -> list[Tensor]:
    """All tensors in nested dicts, lists and tuples, in the order of a graph's inputs and outputs."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def trace(
    model: nn.Module,
    flag: str,
    input_shape: Sequence[int] | None = None,
    prepare: Callable[[nn.Module], nn.Module] = lambda model: model,
) -> Traced:
    """Trace a model's forward pass on its example input with ``torch.export``, with a dynamic batch size.

    Args:
        model: The model in evaluation mode; 16-bit weights are converted to float32, in place.
        flag: The command-line flag, as a prefix of messages.
        input_shape: Shape of one sample, for models without ``dummy_inputs``.
        prepare: Applied to the model before tracing, after the reference outputs have been computed.

    Raises:
        UserError: there is no example input, or it contains other objects than tensors; or the forward
            pass fails on it, or can't be traced.
    """
    name = type(model).__name__
    if any(p.dtype in (torch.float16, torch.bfloat16) for p in model.parameters()):
        model.float()
    model = as_one_image(export_view_of(model), input_shape)
    example, *others = examples_of(model, input_shape, flag)
    neither = 'neither --save-onnx nor --save-exported can write it; leave the flag out'
    with torch.no_grad(), plain_attention():
        try:
            outputs = [model(*case[0], **case[1]) for case in others]
        except Exception as error:  # the model's own code may raise anything
            raise UserError(
                f"{flag}: forward(mode='tensor') of {name} fails on its example input "
                f'({describe_error(error)}), so {neither}'
            ) from error
        try:
            program, dims = export(prepare(model), example, others[-1])
        except Exception as error:  # as above
            raise UserError(
                f'{flag}: torch.export cannot trace the forward pass of {name} ({describe_error(error)}), '
                f'so {neither}'
            ) from error
    cases = [(case, tensors_of(output)) for case, output in zip(others, outputs, strict=True)]
    named = hasattr(model, 'export_example') and isinstance(outputs[0], dict)
    names = list(outputs[0]) if named else None
    return Traced(name, program, dims, cases, names)


def examples_of(model: nn.Module, input_shape: Sequence[int] | None, flag: str) -> list[Example]:
    """Arguments to trace a model with, and two more to compare with."""
    sizes = (TRACED, *COMPARED)
    if hasattr(model, 'export_example'):
        return [((), model.export_example(seed)) for seed in range(len(sizes))]
    return [random_example(model, size, input_shape, flag) for size in sizes]


def random_example(
    model: nn.Module, batch_size: int, input_shape: Sequence[int] | None, flag: str
) -> Example:
    """The model's example input with random values (fixed seed).

    Integer tensors are assumed to be indices, below the size of the model's smallest embedding.

    Raises:
        UserError: there is no example input, or it contains other objects than tensors and numbers.
    """
    example = require_example_input(model, input_shape, batch_size, flag)
    unsupported = [
        v for v in tree_leaves(example) if not isinstance(v, Tensor | int | float | str | None)
    ]
    if unsupported:
        raise UserError(
            f'{flag}: {type(model).__name__} takes {type(unsupported[0]).__name__} beside tensors, which '
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
    """Trace ``model`` on ``example``; return the graph and its ``batch_dims``.

    The batch dimensions are those in which ``example`` and ``other``, of another batch size, differ.
    """

    def differing_dims(first: Any, second: Any) -> dict[int, str] | None:
        if not isinstance(first, Tensor):
            return None
        return {i: 'batch' for i in range(first.dim()) if first.shape[i] != second.shape[i]}

    args, kwargs = example
    # Examples have either positional or keyword arguments.
    batch_dims = tree_map(differing_dims, kwargs or args, other[1] or other[0])
    batch = Dim('batch')

    def is_dims(value: Any) -> bool:
        return isinstance(value, dict) and all(name == 'batch' for name in value.values())

    shapes = tree_map(
        lambda dims: None if dims is None else {i: batch for i in dims},
        batch_dims,
        is_leaf=is_dims,
    )
    program = torch.export.export(model, args, kwargs, dynamic_shapes=shapes)
    for node in program.graph.nodes:  # paths of source files
        node.meta.pop('stack_trace', None)
    return program, batch_dims


@contextmanager
def plain_attention() -> Iterator[None]:
    """Disable the fused path of ``nn.MultiheadAttention`` and its layers, which can't be exported."""
    fastpath_enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath_enabled)


def largest_difference(
    traced: Traced, run: Callable[[Example], Sequence[Tensor]], flag: str, alternative: str
) -> float:
    """Largest :func:`difference` between an exported graph and the model over ``traced.cases``.

    Args:
        traced: The arguments and the model's outputs.
        run: Runs the exported graph on arguments.
        flag: The command-line flag, as a prefix of the message.
        alternative: End of the message: what to do instead.

    Raises:
        UserError: the difference exceeds ``LIMIT``, or is NaN.
    """
    worst = max(difference(run(case), expected) for case, expected in traced.cases)
    if not worst <= LIMIT:
        raise UserError(
            f'{flag}: the graph of {traced.name} differs from PyTorch by {worst:.2g} of the output, '
            f'more than {LIMIT:g}; {alternative}'
        )
    return worst


def difference(outputs: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Largest absolute difference relative to the expected output's largest absolute value.

    Of several outputs the largest result counts. It is infinite if the number of outputs, their shapes, or
    the positions of non-finite elements differ.
    """
    if [o.shape for o in outputs] != [e.shape for e in expected]:
        return float('inf')
    worst = 0.0
    for output, reference in zip(outputs, expected, strict=True):
        output, reference = output.double(), reference.double()
        gaps = torch.where(output == reference, 0.0, (output - reference).abs())
        gaps = gaps.nan_to_num(torch.inf, torch.inf)
        finite = reference[reference.isfinite()].abs()
        scale = float(finite.max()) if finite.numel() else 0.0
        largest = float(gaps.max()) if gaps.numel() else 0.0
        worst = max(worst, largest / scale if scale else largest)
    return worst


def describe_error(error: BaseException) -> str:
    """An error's class and the first line of its message, if any, without a full stop."""
    kind, text = type(error).__name__, ANSI_COLOURS.sub('', first_line(error)).rstrip(' .:')
    return kind if text == kind else f'{kind}: {text}'
