"""What no unit owns anything of, and why, in words for the report."""

from collections.abc import Iterable

from torch import nn

from ..unit_group import UnitGroup
from .finder import join

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
#: Classes that only hold layers.
CONTAINERS = ('ConvModule', 'ModuleList', 'Sequential')


def uncovered(model: nn.Module, groups: Iterable[UnitGroup]) -> dict[str, str]:
    """Modules none of whose parameters belongs to a unit, the outermost ones, each with a reason.

    Args:
        model: The model.
        groups: Its unit groups.

    Returns:
        ``{module: reason}``; a parameter that stands alone in a module with units is one, too.
    """
    owned = {cut.name for group in groups for cut in group.cuts}
    tensors = dict(model.named_parameters(remove_duplicate=False))
    ours = {id(tensor) for name, tensor in tensors.items() if name in owned}
    found: dict[str, str] = {}

    def visit(name: str, module: nn.Module) -> None:
        parameters = list(module.parameters())
        if parameters and not any(id(p) in ours for p in parameters):
            found[name] = f'{why(module)}; {sum(p.numel() for p in parameters):,} parameters'
            return
        own = list(module.named_parameters(recurse=False))
        for child, parameter in own if not any(id(p) in ours for _, p in own) else ():
            found[join(name, child)] = f'no finder knows it; {parameter.numel():,} parameters'
        for child, inner in module.named_children():
            visit(join(name, child), inner)

    visit('', model)
    return found


def why(module: nn.Module) -> str:
    """Why nothing in a module goes."""
    kind = type(module).__name__
    layers = [m for m in module.modules() if next(m.parameters(recurse=False), None) is not None]
    if all(isinstance(layer, NORMS) for layer in layers):
        return f'{kind}: norms over widths that stay'
    plain = kind in CONTAINERS or layers == [module]
    if plain and all(hasattr(layer, 'weight') for layer in layers):
        return f'{kind} between widths that stay, as other modules share them'
    return f'{kind}: no finder knows it'
