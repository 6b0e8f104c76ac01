"""Channels that several layers share (stage widths, concatenations), found by torch-pruning's graph."""

from collections import defaultdict
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..checks import check_shape
from ..errors import UserError, first_line
from ..registry import UNITS
from ..slim import slim
from ..state import PruneState
from .base import Attr, Cut, UnitGroup
from .conv import norm_cuts
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
        training = part.training
        example = torch.zeros(1, *self.input_shape, device=next(part.parameters()).device)
        part.eval()
        try:
            graph = torch_pruning.DependencyGraph().build_dependency(part, example)
            coupled_groups = list(graph.get_all_groups())
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f'prune_cfg.units: CoupledChannels cannot trace the model with input_shape '
                f'{self.input_shape} ({first_line(error)})'
            ) from error
        finally:
            part.train(training)
        groups, refused = [], {}
        for coupled in coupled_groups:
            root = names[coupled[0].dep.target.module]
            try:
                groups.append(self._to_group(coupled, names))
            except NotPrunable as reason:
                refused[root] = str(reason)
        groups, leaving = self._staying_inside(model, groups, example)
        order = {name: i for i, name in enumerate(names.values())}
        return sorted(groups, key=lambda g: order[g.name]), {**refused, **leaving}

    def _staying_inside(
        self, model: nn.Module, groups: list[UnitGroup], example: Tensor
    ) -> tuple[list[UnitGroup], dict[str, str]]:
        """Leave out groups whose channels something outside the traced part may read.

        Told by trying: with one unit less, the outputs must keep their shapes.
        """

        def shapes(removed: list[UnitGroup]) -> list[torch.Size]:
            kept = {g.name: torch.arange(1, g.size) for g in removed}
            tried = slim(deepcopy(model), PruneState({g.name: g for g in removed}, kept))
            tried.eval()
            with torch.no_grad():
                outputs = tree_leaves(tried.get_submodule(self.submodule)(example))
            return [x.shape for x in outputs if isinstance(x, Tensor)]

        groups = [group for group in groups if group.size > 1]
        dense = shapes([])
        if shapes(groups) == dense:
            return groups, {}
        inside = [group for group in groups if shapes([group]) == dense]
        reason = f'its channels leave {self.submodule or "the model"}'
        return inside, {g.name: reason for g in groups if g not in inside}

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
        for (module, side), table in tables.items():
            rows = tuple(tuple(table[unit]) for unit in sorted(table))
            require(len({len(row) for row in rows}) == 1, f'{names[module]} shares units unevenly')
            cuts += module_cuts(names[module], module, side, rows)
            if is_depthwise(module):
                attrs.append(Attr(names[module], 'groups', len(rows[0])))
        size = len(next(iter(tables.values())))
        # One name per group, whichever of its layers the graph meets first.
        producers = [names[module] for module, side in tables if side == 'in']
        first = min(producers, key=list(names.values()).index)
        return UnitGroup(first, 'coupled', size, tuple(cuts), '', tuple(attrs), least=1)


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
