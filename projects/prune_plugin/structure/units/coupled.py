"""Channels coupled across layers (stage widths, concatenations), found with torch-pruning's graph."""

from collections import defaultdict
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ...common.errors import UserError, first_line
from ...common.eval_mode import evaluation_mode
from ...common.registry import UNITS
from ...common.validation import check_shape
from ..prune_state import PruneState
from ..slimming import mask, slim
from ..unit_group import Attr, Cut, UnitGroup
from .convolutions import norm_cuts
from .finder import NotPrunable, UnitFinder, require


@UNITS.register_module()
class CoupledChannels(UnitFinder):
    """Coupled channels of convolutional networks, traced by ``torch_pruning.DependencyGraph``.

    Not among the default units: requires the optional package ``torch-pruning`` and a forward pass.

    Args:
        input_shape: Shape of one input without the batch dimension, ``(3, 224, 224)``.
        submodule: Trace only this submodule (``'backbone'``). Default: the whole model.

    Example:
        >>> prune_cfg = dict(units=[dict(type='CoupledChannels', input_shape=(3, 32, 32))])
    """

    default = False

    def __init__(self, input_shape: tuple[int, ...], submodule: str = ''):
        check_shape('input_shape', input_shape)
        self.input_shape = tuple(input_shape)
        self.submodule = submodule

    def find(self, model: nn.Module) -> tuple[list[UnitGroup], dict[str, str]]:
        """See :meth:`UnitFinder.find`.

        Raises:
            UserError: torch-pruning isn't installed, there is no such submodule, or tracing fails.
        """
        try:
            import torch_pruning
        except ImportError as error:
            raise UserError(
                "prune_cfg.units: CoupledChannels needs the package 'torch-pruning'; install it "
                "with pip install -e '.[coupled]'"
            ) from error
        names = {module: name for name, module in model.named_modules()}
        if self.submodule not in names.values():
            raise UserError(
                f'prune_cfg.units: CoupledChannels.submodule {self.submodule!r} is not in the model'
            )
        traced = model.get_submodule(self.submodule)
        example = next(traced.parameters()).new_zeros(1, *self.input_shape)
        try:
            with evaluation_mode(traced):
                graph = torch_pruning.DependencyGraph().build_dependency(traced, example)
                coupled_groups = list(graph.get_all_groups())
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f'prune_cfg.units: CoupledChannels cannot trace the model with input_shape '
                f'{self.input_shape} ({type(error).__name__}: {first_line(error)})'
            ) from error
        groups, refused = [], {}
        for coupled in coupled_groups:
            root = names[coupled[0].dep.target.module]
            try:
                groups.append(self._to_group(coupled, names))
            except NotPrunable as reason:
                refused[root] = str(reason)
        groups, failed = self._verified(model, groups, example)
        order = {name: i for i, name in enumerate(names.values())}
        return sorted(groups, key=lambda g: order[g.name]), {**refused, **failed}

    def _verified(
        self, model: nn.Module, groups: list[UnitGroup], example: Tensor
    ) -> tuple[list[UnitGroup], dict[str, str]]:
        """Slim and mask by the traced groups; return the valid ones, and why the others aren't.

        With every other unit removed, the traced submodule must run, and its outputs must keep their shapes
        (else the channels may be used outside of it) and equal those of the masked submodule (else the
        trace is wrong, as it is where concatenated channels are flattened).
        """
        noise = torch.randn(example.shape, generator=torch.Generator().manual_seed(0))
        noise = noise.to(example)

        def outputs(
            prune: Callable[[nn.Module, PruneState], nn.Module], tested: list[UnitGroup]
        ) -> list[Tensor]:
            kept = {g.name: torch.arange(1, g.size, 2) for g in tested}
            pruned = prune(deepcopy(model), PruneState({g.name: g for g in tested}, kept)).eval()
            with torch.no_grad():
                leaves = tree_leaves(pruned.get_submodule(self.submodule)(noise))
            return [x for x in leaves if isinstance(x, Tensor)]

        def failure(tested: list[UnitGroup]) -> str | None:
            try:
                slimmed = outputs(slim, tested)
            except (LookupError, RuntimeError, TypeError, ValueError) as error:
                reason = f'{type(error).__name__}: {first_line(error)}'
                return f'cut as torch-pruning traced it, it does not run ({reason})'
            if [x.shape for x in slimmed] != dense_shapes:
                return f'its channels leave {self.submodule or "the model"}'
            if not all(map(equal_up_to_rounding, slimmed, outputs(mask, tested))):
                return 'cut as torch-pruning traced it, its output changes'
            return None

        groups = [group for group in groups if group.size > 1]
        dense_shapes = [x.shape for x in outputs(slim, [])]
        if failure(groups) is None:
            return groups, {}
        failures = {group.name: failure([group]) for group in groups}
        valid = [group for group in groups if failures[group.name] is None]
        return valid, {name: why for name, why in failures.items() if why is not None}

    def _to_group(self, coupled: Any, names: dict[nn.Module, str]) -> UnitGroup:
        """Convert a ``torch_pruning.Group``: modules with lists of indices -> cuts with tables.

        Raises:
            NotPrunable: a module can't be cut, or doesn't contain every unit equally often.
        """
        tables: dict[tuple[nn.Module, str], dict[int, list[int]]] = {}
        for item in coupled:
            module = item.dep.target.module
            if module not in names or not list(module.parameters(recurse=False)):
                continue
            side = 'out' if 'in_channels' in item.dep.handler.__name__ else 'in'
            if is_depthwise(module) or isinstance(module, nn.modules.batchnorm._BatchNorm):
                side = 'in'
            table = tables.setdefault((module, side), defaultdict(list))
            for index, unit in zip(item.idxs, item.root_idxs, strict=True):
                if int(index) not in table[int(unit)]:
                    table[int(unit)].append(int(index))
        require(any(side == 'out' for _, side in tables), 'its channels are the model output')
        cuts, attrs = [], []
        size = max(map(len, tables.values()))
        for (module, side), table in tables.items():
            require(len(table) == size, f'{names[module]} has only some of the units')
            rows = tuple(tuple(table[unit]) for unit in sorted(table))
            require(len({len(row) for row in rows}) == 1, f'{names[module]} shares units unevenly')
            cuts += module_cuts(names[module], module, side, rows)
            if is_depthwise(module):
                attrs.append(Attr(names[module], 'groups', len(rows[0])))
        # The name must not depend on the order in which torch-pruning visits the layers.
        producers = [names[module] for module, side in tables if side == 'in']
        first = min(producers, key=list(names.values()).index)
        return UnitGroup(first, 'coupled', size, tuple(cuts), '', tuple(attrs), least=1)


