"""Which modules read units as their input, and what weights read that no module of a known kind holds."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from ..structure.unit_group import Cut

#: Products: the places of input and weight among the arguments, and the dimensions that are summed over.
PRODUCTS: dict[str, tuple[int, int, int, int]] = {
    'linear': (0, 1, -1, -1),
    'addmm': (1, 2, -1, -2),
    'baddbmm': (1, 2, -1, -2),
    '_grouped_mm': (0, 1, -1, -2),
    'conv1d': (0, 1, 1, 1),
    'conv2d': (0, 1, 1, 1),
    'conv3d': (0, 1, 1, 1),
    'conv_transpose1d': (0, 1, 1, 0),
    'conv_transpose2d': (0, 1, 1, 0),
    'conv_transpose3d': (0, 1, 1, 0),
}
#: Products of two matrices; either may be the weight.
MATMULS = ('matmul', '__matmul__', '__rmatmul__', 'mm', 'bmm')


def is_layer_input(model: nn.Module, cut: Cut) -> bool:
    """Whether what a cut's weight reads is the first argument of a linear layer or a convolution."""
    path, _, own = cut.name.rpartition('.')
    if own != 'weight' or cut.dim != 1:
        return False
    module = model.get_submodule(path)
    kind = type(module).__name__
    return isinstance(module, nn.Linear) or ('Conv' in kind and 'Transpose' not in kind)


class ObservedWeights(TorchFunctionMode):
    """While it is on, tells what the columns of some weights are multiplied by.

    A weight may be used in part, transposed or in another shape: the same is done to the numbers of its
    columns, which tells them apart afterwards.

    Args:
        weights: By name, the weights and the dimension of their columns.
        found: ``(name, columns, rows)``: rows (n, k) are multiplied by these (k) columns.
    """

    def __init__(
        self,
        weights: Mapping[str, tuple[Tensor, int]],
        found: Callable[[str, Tensor, Tensor], None],
    ):
        super().__init__()
        self.found = found
        self.forms: dict[int, tuple[Tensor, str, Tensor]] = {}
        for name, (weight, dim) in weights.items():
            shape = [1] * weight.dim()
            shape[dim] = -1
            numbers = torch.arange(weight.shape[dim]).view(shape).expand(weight.shape)
            self.forms[id(weight)] = weight, name, numbers

    def form(self, value: Any) -> tuple[Tensor, str, Tensor] | None:
        """A form of a weight that is observed, its name and the numbers of its columns; or None."""
        return self.forms.get(id(value)) if isinstance(value, Tensor) else None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        formed = [x for x in given if self.form(x) is not None]
        if formed and is_movement(func, given, out):
            self.move(func, args, kwargs, out)
        elif formed:
            self.multiply(getattr(func, '__name__', ''), args, kwargs)
        return out

    def move(self, func: Any, args: tuple, kwargs: dict, out: Any) -> None:
        """Note another form of a weight."""
        first = next(x for x in tree_leaves((args, kwargs)) if self.form(x) is not None)
        _, name, _ = self.forms[id(first)]

        def numbers(value: Any) -> Any:
            form = self.form(value)
            return value if form is None else form[2]

        moved = tree_leaves(func(*tree_map(numbers, args), **tree_map(numbers, kwargs)))
        for tensor, columns in zip(tree_leaves(out), moved, strict=True):
            if isinstance(tensor, Tensor):
                self.forms[id(tensor)] = tensor, name, columns.long()

    def multiply(self, product: str, args: tuple, kwargs: dict) -> None:
        """Note what the columns are multiplied by, if this is a product over them."""
        if product == 'einsum':
            self.einsum(args)
        elif product in PRODUCTS:
            x, weight, of_x, of_weight = PRODUCTS[product]
            values = (*args, *kwargs.values())
            if len(values) > weight and self.form(values[weight]) is not None:
                self.note(values[x], of_x, values[weight], of_weight)
        elif product in MATMULS:
            left, right = args[1::-1] if product == '__rmatmul__' else args[:2]
            if self.form(right) is not None:
                self.note(left, -1, right, -2)
            elif self.form(left) is not None:
                self.note(right, -2, left, -1)

    def einsum(self, args: tuple) -> None:
        """Note what the columns are multiplied by in a product of two tensors with named dimensions."""
        equation, *operands = args
        operands = (
            operands[0] if len(operands) == 1 and not isinstance(operands[0], Tensor) else operands
        )
        if not isinstance(equation, str) or len(operands) != 2 or '.' in equation:
            return
        terms = equation.replace(' ', '').split('->')[0].split(',')
        for mine, other in ((0, 1), (1, 0)):
            form = self.form(operands[mine])
            if form is None:
                continue
            for dim, letter in enumerate(terms[mine]):
                if letter in terms[other] and varies_along(form[2], dim):
                    self.note(operands[other], terms[other].index(letter), operands[mine], dim)

    def note(self, x: Tensor, of_x: int, weight: Tensor, of_weight: int) -> None:
        """Tell what some columns are multiplied by."""
        _, name, numbers = self.forms[id(weight)]
        if weight.dim() == 1:
            of_weight = -1
        if not varies_along(numbers, of_weight):
            return
        columns = numbers.movedim(of_weight, -1).flatten(0, -2)[0] if numbers.dim() > 1 else numbers
        rows = x.detach().movedim(of_x, -1).flatten(0, -2) if x.dim() > 1 else x.detach()[None]
        if rows.shape[-1] == len(columns):
            self.found(name, columns, rows)


def is_movement(func: Any, given: Sequence[Tensor], out: Any) -> bool:
    """Whether a function only moves the elements of its only tensor, or takes some of them."""
    outputs = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
    name = getattr(func, '__name__', '')
    if not outputs or len(outputs) != len(tree_leaves(out)):
        return False
    if name in ('__getitem__', 'getitem', 'index_select', 'select'):
        return True
    if len(given) > 1:
        return False
    if name in (
        'to',
        'type',
        'float',
        'half',
        'bfloat16',
        'double',
        'contiguous',
        'clone',
        'detach',
    ):
        return True
    own = given[0].untyped_storage().data_ptr()
    return all(x.untyped_storage().data_ptr() == own and x.numel() for x in outputs)


def varies_along(numbers: Tensor, dim: int) -> bool:
    """Whether numbers differ along a dimension, and along no other."""
    first = numbers.narrow(dim, 0, 1)
    if numbers.shape[dim] < 2 or bool((numbers == first).all()):
        return False
    line = first_line_along(numbers, dim)
    shape = [1] * numbers.dim()
    shape[dim] = -1
    return bool((numbers == line.view(shape)).all())


def first_line_along(numbers: Tensor, dim: int) -> Tensor:
    """The numbers along a dimension, at the first place of all others."""
    return numbers.movedim(dim, -1).reshape(-1, numbers.shape[dim])[0]
