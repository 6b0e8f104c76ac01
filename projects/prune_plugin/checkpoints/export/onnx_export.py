"""``--save-onnx``: a forward pass as an ONNX file, compared in onnxruntime. Needs the extra `export`."""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ...common.errors import UserError
from ...common.fileio import atomic_write, output_directory
from ...structure.slimming import replace_module
from .constant_linear import ConstantLinear
from .tracing import COMPARED, Traced, largest_difference, said, tensors_of, trace

FLAG = '--save-onnx'
PACKAGES = ('onnx', 'onnxscript', 'onnxruntime')
#: What one file of protobuf can hold.
MAX_BYTES = 2**31
WAY_OUT = 'give --save-exported FILE.pt2, which PyTorch reads, instead'


def check_packages() -> None:
    """Raise :class:`UserError` unless the packages of the extra `export` are there."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise UserError(
            f'{FLAG} needs {", ".join(missing)}; install it with pip install -e ".[export]"'
        )


def save_onnx(
    model: nn.Module, path: str | os.PathLike, input_shape: Sequence[int] | None = None
) -> float:
    """Write ``model``'s forward pass as an ONNX file, once onnxruntime has computed the same.

    Args:
        model: In evaluation mode, dense or slim; it isn't to be used afterwards.
        path: The file; it appears whole or not at all.
        input_shape: Shape of one sample, for models without ``dummy_inputs``.

    Returns:
        The largest difference from the model on random inputs, relative to the output's scale.

    Raises:
        UserError: a package is missing, the model is too large for one file, or its forward pass can't be
            traced, said in ONNX, or run by onnxruntime to the same result.

    Example:
        >>> save_onnx(model, 'vit.onnx')
        >>> session = onnxruntime.InferenceSession('vit.onnx')
        >>> (logits,) = session.run(None, {'inputs': images})
    """
    check_packages()
    check_size(model)
    traced = trace(model, FLAG, input_shape, with_constants)
    data = to_onnx(traced)
    session = open_session(data, traced.name)

    def run(example):
        return run_session(session, tensors_of(example), traced.name)

    worst = largest_difference(traced, run, FLAG, WAY_OUT)
    with output_directory(os.path.dirname(path) or '.', FLAG), atomic_write(path, 'wb') as file:
        file.write(data)
    print_log(
        f'{FLAG} {path}: {len(data) / 1e6:.3g} MB, takes {ports(session.get_inputs())}, gives '
        f'{ports(session.get_outputs())}; onnxruntime differs from PyTorch by {worst:.2g} of the '
        f"output's scale at batch sizes {' and '.join(map(str, COMPARED))}",
        'current',
    )
    return worst


def check_size(model: nn.Module) -> None:
    """Raise :class:`UserError` if the weights, in float32, don't fit in one file."""
    size = 4 * sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    if size >= MAX_BYTES:
        raise UserError(
            f'{FLAG}: the {size / 2**30:.3g} GiB of weights of {type(model).__name__} do not fit in one '
            f'ONNX file, which holds less than {MAX_BYTES / 2**30:.3g} GiB; {WAY_OUT}'
        )


def with_constants(model: nn.Module) -> nn.Module:
    """Put a :class:`ConstantLinear` in place of each linear layer that lost all inputs.

    What led to them, such as attention without heads, then is no part of the graph. ONNX has no way to
    reshape a tensor without elements to an open number of samples.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and module.in_features == 0 and name:
            replace_module(model, name, ConstantLinear(module))
    return model


def to_onnx(traced: Traced) -> bytes:
    """The graph as an ONNX file's content, without names of this machine's files.

    Raises:
        UserError: ONNX lacks an operator that the model uses.
    """
    count = len(traced.cases[0][1])
    names = ['output'] if count == 1 else [f'output_{i}' for i in range(count)]
    try:
        made = torch.onnx.export(
            traced.program, dynamic_shapes=traced.batch_dims, output_names=names, verbose=False
        )
        proto = made.model_proto
    except Exception as error:  # the converter's own kinds, and whatever its parts raise
        # The outer message is about the converter, the innermost one about the operator.
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise UserError(
            f'{FLAG}: {traced.name} has no form in ONNX ({said(cause)}); {WAY_OUT}'
        ) from cause
    for node in (*proto.graph.node, *(n for f in proto.functions for n in f.node)):
        del node.metadata_props[:]
        node.ClearField('doc_string')
    return proto.SerializeToString()


def open_session(data: bytes, name: str) -> Any:
    """An onnxruntime session on the CPU with as many threads as PyTorch.

    Raises:
        UserError: onnxruntime refuses the graph.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # an error comes as an exception, too
    try:
        return onnxruntime.InferenceSession(data, options, providers=['CPUExecutionProvider'])
    except Exception as error:  # its exceptions have no base class of their own
        raise refusal(name, error) from error


def run_session(session: Any, inputs: Sequence[Tensor], name: str) -> list[Tensor]:
    """The outputs of a session for tensors in the order of its inputs.

    Raises:
        UserError: onnxruntime can't run the graph.
    """
    wanted = [port.name for port in session.get_inputs()]
    given = {key: t.numpy() for key, t in zip(wanted, inputs, strict=True)}
    try:
        return [torch.from_numpy(array) for array in session.run(None, given)]
    except Exception as error:  # as above
        raise refusal(name, error) from error


def refusal(name: str, error: Exception) -> UserError:
    """What the user is told if onnxruntime can't load or run the graph."""
    return UserError(f'{FLAG}: onnxruntime cannot run {name} ({said(error)}); {WAY_OUT}')


def ports(nodes: Sequence[Any]) -> str:
    """Inputs or outputs of a session: ``inputs (batch, 3, 32, 32)``."""
    return ', '.join(f'{n.name} ({", ".join(map(str, n.shape))})' for n in nodes)
