"""A pretended GPU: tensors with real numbers that claim to be on one.

Each operation runs on the CPU. One that mixes devices raises as CUDA would. Counted are synchronisations,
where the CPU waits for a value from the GPU, and copies to the GPU for which it waits: all but those with
``non_blocking``. Each is counted by the operation and the line of this project, or else of a library, that
asks for it.

What it can't show: whether kernels exist, run in parallel, or differ in their last digits.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.utils.backend_registration as backends
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

ROOT = Path(__file__).resolve().parents[2]
TYPE = 'pretended'
#: Ops that move data between devices.
COPIES = {'aten::_to_copy', 'aten::copy_', 'aten::copy'}
#: Ops that may take indices on the CPU for a tensor on the GPU.
INDEXING = {
    'aten::index',
    'aten::index_put',
    'aten::index_put_',
    'aten::_index_put_impl_',
    'aten::_unsafe_index',
}
#: Ops whose result has a size or value that the CPU must know.
SYNCS = {
    'aten::_local_scalar_dense', 'aten::nonzero', 'aten::masked_select', 'aten::is_nonzero',
    'aten::equal', 'aten::_unique2', 'aten::unique_dim', 'aten::unique_consecutive',
}  # fmt: skip


class _Module(backends._DummyBackendModule):
    """What stands for ``torch.cuda``."""

    def is_available(self) -> bool:
        return False  # to other tests in this process

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


class _Hook(backends._DummyPrivateUse1Hook):
    def is_available(self) -> bool:
        return False


if torch._C._get_privateuse1_backend_name() != TYPE:
    backends._setup_privateuseone_for_python_backend(TYPE, _Module(), _Hook())
DEVICE = torch.device(TYPE, 0)


class Emulated(Tensor):
    """A tensor on the pretended GPU; ``value`` holds its numbers, on the CPU."""

    @staticmethod
    def __new__(cls, value: Tensor, requires_grad: bool = False):
        tensor = Tensor._make_wrapper_subclass(
            cls, value.size(), strides=value.stride(), storage_offset=value.storage_offset(),
            dtype=value.dtype, layout=value.layout, device=DEVICE, requires_grad=requires_grad,
        )  # fmt: skip
        tensor.value = value
        return tensor

    def __repr__(self) -> str:
        return f'Emulated({self.value})'

    @property
    def data(self) -> Tensor:
        """See :class:`torch.Tensor`."""
        return self.detach()

    @data.setter
    def data(self, other: Tensor) -> None:
        self.value = other.value

    def tolist(self) -> list:
        """See :class:`torch.Tensor`; it doesn't come by the dispatcher."""
        current().count_sync('tolist')
        return self.value.tolist()

    def numpy(self, *args, **kwargs):
        """As a tensor on a GPU: it can't."""
        raise TypeError(
            f"can't convert {DEVICE} device type tensor to numpy; copy it to the CPU first"
        )

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return current().run(function, args, kwargs or {})


