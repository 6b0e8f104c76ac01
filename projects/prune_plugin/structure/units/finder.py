"""Finding the unit groups of a model by the class names of its modules."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from ...common.errors import UserError
from ...common.patterns import check_matches, select
from ...common.registry import UNITS
from ..discovery.call import Call
from ..discovery.proof import CHANGED
from ..prunable_weights import check_finite
from ..unit_group import UnitGroup, form_grid, named_tensors, owners_along

#: (module's name, module) -> its unit groups; raises NotPrunable if it can't be cut.
Layout = Callable[[str, nn.Module], list[UnitGroup]]
#: What to do where no module of a known class has such units.
OF_OTHER_CLASSES = (
    ' (units of other classes are discovered where prune_cfg.units is left out; prune_cfg.include then '
    'chooses among them)'
)


class NotPrunable(Exception):
    """A module of a supported class that can't be cut with its options; the message is the reason."""


class UnitFinder:
    """Base class of unit finders: maps class names of modules to layouts.

    A layout is a function ``(name, module) -> list[UnitGroup]``. As modules are matched by class name, no
    optional package has to be imported. Model families add their classes with
    ``@AttentionHeads.layout('MyAttention')``.

    Class attributes:
        default: Whether the finder is used if the config doesn't list ``units``.
        runs_model: Whether it may run the model; such finders come after the others.
        layouts: Layouts by class name; every subclass of ``UnitFinder`` has a dict of its own.
    """

    default = True
    runs_model = False
    layouts: dict[str, Layout] = {}
    #: Gives an example call of the whole model, or None; set by whoever knows one.
    example: Callable[[], Call | None] | None = None
    #: How the groups that were found last were proven, by name, as far as they were.
    proofs: Mapping[str, str] = MappingProxyType({})

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.layouts = {}

    @classmethod
    def layout(cls, *class_names: str) -> Callable[[Layout], Layout]:
        """Decorator: register the function for modules of these classes and their subclasses."""

        def register(function: Layout) -> Layout:
            cls.layouts.update(dict.fromkeys(class_names, function))
            return function

        return register

    def find_besides(
        self, model: nn.Module, known: Sequence[UnitGroup]
    ) -> tuple[list[UnitGroup], dict[str, str]]:
        """:meth:`find`; finders that run the model leave out what other groups own.

        Args:
            model: The model.
            known: The other groups.
        """
        return self.find(model)

    def find(self, model: nn.Module) -> tuple[list[UnitGroup], dict[str, str]]:
        """Find the unit groups of ``model``.

        Returns:
            The groups, in module order, and ``{module: reason}`` for modules that can't be cut.
        """
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
                candidates = layout(name, module)
                check_layout(model, candidates, layout, self)
            except NotPrunable as reason:
                refused[name or type(module).__name__] = str(reason)
                continue
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                # Another library's class of the same name, laid out otherwise.
                kind = f'{type(module).__module__}.{type(module).__qualname__}'
                refused[name or type(module).__name__] = (
                    f'{kind} is not laid out as the known {kind_of(module, self)} ({error})'
                )
                continue
            groups += [group for group in candidates if group.size]
            empty = [group.name for group in candidates if not group.size]
            refused.update(dict.fromkeys(empty, 'no units are left'))
        return groups, refused


def check_layout(model: nn.Module, candidates: Any, layout: Layout, finder: UnitFinder) -> None:
    """Look whether a layout gave groups that cut what the model has.

    Raises:
        UserError: it didn't.
        NotPrunable: a tensor is there, but is computed from others, as by weight norm.
    """
    where = f'the layout {getattr(layout, "__name__", layout)} of {type(finder).__name__}'
    if not isinstance(candidates, list | tuple) or not all(
        isinstance(group, UnitGroup) for group in candidates
    ):
        raise UserError(f'{where} returns {candidates!r}; it must be a list of UnitGroup')
    tensors = named_tensors(model)
    for group in candidates:
        if not group.cuts:
            raise UserError(f'{where} gives {group.name!r} no cuts: its units would own nothing')
        for cut in group.cuts:
            tensor = tensors.get(cut.name)
            if cut.side in ('index', 'flag'):
                continue  # made by a converter, or by masking
            path, _, own = cut.name.rpartition('.')
            if tensor is None and hasattr(dict(model.named_modules()).get(path), own):
                raise NotPrunable(f'{cut.name} is computed from other parameters')
            if tensor is None:
                raise UserError(f'{where} cuts {cut.name!r}, and the model has no such tensor')
            if cut.dim is not None and not 0 <= cut.dim < tensor.dim():
                raise UserError(
                    f'{where} cuts dimension {cut.dim} of {cut.name!r}, which has {tensor.dim()}'
                )


def kind_of(module: nn.Module, finder: UnitFinder) -> str:
    """The name by which a finder knows a module's class."""
    return next(c.__name__ for c in type(module).__mro__ if c.__name__ in finder.layouts)


def join(prefix: str, name: str) -> str:
    """``prefix.name``, or ``name`` if the prefix is empty (the model itself)."""
    return f'{prefix}.{name}' if prefix else name


def require(condition: bool, reason: str) -> None:
    """Raise :class:`NotPrunable` with ``reason`` unless ``condition`` holds."""
    if not condition:
        raise NotPrunable(reason)


def defined_by(module: nn.Module, method: str) -> str | None:
    """Name of the class in the MRO of ``module`` that defines ``method``: a subclass may override it."""
    classes = type(module).__mro__
    return next((c.__name__ for c in classes if method in vars(c)), None)