def equal_up_to_rounding(first: Tensor, second: Tensor) -> bool:
    """Whether two outputs are equal up to rounding; True for meta and integer tensors."""
    if first.is_meta or not first.is_floating_point():
        return True
    limit = torch.finfo(first.dtype).eps ** 0.5 * second.abs().amax() if first.numel() else 0
    return bool(((first - second).abs() <= limit).all())


def is_depthwise(module: nn.Module) -> bool:
    """Whether a convolution is depthwise, with as many output as input channels, in any dimension."""
    return (
        getattr(module, 'groups', 1) > 1
        and module.groups == module.in_channels == module.out_channels
    )


def module_cuts(
    name: str, module: nn.Module, side: str, rows: tuple[tuple[int, ...], ...]
) -> list[Cut]:
    """The cuts of one module in a coupled group; ``rows`` are the indices of each unit.

    Raises:
        NotPrunable: for modules in which masking and removing a channel aren't equivalent.
    """
    plain = all(row == (unit,) for unit, row in enumerate(rows))
    table = None if plain else rows
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return [Cut(c.name, 0, table=table) for c in norm_cuts(name, module)]
    known = isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
    require(known, f'{name} is a {type(module).__name__}')
    require(getattr(module, 'groups', 1) == 1 or is_depthwise(module), f'{name} has groups')
    if side == 'out':
        return [Cut(f'{name}.weight', 1, side='out', table=table)]
    cuts = [Cut(f'{name}.weight', 0, table=table)]
    if module.bias is not None:
        cuts.append(Cut(f'{name}.bias', 0, table=table))
    return cuts
