"""Which methods a curve compares: criteria, allocators, and baselines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmengine.registry import Registry

from ..common.errors import UserError
from ..common.registry import ALLOCATORS, CRITERIA
from ..methods.pruners import Pruner, ScoredUnits, build_pruner

#: What each baseline puts in the place of a part of the config.
BASELINES = {'random': ('criterion', 'Random'), 'uniform': ('allocator', 'Uniform')}


@dataclass
class Series:
    """One line of the picture.

    Attributes:
        label: Its name.
        pruner: What prunes.
        criterion: What its scores are told by.
        own_scores: Whether it scores by the config's criterion.
        costed: Scores that hold this pruner's costs, by the scores they were copied from.
    """

    label: str
    pruner: Pruner
    criterion: str
    own_scores: bool
    costed: dict[int, ScoredUnits] = field(default_factory=dict, repr=False)

    @property
    def reads_ratio(self) -> bool:
        """Whether scores depend on the ratio."""
        return bool(getattr(getattr(self.pruner, 'criterion', None), 'reads_ratio', False))


def series_of(
    pruner: Pruner,
    ratios: Sequence[float],
    criteria: Sequence[str] = (),
    allocators: Sequence[str] = (),
    baselines: Sequence[str] = (),
) -> list[Series]:
    """The methods to compare, baselines last.

    Args:
        pruner: The config's.
        ratios: Fractions removed.
        criteria: Types of criteria, with their defaults; that of the config has the config's settings.
        allocators: As ``criteria``.
        baselines: Keys of ``BASELINES``.

    Raises:
        UserError: an unknown type, or a pruner that goes with no curve.
    """
    check(pruner, [*criteria, *allocators, *baselines])
    prune_cfg = pruner.at(max(ratios)).to_dict()  # all steps of rescoring lead there
    if not pruner.removes_units:
        return [Series(pruner.method, pruner.at(ratios[0]), pruner.method, True)]
    scoring = blocks(scoring_of(prune_cfg), criteria, CRITERIA, '--criteria')
    own = dict(prune_cfg.get('allocator') or {'type': 'Knapsack'})
    sharing = blocks(own, allocators, ALLOCATORS, '--allocators')
    pairs = [(c, a) for c in scoring for a in sharing]
    for key, name in (BASELINES[baseline] for baseline in baselines):
        criterion, allocator = pairs[0]
        block = {'type': name}
        pairs.append((block, allocator) if key == 'criterion' else (criterion, block))
    found: dict[str, Series] = {}
    for criterion, allocator in pairs:
        label = f'{criterion["type"]} + {allocator["type"]}'
        own_cfg = {**prune_cfg, 'criterion': criterion, 'allocator': allocator}
        if criterion['type'] == 'Random':  # whose scores no step changes
            own_cfg.pop('rescoring', None)
        made = build_pruner(own_cfg)
        known = criterion == scoring_of(prune_cfg)
        found.setdefault(label, Series(label, made, str(criterion), known))
    return list(found.values())


def scoring_of(prune_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The criterion block of a config."""
    return dict(prune_cfg.get('criterion') or {'type': 'L1'})


def check(pruner: Pruner, compared: Sequence[str]) -> None:
    """Raise :class:`UserError` for a pruner that goes with no curve, or has nothing to compare."""
    if pruner.searched:
        raise UserError(
            f'--ratios gives the ratios, and prune_cfg.budget.type {pruner.budget.quantity!r} looks for '
            'one; leave one out'
        )
    if pruner.in_rounds:
        raise UserError(
            f'--ratios prunes without training, and prune_cfg.schedule.type is '
            f'{type(pruner.schedule).__name__!r}; take OneShot'
        )
    pruner.check_without_loop()
    if compared and not pruner.removes_units:
        raise UserError(
            f'--criteria, --allocators and --baselines choose units, which a '
            f'{type(pruner).__name__} does not remove; leave them out'
        )


def blocks(
    own: Mapping[str, Any], names: Sequence[str], registry: Registry, flag: str
) -> list[dict[str, Any]]:
    """The config blocks of the named types, or the config's own alone."""
    valid = sorted(registry.module_dict)
    for name in names:
        if name not in valid:
            raise UserError(f'{flag} {name} is unknown; valid are {", ".join(valid)}')
    if not names:
        return [dict(own)]
    return [dict(own) if name == own['type'] else {'type': name} for name in dict.fromkeys(names)]