class Gpu(TorchDispatchMode):
    """The pretended GPU: a context in which tensors can be put on it.

    Attributes:
        syncs: How often the CPU waited for a value, by (operation, line).
        copies: How often it waited for a copy to the GPU, likewise.
        sent: How many copies to the GPU it didn't wait for.
    """

    active: 'list[Gpu]' = []

    def __init__(self):
        super().__init__()
        self.syncs, self.copies, self.sent = Counter(), Counter(), 0

    def __enter__(self):
        self.active.append(self)
        # torch.tensor(..., device=...) then makes a CPU tensor and copies it, which is seen here.
        self.lifted = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        return super().__enter__()

    def __exit__(self, *error):
        torch._C._set_only_lift_cpu_tensors(self.lifted)
        self.active.pop()
        return super().__exit__(*error)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return self.run(function, args, kwargs or {})

    def count_sync(self, name: str) -> None:
        """Count that the CPU waits."""
        self.syncs[name.removeprefix('aten::'), caller()] += 1

    def count_copy(self, name: str, waits: bool) -> None:
        """Count a copy to the GPU."""
        if waits:
            self.copies[name.removeprefix('aten::'), caller()] += 1
        else:
            self.sent += 1

    def run(self, function, args: tuple, kwargs: dict) -> Any:
        """Run an operation on the CPU."""
        name = function._schema.name
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        emulated = [x for x in tensors if isinstance(x, Emulated)]
        plain = [x for x in tensors if not isinstance(x, Emulated)]
        target = None if kwargs.get('device') is None else torch.device(kwargs['device']).type
        if name.startswith('c10d::'):
            return self.communicate(function, args, kwargs, plain)
        if emulated:
            self.check_devices(name, args, plain)
        self.count(name, args, kwargs, emulated, plain, target)
        numbers = tree_map(lambda x: x.value if isinstance(x, Emulated) else x, (args, kwargs))
        if target == TYPE:
            numbers[1]['device'] = 'cpu'
        out = function(*numbers[0], **numbers[1])
        if name == 'aten::copy_':
            return args[0]
        known = {id(x.value): x for x in emulated}
        on_gpu = target == TYPE or (bool(emulated) and target != 'cpu')

        def put(x: Any) -> Any:
            if not isinstance(x, Tensor) or not on_gpu:
                return x
            return known[id(x)] if id(x) in known else Emulated(x)

        return tree_map(put, out)

    def check_devices(self, name: str, args: tuple, plain: list[Tensor]) -> None:
        """Raise :class:`RuntimeError` where CUDA would, for tensors on two devices.

        A number may be a CPU tensor without dimensions; indices may lie on the CPU.
        """
        if name in COPIES:
            return
        wrong = [x for x in plain if x.dim() > 0]
        if name in INDEXING:
            values = args[2:3]
            indices = [x for x in args[1] if x is not None]
            if isinstance(args[0], Emulated):
                wrong = [x for x in values if not isinstance(x, Emulated) and x.dim() > 0]
            else:
                wrong = [x for x in (*indices, *values) if isinstance(x, Emulated)]
        in_place = (
            name.endswith('_') and isinstance(args[0], Tensor) and not isinstance(args[0], Emulated)
        )
        if wrong or (in_place and name not in INDEXING):
            shapes = [tuple(x.shape) for x in wrong]
            raise RuntimeError(
                f'Expected all tensors to be on the same device, but found at least two: {name} at '
                f'{caller()}, on the CPU {shapes}'
            )

    def count(
        self,
        name: str,
        args: tuple,
        kwargs: dict,
        emulated: list[Tensor],
        plain: list[Tensor],
        target: str | None,
    ) -> None:
        """Count what an operation waits for."""
        if name in SYNCS and emulated:
            self.count_sync(name)
        if name in INDEXING and isinstance(args[0], Emulated):
            indices = [x for x in args[1] if x is not None]
            if any(x.dtype in (torch.bool, torch.uint8) for x in indices):
                self.count_sync('index by a mask')
            if any(not isinstance(x, Emulated) for x in indices):
                self.count_copy('index on the CPU', waits=True)
        waits = not kwargs.get('non_blocking', False)
        if name == 'aten::_to_copy':
            if target == TYPE and plain:
                self.count_copy(name, waits)
            if target == 'cpu' and emulated:
                self.count_sync('to the CPU')
        elif name in COPIES and emulated and plain:
            waits = not (len(args) > 2 and args[2]) and waits
            if isinstance(args[0], Emulated):
                self.count_copy(name, waits)
            else:
                self.count_sync('to the CPU')

    def communicate(self, function, args: tuple, kwargs: dict, plain: list[Tensor]) -> Any:
        """A collective on the values, in the group that stands in for the one asked for."""
        if plain:
            return function(*args, **kwargs)  # which raises, in a group without the CPU

        def instead(x: Any) -> Any:
            if isinstance(x, Emulated):
                return x.value
            if isinstance(x, torch.ScriptObject) and 'ProcessGroup' in str(x._type()):
                group = torch._C._distributed_c10d.ProcessGroup.unbox(x)
                return STAND_INS.get(group.group_name, group).boxed()
            return x

        numbers = tree_map(instead, (args, kwargs))
        return function(*numbers[0], **numbers[1])

    def clear(self) -> None:
        """Forget what was counted."""
        self.syncs.clear()
        self.copies.clear()
        self.sent = 0


#: Process groups that do the work of others, by the names of these.
STAND_INS: dict[str, Any] = {}


def current() -> Gpu:
    """The GPU in use."""
    if not Gpu.active:
        raise RuntimeError('an emulated tensor is used outside of its context')
    return Gpu.active[-1]


def caller() -> str:
    """The line of this project that is running, or else the innermost of a library."""
    frame, first = sys._getframe(2), None
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(f'{ROOT}/projects/'):
            return f'{path.removeprefix(f"{ROOT}/projects/")}:{frame.f_lineno}'
        if first is None and path != __file__ and '/torch/' not in path:
            first = f'{"/".join(Path(path).parts[-2:])}:{frame.f_lineno}'
        frame = frame.f_back
    return first or '?'


def put(model: nn.Module) -> nn.Module:
    """Move a model to the pretended GPU, in place; tied parameters stay tied."""
    done: dict[int, Tensor] = {}
    for module in model.modules():
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is None:
                    continue
                if id(tensor) not in done:
                    moved: Tensor = Emulated(tensor.detach().clone())
                    if isinstance(tensor, nn.Parameter):
                        moved = nn.Parameter(moved, requires_grad=tensor.requires_grad)
                    done[id(tensor)] = moved
                table[name] = done[id(tensor)]
        if hasattr(module, '_device'):  # MMEngine's data preprocessors
            module._device = DEVICE
    return model


def values(tensors: Any) -> Any:
    """The numbers of all emulated tensors in a structure, on the CPU."""
    return tree_map(lambda x: x.value if isinstance(x, Emulated) else x, tensors)


@contextmanager
def pretended_gpu() -> Iterator[Gpu]:
    """A pretended GPU, in a context."""
    with Gpu() as gpu:
        yield gpu