def with_layer_indices(model: nn.Module, groups: Sequence[UnitGroup]) -> list[UnitGroup]:
    """Copies of ``groups`` with ``layer_idx`` set: blocks are counted over all module lists in order."""
    modules = dict(model.named_modules())
    offsets: dict[str, int] = {}
    total = 0
    result = []
    for group in groups:
        parts = group.name.split('.')
        position = next((i for i, part in enumerate(parts) if part.isdigit()), None)
        container = group.name if position is None else '.'.join(parts[:position])
        if container not in offsets:
            offsets[container] = total
            total += 1 if position is None else len(list(modules[container].children()))
        number = 0 if position is None else int(parts[position])
        result.append(replace(group, layer_idx=offsets[container] + number))
    return result


def discover(
    model: nn.Module,
    finders: Sequence[UnitFinder],
    include: Sequence[str] = ('.*',),
    exclude: Sequence[str] = (),
) -> tuple[list[UnitGroup], dict[str, str]]:
    """Find all unit groups that may be pruned, by the names of classes.

    Args:
        model: The model; meta tensors are sufficient.
        finders: Unit finders, applied in order.
        include: Regular expressions, matched from the start of a group's name; one must match.
        exclude: The same; none may match.

    Returns:
        The groups, and ``{module: reason}`` for modules of supported classes that can't be cut.

    Raises:
        UserError: a finder or a pattern matches nothing, or two groups overlap (:func:`check_disjoint`).
    """
    found, refused = find_all(model, finders)
    return selected(model, found, include, exclude), refused


def find_all(
    model: nn.Module, finders: Sequence[UnitFinder]
) -> tuple[list[UnitGroup], dict[str, str]]:
    """What each of the finders finds.

    Raises:
        UserError: a finder finds nothing, as in a model whose weights hold NaN.
    """
    found: list[UnitGroup] = []
    refused: dict[str, str] = {}
    for finder in sorted(finders, key=lambda finder: finder.runs_model):
        groups, reasons = finder.find_besides(model, found)
        if not groups:
            if any(reason.startswith(CHANGED) for reason in reasons.values()):
                check_finite(dict(model.named_parameters()))
            first = next(iter(reasons.items()), None)
            why = f' ({first[0]}: {first[1]})' if first else ''
            raise UserError(
                f'prune_cfg.units: {type(finder).__name__} finds nothing in this model{why}; '
                f'remove it or name other units{OF_OTHER_CLASSES if finder.layouts else ""}'
            )
        found += groups
        refused.update(reasons)
    return found, refused


def find_known(model: nn.Module) -> tuple[list[UnitGroup], dict[str, str]]:
    """What the finders of all default kinds of units find, if anything."""
    found: list[UnitGroup] = []
    refused: dict[str, str] = {}
    for finder in default_finders():
        groups, reasons = finder.find(model)
        found += groups
        refused.update(reasons)
    return found, refused


def default_finders() -> list[UnitFinder]:
    """One of each default kind, in an order that doesn't depend on imports."""
    return [cls() for _, cls in sorted(UNITS.module_dict.items()) if cls.default]


def selected(
    model: nn.Module,
    found: Sequence[UnitGroup],
    include: Sequence[str] = ('.*',),
    exclude: Sequence[str] = (),
    refused: Iterable[str] = (),
) -> list[UnitGroup]:
    """The groups that the patterns leave, with their layers counted.

    Args:
        model: The model.
        found: The groups.
        include: See :func:`discover`.
        exclude: See :func:`discover`; it may also name what is refused anyway.
        refused: Names of modules that can't be cut.

    Raises:
        UserError: see :func:`discover`.
    """
    found = with_layer_indices(model, found)
    names = [group.name for group in found]
    check_matches('prune_cfg.include', include, names, 'unit groups')
    check_matches('prune_cfg.exclude', exclude, [*names, *refused], 'unit groups')
    left = set(select(names, include, exclude))
    chosen = [group for group in found if group.name in left]
    if not chosen:
        raise UserError('prune_cfg.exclude leaves no unit group; remove a pattern')
    check_disjoint(model, chosen)
    return chosen


def check_disjoint(model: nn.Module, groups: Sequence[UnitGroup]) -> None:
    """Raise :class:`UserError` if two groups have the same name or own the same index of a tensor.

    Exception: two groups may form a grid on a dimension, as heads and sampling points do
    (:func:`form_grid`).
    """
    tensors = named_tensors(model)
    names: set[str] = set()
    owners_by_dim: dict[tuple[int, int], list[tuple[Tensor, str]]] = {}
    for group in groups:
        if group.name in names:
            raise UserError(f'prune_cfg.units: two unit groups are named {group.name!r}')
        names.add(group.name)
        for cut in group.cuts:
            tensor = tensors.get(cut.name)
            if cut.dim is None or tensor is None:
                continue
            owners = owners_along(cut, group.size, tensor.shape[cut.dim])
            others = owners_by_dim.setdefault((id(tensor), cut.dim), [])
            overlapping = [
                (other, name)
                for other, name in others
                if name != group.name and bool(((owners >= 0) & (other >= 0)).any())
            ]
            if len(overlapping) > 1 or not all(
                form_grid(owners, other) for other, _ in overlapping
            ):
                raise UserError(
                    f'prune_cfg.units: {overlapping[0][1]!r} and {group.name!r} both cut dimension '
                    f'{cut.dim} of {cut.name!r}; exclude one of them'
                )
            others.append((owners, group.name))
