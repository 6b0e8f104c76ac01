"""Engines that a latency is measured in: PyTorch, and those that run an ONNX graph on the CPU."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from importlib.util import find_spec
from io import BytesIO
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from ...common.errors import UserError
from ...common.eval_mode import as_usual
from ...common.model_interface import export_view_of, offers_export_view
from ...evaluation.environment import device_name
from ...evaluation.example_inputs import Example
from ...evaluation.latency import interleaved_latency, model_latency
from ..export.onnx_export import graph_bytes, replace_empty_linears
from ..export.tracing import describe_error, plain_attention, tensors_of


class TimingEngine(Protocol):
    """What times modules."""

    #: As in ``budget=dict(type='latency', engine=...)`` and the reports.
    name: str

    def check(self, key: str) -> None:
        """Raise :class:`UserError`, which names ``key``, unless the engine is installed."""

    def where(self, model: nn.Module) -> str:
        """The engine and the device that a model is timed on, for logs."""

    def latency(
        self,
        modules: Sequence[nn.Module],
        example: Example,
        seconds: float,
        num_threads: int,
        patience: float = 2.0,
    ) -> list[float]:
        """Median milliseconds of one call of each module, the modules' calls interleaved.

        Args:
            modules: Layers or models that take the same arguments.
            example: These arguments.
            seconds: Time to spend on all modules together.
            num_threads: CPU threads.
            patience: See :func:`interleaved_latency`.

        Raises:
            UserError: a module can't be run in this engine.
        """


class TorchTiming:
    """PyTorch, on the device that the model is on."""

    name = 'torch'

    def check(self, key: str) -> None:
        """See :class:`TimingEngine`: PyTorch is always there."""

    def where(self, model: nn.Module) -> str:
        """See :class:`TimingEngine`."""
        return device_name(model)

    def latency(
        self,
        modules: Sequence[nn.Module],
        example: Example,
        seconds: float,
        num_threads: int,
        patience: float = 2.0,
    ) -> list[float]:
        """See :class:`TimingEngine`."""
        return model_latency(
            modules, example, seconds=seconds, num_threads=num_threads, patience=patience
        )


class OnnxTiming:
    """Base of the engines that run ONNX graphs on the CPU: a module alone is exported, then timed."""

    name = ''
    #: Modules that must be installed, and the extras that bring them.
    packages: tuple[str, ...] = ()
    extras = 'export'

    def check(self, key: str) -> None:
        """See :class:`TimingEngine`."""
        missing = [package for package in self.packages if find_spec(package) is None]
        if missing:
            raise UserError(
                f'{key} is {self.name!r}, which needs {", ".join(missing)}; install it with '
                f'pip install -e ".[{self.extras}]"'
            )

    def where(self, model: nn.Module) -> str:
        """See :class:`TimingEngine`."""
        return f'{self.name}, {device_name(nn.Linear(1, 1))}'

    def latency(
        self,
        modules: Sequence[nn.Module],
        example: Example,
        seconds: float,
        num_threads: int,
        patience: float = 2.0,
    ) -> list[float]:
        """See :class:`TimingEngine`."""
        calls = []
        for module in modules:
            data, inputs = onnx_call(module, example, self.name)
            try:
                calls.append(self.call(data, inputs, num_threads))
                calls[-1]()
            except Exception as error:  # the engines' errors have no common base class
                raise cannot(module, self.name, error) from error
        return interleaved_latency(calls, seconds, num_threads, patience=patience)

    def call(self, data: bytes, inputs: list[Tensor], num_threads: int) -> Callable[[], Any]:
        """A function that runs a graph on these inputs, given in the graph's order.

        Args:
            data: The ONNX graph.
            inputs: Its inputs, on the CPU.
            num_threads: CPU threads.
        """
        raise NotImplementedError


class OnnxruntimeTiming(OnnxTiming):
    """onnxruntime on the CPU."""

    name = 'onnxruntime'
    packages = ('onnx', 'onnxscript', 'onnxruntime')

    def call(self, data: bytes, inputs: list[Tensor], num_threads: int) -> Callable[[], Any]:
        """See :class:`OnnxTiming`."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.log_severity_level = 4  # errors are also raised as exceptions
        session = onnxruntime.InferenceSession(data, options, providers=['CPUExecutionProvider'])
        names = [node.name for node in session.get_inputs()]
        arrays = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
        return lambda: session.run(None, arrays)


class OpenvinoTiming(OnnxTiming):
    """OpenVINO on the CPU, in the precision that it takes by itself there."""

    name = 'openvino'
    packages = ('onnx', 'onnxscript', 'openvino')
    extras = 'export,openvino'

    def call(self, data: bytes, inputs: list[Tensor], num_threads: int) -> Callable[[], Any]:
        """See :class:`OnnxTiming`."""
        import openvino

        settings = {'INFERENCE_NUM_THREADS': num_threads, 'PERFORMANCE_HINT': 'LATENCY'}
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(BytesIO(data)), 'CPU', settings)
        request, arrays = compiled.create_infer_request(), [x.numpy() for x in inputs]
        return lambda: request.infer(arrays)


#: The engines, by the name that a config gives them.
TIMING_ENGINES: dict[str, TimingEngine] = {
    engine.name: engine for engine in (TorchTiming(), OnnxruntimeTiming(), OpenvinoTiming())
}


class FixedCall(nn.Module):
    """A call of a module as a function of its tensors; what else it is given is constant.

    Args:
        module: The module.
        example: Its arguments.
    """

    def __init__(self, module: nn.Module, example: Example):
        super().__init__()
        self.module = module
        leaves, self.spec = tree_flatten(example)
        self.rest = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self.places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """All tensors of the output, in their order."""
        leaves = list(self.rest)
        for place, tensor in zip(self.places, tensors, strict=True):
            leaves[place] = tensor
        args, kwargs = tree_unflatten(leaves, self.spec)
        return tuple(tensors_of(self.module(*args, **kwargs)))


def onnx_call(module: nn.Module, example: Example, engine: str) -> tuple[bytes, list[Tensor]]:
    """One call of a module, which may be a layer of a model, as an ONNX graph of fixed shapes.

    Args:
        module: The module, which isn't changed.
        example: The arguments of the call. A model that offers an ``export_view`` gives its own.
        engine: What is to run the graph, for messages.

    Returns:
        The graph, in float32, and its inputs, on the CPU in the graph's order.

    Raises:
        UserError: the module can't be traced or written as ONNX.
    """
    copy = deepcopy(module).cpu().float()
    copy.eval()  # which need not return the module
    if offers_export_view(copy):
        view = export_view_of(copy)
        copy, example = view, ((), view.export_example(0))
    call = FixedCall(replace_empty_linears(copy), example)
    inputs = [as_input(tensor) for tensor in tensors_of(example)]
    with as_usual(), torch.no_grad(), plain_attention():
        try:
            program = torch.export.export(call, tuple(inputs))
            return graph_bytes(program), inputs
        except Exception as error:  # the model's own code and the converter may raise anything
            raise cannot(module, engine, error) from error


def as_input(tensor: Tensor) -> Tensor:
    """A tensor as an input of a graph: on the CPU, in memory of its own, floats in float32."""
    copy = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return copy.float() if copy.is_floating_point() else copy


def cannot(module: nn.Module, engine: str, error: BaseException) -> UserError:
    """The error to raise where an engine can't run a module."""
    return UserError(
        f'{type(module).__name__} cannot be run in {engine} ({describe_error(error)}); name what holds it '
        "in prune_cfg.exclude, or time in PyTorch, with engine='torch'"
    )
