"""Channels that several layers share (stage widths, concatenations), found by torch-pruning's graph."""

from collections import defaultdict
from collections.abc import Callable
from copy import deepcopy

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
    """Coupled channels of convolutional nets, traced by ``torch_pruning.DependencyGraph``.

    Not among the default units: it needs the optional package ``torch-pruning`` and one forward pass.

    Args:
        input_shape: Shape of one input without the batch dimension, ``(3, 224, 224)``.
        submodule: Trace only this part of the model (``'backbone'``). Default: the model.

    Example:
        >>> prune_cfg = dict(units=[dict(type='CoupledChannels', input_shape=(3, 32, 32))])
    """

    default = False

    def __init__(self, input_shape: tuple[int, ...], submodule: str = ''):
        check_shape('input_shape', input_shape)
        self.input_shape = tuple(input_shape)
        self.submodule = submodule

    def find(self, model: nn.Module) -> tuple[list[UnitGroup], dict[str, str]]:
        """See :meth:`UnitFinder.find`."""
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
        part = model.get_submodule(self.submodule)
        example = next(part.parameters()).new_zeros(1, *self.input_shape)
        try:
            with evaluation_mode(part):
                graph = torch_pruning.DependencyGraph().build_dependency(part, example)
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
        groups, leaving = self._told_by_trying(model, groups, example)
        order = {name: i for i, name in enumerate(names.values())}
        return sorted(groups, key=lambda g: order[g.name]), {**refused, **leaving}

    def _told_by_trying(
        self, model: nn.Module, groups: list[UnitGroup], example: Tensor
    ) -> tuple[list[UnitGroup], dict[str, str]]:
        """Leave out groups that can't be cut as traced, and say why.

        Without every other unit the part must run, its outputs must keep their shapes (else something
        outside may read the channels), and be those of the masked part (else the trace is wrong, as it is
        where concatenated channels are flattened).
        """
        noise = torch.randn(example.shape, generator=torch.Generator().manual_seed(0))
        noise = noise.to(example)

        def outputs(act: Callable, tried: list[UnitGroup]) -> list[Tensor]:
            kept = {g.name: torch.arange(1, g.size, 2) for g in tried}
            changed = act(deepcopy(model), PruneState({g.name: g for g in tried}, kept)).eval()
            with torch.no_grad():
                found = tree_leaves(changed.get_submodule(self.submodule)(noise))
            return [x for x in found if isinstance(x, Tensor)]

        def fault(tried: list[UnitGroup]) -> str | None:
            try:
                slimmed = outputs(slim, tried)
            except (LookupError, RuntimeError, TypeError, ValueError) as error:
                why = f'{type(error).__name__}: {first_line(error)}'
                return f'cut as torch-pruning traced it, it does not run ({why})'
            if [x.shape for x in slimmed] != dense:
                return f'its channels leave {self.submodule or "the model"}'
            if not all(map(close, slimmed, outputs(mask, tried))):
                return 'cut as torch-pruning traced it, it computes something else'
            return None

        groups = [group for group in groups if group.size > 1]
        dense = [x.shape for x in outputs(slim, [])]
        if fault(groups) is None:
            return groups, {}
        faults = {group.name: fault([group]) for group in groups}
        inside = [group for group in groups if faults[group.name] is None]
        return inside, {name: why for name, why in faults.items() if why is not None}

    def _to_group(self, coupled, names: dict[nn.Module, str]) -> UnitGroup:
        """Translate one of torch-pruning's groups: modules with index lists -> cuts with tables."""
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
            require(len(table) == size, f'{names[module]} has some of its units only')
            rows = tuple(tuple(table[unit]) for unit in sorted(table))
            require(len({len(row) for row in rows}) == 1, f'{names[module]} shares units unevenly')
            cuts += module_cuts(names[module], module, side, rows)
            if is_depthwise(module):
                attrs.append(Attr(names[module], 'groups', len(rows[0])))
        # One name per group, whichever of its layers the graph meets first.
        producers = [names[module] for module, side in tables if side == 'in']
        first = min(producers, key=list(names.values()).index)
        return UnitGroup(first, 'coupled', size, tuple(cuts), '', tuple(attrs), least=1)


def close(one: Tensor, other: Tensor) -> bool:
    """Whether two outputs are equal but for rounding; of tensors without numbers there is no telling."""
    if one.is_meta or not one.is_floating_point():
        return True
    most = torch.finfo(one.dtype).eps ** 0.5 * other.abs().amax() if one.numel() else 0
    return bool(((one - other).abs() <= most).all())


def is_depthwise(module: nn.Module) -> bool:
    """Whether each of a convolution's filters reads one channel of its own."""
    return (
        getattr(module, 'groups', 1) > 1
        and module.groups == module.in_channels == module.out_channels
    )


def module_cuts(
    name: str, module: nn.Module, side: str, rows: tuple[tuple[int, ...], ...]
) -> list[Cut]:
    """The cuts of one module in a coupled group.

    Raises:
        NotPrunable: for modules where zeroing a channel and removing it differ.
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
