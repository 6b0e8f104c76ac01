"""``--save-onnx``: export to ONNX, verified with onnxruntime. Needs the extra `export`."""

import os
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.export import ExportedProgram

from ...common.errors import UserError
from ...common.fileio import atomic_write, output_directory
from ...evaluation.example_inputs import Example
from ...structure.slimming import replace_module
from .constant_linear import ConstantLinear
from .int8 import quantised
from .tracing import (
    COMPARED,
    Traced,
    describe_error,
    largest_difference,
    tensors_of,
    trace,
)

FLAG = '--save-onnx'
PACKAGES = ('onnx', 'onnxscript', 'onnxruntime')
#: Size limit of a protobuf file.
MAX_BYTES = 2**31
ALTERNATIVE = 'give --save-exported FILE.pt2, which PyTorch reads, instead'


def check_packages() -> None:
    """Raise :class:`UserError` unless the packages of the extra `export` are installed."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise UserError(
            f'{FLAG} needs {", ".join(missing)}; install it with pip install -e ".[export]"'
        )


def save_onnx(
    model: nn.Module,
    path: str | os.PathLike,
    input_shape: Sequence[int] | None = None,
    batches: Iterable[Tensor] | None = None,
) -> float:
    """Write ``model``'s forward pass as an ONNX file, after verifying the outputs with onnxruntime.

    Args:
        model: Dense or slim model in evaluation mode; its layers may be replaced, so don't use it
            afterwards.
        path: The file, written atomically.
        input_shape: Shape of one sample, for models without ``dummy_inputs``.
        batches: Inputs to take ranges from, for a file in 8 bits, which differs by more; None: float32.

    Returns:
        The largest difference from the model on random inputs, relative to the output's largest value.

    Raises:
        UserError: a package is missing; the model is too large for one file; or its forward pass can't be
            traced or converted to ONNX, or onnxruntime fails or computes another result.

    Example:
        >>> save_onnx(model, 'vit.onnx')
        >>> session = onnxruntime.InferenceSession('vit.onnx')
        >>> (logits,) = session.run(None, {'inputs': images})
    """
    check_packages()
    check_size(model)
    traced = trace(model, FLAG, input_shape, replace_empty_linears)
    data = to_onnx(traced)
    session = open_session(data, traced.name)

    def run(example: Example) -> list[Tensor]:
        return run_session(session, tensors_of(example), traced.name)

    worst = largest_difference(traced, run, FLAG, ALTERNATIVE)
    if batches is not None:
        data = quantised(data, batches)
        session = open_session(data, traced.name)
    with output_directory(os.path.dirname(path) or '.', FLAG), atomic_write(path, 'wb') as file:
        file.write(data)
    print_log(
        f'{FLAG} {path}: {len(data) / 1e6:.3g} MB, takes {format_nodes(session.get_inputs())}, gives '
        f'{format_nodes(session.get_outputs())}; onnxruntime differs from PyTorch by {worst:.2g} of the '
        f"output's scale at batch sizes {' and '.join(map(str, COMPARED))}"
        + ('' if batches is None else ', before it was quantised to 8 bits'),
        'current',
    )
    return worst


def check_size(model: nn.Module) -> None:
    """Raise :class:`UserError` if the weights, in float32, exceed the size limit of a file."""
    size = 4 * sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    if size >= MAX_BYTES:
        raise UserError(
            f'{FLAG}: the {size / 2**30:.3g} GiB of weights of {type(model).__name__} do not fit in one '
            f'ONNX file, which holds less than {MAX_BYTES / 2**30:.3g} GiB; {ALTERNATIVE}'
        )


def replace_empty_linears(model: nn.Module) -> nn.Module:
    """Replace linear layers without input features by :class:`ConstantLinear`, in place.

    The layers before them, such as attention without heads, are then no longer part of the graph: ONNX
    can't reshape a tensor without elements to a dynamic batch size.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and module.in_features == 0 and name:
            replace_module(model, name, ConstantLinear(module))
    return model


def to_onnx(traced: Traced) -> bytes:
    """Convert the graph to the bytes of an ONNX file, without paths of source files.

    Raises:
        UserError: ONNX lacks an operator that the model uses.
    """
    count = len(traced.cases[0][1])
    names = ['output'] if count == 1 else [f'output_{i}' for i in range(count)]
    names = traced.output_names or names
    try:
        return graph_bytes(traced.program, traced.batch_dims, names)
    except Exception as error:  # the converter may raise anything
        # The outermost error is about the converter, the innermost one about the operator.
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise UserError(
            f'{FLAG}: {traced.name} cannot be converted to ONNX ({describe_error(cause)}); {ALTERNATIVE}'
        ) from cause


def graph_bytes(
    program: ExportedProgram, batch_dims: Any = None, names: Sequence[str] | None = None
) -> bytes:
    """A traced graph as the bytes of an ONNX file, without paths of source files.

    Args:
        program: The graph.
        batch_dims: Its dynamic dimensions; None: all shapes are fixed.
        names: Names of its outputs; None: as the converter has them.
    """
    exported = torch.onnx.export(
        program, dynamic_shapes=batch_dims, output_names=names, verbose=False
    )
    proto = exported.model_proto
    for node in (*proto.graph.node, *(n for f in proto.functions for n in f.node)):
        del node.metadata_props[:]
        node.ClearField('doc_string')
    return proto.SerializeToString()


def open_session(data: bytes, name: str, threads: int | None = None) -> Any:
    """Create an onnxruntime session on the CPU, with as many threads as PyTorch uses unless told.

    Raises:
        UserError: onnxruntime can't load the graph.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 4  # errors are also raised as exceptions
    try:
        return onnxruntime.InferenceSession(data, options, providers=['CPUExecutionProvider'])
    except Exception as error:  # its exceptions have no common base class
        raise runtime_error(name, error) from error


def run_session(session: Any, inputs: Sequence[Tensor], name: str) -> list[Tensor]:
    """Run a session on tensors, given in the order of its inputs.

    Raises:
        UserError: onnxruntime can't run the graph.
    """
    names = [node.name for node in session.get_inputs()]
    arrays = {key: tensor.numpy() for key, tensor in zip(names, inputs, strict=True)}
    try:
        return [torch.from_numpy(array) for array in session.run(None, arrays)]
    except Exception as error:  # as above
        raise runtime_error(name, error) from error


def runtime_error(name: str, error: Exception) -> UserError:
    """The error to raise if onnxruntime can't load or run the graph of the model class ``name``."""
    return UserError(
        f'{FLAG}: onnxruntime cannot run {name} ({describe_error(error)}); {ALTERNATIVE}'
    )


def format_nodes(nodes: Sequence[Any]) -> str:
    """Names and shapes of a session's inputs or outputs: ``inputs (batch, 3, 32, 32)``."""
    return ', '.join(f'{n.name} ({", ".join(map(str, n.shape))})' for n in nodes)
