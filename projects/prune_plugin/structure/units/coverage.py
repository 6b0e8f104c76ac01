"""Modules without prunable units, and the reason, for the report."""

from collections.abc import Collection, Iterable

from torch import nn

from ...common.model_argument import check_model
from ..unit_group import UnitGroup
from .finder import join

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
#: Classes that only hold layers.
CONTAINERS = ('ConvModule', 'ModuleList', 'Sequential')


def uncovered(model: nn.Module, groups: Iterable[UnitGroup]) -> dict[str, str]:
    """Outermost modules none of whose parameters belongs to a unit, each with the reason.

    Args:
        model: The model.
        groups: Its unit groups.

    Returns:
        ``{name: reason and number of parameters}``. The direct parameters of a module with submodules
        that do have units are listed by their own names.
    """
    check_model(model)
    cut_names = {cut.name for group in groups for cut in group.cuts}
    tensors = dict(model.named_parameters(remove_duplicate=False))
    covered = {id(tensor) for name, tensor in tensors.items() if name in cut_names}
    reasons: dict[str, str] = {}

    def visit(name: str, module: nn.Module) -> None:
        parameters = list(module.parameters())
        if parameters and not any(id(p) in covered for p in parameters):
            reasons[name] = f'{reason(module)}; {sum(p.numel() for p in parameters):,} parameters'
            return
        direct = list(module.named_parameters(recurse=False))
        for child, parameter in direct if not any(id(p) in covered for _, p in direct) else ():
            reasons[join(name, child)] = f'no finder knows it; {parameter.numel():,} parameters'
        for child, inner in module.named_children():
            visit(join(name, child), inner)

    visit('', model)
    return reasons


def uncovered_share(model: nn.Module, groups: Iterable[UnitGroup]) -> float:
    """The share of the parameters in the modules of :func:`uncovered`."""
    return share_within(model, uncovered(model, groups))


def share_within(model: nn.Module, names: Collection[str]) -> float:
    """The share of a model's parameters that lie in modules, or are parameters, of these names."""
    tensors = dict(model.named_parameters(remove_duplicate=False))
    sizes = {
        id(tensor): tensor.numel()
        for name, tensor in tensors.items()
        if any(name == outer or not outer or name.startswith(f'{outer}.') for outer in names)
    }
    total = sum(parameter.numel() for parameter in model.parameters())
    return sum(sizes.values()) / total if total else 0.0


def reason(module: nn.Module) -> str:
    """Why a module has no prunable units."""
    kind = type(module).__name__
    layers = [m for m in module.modules() if next(m.parameters(recurse=False), None) is not None]
    if all(isinstance(layer, NORMS) for layer in layers):
        return f'{kind}: norms over widths that stay'
    plain = kind in CONTAINERS or layers == [module]
    if plain and all(hasattr(layer, 'weight') for layer in layers):
        return f'{kind} between widths that stay, as other modules share them'
    return f'{kind}: no finder knows it'
