"""Finding unit groups in a model, by the class names of its modules."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor, nn

from ...common.errors import UserError
from ...common.patterns import check_matches, select
from ..unit_group import UnitGroup, crossing, named_tensors, owners_along

#: (module's name, module) -> its groups; raises NotPrunable where it can't be cut.
Layout = Callable[[str, nn.Module], list[UnitGroup]]


class NotPrunable(Exception):
    """A module of a known class whose options rule cutting out; the message says why."""


class UnitFinder:
    """Base of the finders: a table from class names to layouts.

    A layout is a function ``(name, module) -> list[UnitGroup]``. Looking modules up by name means
    that no optional package is imported. A family adds its own classes with
    ``@AttentionHeads.layout('MyAttention')``.

    Class attributes:
        default: Whether the finder is used when a config doesn't list ``units``.
    """

    default = True
    layouts: dict[str, Layout] = {}

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        cls.layouts = {}

    @classmethod
    def layout(cls, *class_names: str) -> Callable[[Layout], Layout]:
        """Decorator: use the function for modules of these classes and their subclasses."""

        def register(function: Layout) -> Layout:
            cls.layouts.update(dict.fromkeys(class_names, function))
            return function

        return register

    def find(self, model: nn.Module) -> tuple[list[UnitGroup], dict[str, str]]:
        """All groups in ``model``, in module order, and ``{module: reason}`` for what can't be cut."""
        groups: list[UnitGroup] = []
        refused: dict[str, str] = {}
        for name, module in model.named_modules():
            layout = next(
                (
                    self.layouts[c.__name__]
                    for c in type(module).__mro__
                    if c.__name__ in self.layouts
                ),
                None,
            )
            if layout is None:
                continue
            try:
                found = layout(name, module)
            except NotPrunable as reason:
                refused[name] = str(reason)
                continue
            groups += [group for group in found if group.size]
            refused.update({group.name: 'no units are left' for group in found if not group.size})
        return groups, refused


def join(prefix: str, name: str) -> str:
    """``prefix.name``, or ``name`` for the model itself."""
    return f'{prefix}.{name}' if prefix else name


def require(condition: bool, reason: str) -> None:
    """Raise :class:`NotPrunable` with ``reason`` unless ``condition`` holds."""
    if not condition:
        raise NotPrunable(reason)


def defined_by(module: nn.Module, method: str) -> str | None:
    """Name of the class that defines a method of a module: a subclass may have its own."""
    classes = type(module).__mro__
    return next((c.__name__ for c in classes if method in vars(c)), None)


def numbered(model: nn.Module, groups: Sequence[UnitGroup]) -> list[UnitGroup]:
    """Groups with ``layer_idx`` set: blocks are counted through the model, list after list."""
    modules = dict(model.named_modules())
    offsets: dict[str, int] = {}
    total = 0
    result = []
    for group in groups:
        parts = group.name.split('.')
        at = next((i for i, part in enumerate(parts) if part.isdigit()), None)
        container = group.name if at is None else '.'.join(parts[:at])
        if container not in offsets:
            offsets[container] = total
            total += 1 if at is None else len(list(modules[container].children()))
        number = 0 if at is None else int(parts[at])
        result.append(replace(group, layer_idx=offsets[container] + number))
    return result


def discover(
    model: nn.Module,
    finders: Sequence[UnitFinder],
    include: Sequence[str] = ('.*',),
    exclude: Sequence[str] = (),
) -> tuple[list[UnitGroup], dict[str, str]]:
    """Find every unit group that may be pruned.

    Args:
        model: The model; meta tensors will do.
        finders: Unit finders, asked in order.
        include: Regular expressions, matched from the start of a group's name; one must match.
        exclude: The same; none may match.

    Returns:
        The groups, and ``{module: reason}`` for modules of known classes that can't be cut.

    Raises:
        UserError: a finder or a pattern matches nothing, or two groups cut the same tensor twice.
    """
    found: list[UnitGroup] = []
    refused: dict[str, str] = {}
    for finder in finders:
        groups, reasons = finder.find(model)
        if not groups:
            why = f' ({next(iter(reasons.items()))})' if reasons else ''
            raise UserError(
                f'prune_cfg.units: {type(finder).__name__} finds nothing in this model{why}; '
                'remove it or name other units'
            )
        found += groups
        refused.update(reasons)
    found = numbered(model, found)
    names = [group.name for group in found]
    check_matches('prune_cfg.include', include, names, 'unit groups')
    check_matches('prune_cfg.exclude', exclude, names, 'unit groups')
    selected = set(select(names, include, exclude))
    chosen = [group for group in found if group.name in selected]
    if not chosen:
        raise UserError('prune_cfg.exclude leaves no unit group; remove a pattern')
    check_disjoint(model, chosen)
    return chosen, refused


def check_disjoint(model: nn.Module, groups: Sequence[UnitGroup]) -> None:
    """Raise :class:`UserError` where groups share a name, or units share an index of a tensor.

    Two groups may cross: heads and sampling points are the rows and columns of one dimension.
    """
    tensors = named_tensors(model)
    names: set[str] = set()
    taken: dict[tuple[int, int], list[tuple[Tensor, str]]] = {}
    for group in groups:
        if group.name in names:
            raise UserError(f'prune_cfg.units: two unit groups are named {group.name!r}')
        names.add(group.name)
        for cut in group.cuts:
            tensor = tensors.get(cut.name)
            if cut.dim is None or tensor is None:
                continue
            owners = owners_along(cut, group.size, tensor.shape[cut.dim])
            others = taken.setdefault((id(tensor), cut.dim), [])
            overlapping = [
                (other, name)
                for other, name in others
                if name != group.name and bool(((owners >= 0) & (other >= 0)).any())
            ]
            if len(overlapping) > 1 or not all(crossing(owners, other) for other, _ in overlapping):
                raise UserError(
                    f'prune_cfg.units: {overlapping[0][1]!r} and {group.name!r} both cut dimension '
                    f'{cut.dim} of {cut.name!r}; exclude one of them'
                )
            others.append((owners, group.name))
