"""``prune_cfg.rescoring``, and a budget's ``ratios``: the steps in which one pruning scores again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...common.errors import UserError
from ...common.settings import read_settings
from ...common.validation import at_least, checked_ratio
from .budget_block import is_searched
from .execution import ExecutionSettings

#: Most steps: each takes a pass over the calibration data at least.
MOST_STEPS = 1000
#: Ratios closer than this are the same.
SAME = 1e-9


@dataclass
class RescoringSettings:
    """In which steps a pruning without training scores again, refitted and pruned as far as it is.

    Attributes:
        steps: Number of steps to the budget's ratio, each removing as much; 1: scored once.
        ratios: Instead: fractions of the model as given that are removed before it is scored again, rising.
            Those below the budget's ratio count, which is the last step.

    Raises:
        UserError: none or both of them are given, or a value isn't valid.
    """

    steps: int | None = None
    ratios: Sequence[float] | None = None

    def __post_init__(self):
        if (self.steps is None) == (self.ratios is None):
            raise UserError(f'steps is {self.steps!r} and ratios {self.ratios!r}; give one of them')
        if self.steps is not None:
            at_least('steps', self.steps, 1, MOST_STEPS)
        else:
            self.ratios = rising_ratios('ratios', self.ratios)

    def before(self, ratio: float) -> list[float]:
        """The fractions removed at which units are scored again on the way to ``ratio``, rising."""
        if self.ratios is not None:
            return [r for r in self.ratios if r < ratio - SAME]
        steps = self.steps or 1
        return [ratio * number / steps for number in range(1, steps)]

    def at(self, ratio: float) -> dict[str, Any] | None:
        """The block of a config that takes the same steps to ``ratio``; None: there is one."""
        if self.ratios is None:
            return {'steps': self.steps}
        before = self.before(ratio)
        return {'ratios': before} if before else None


def rising_ratios(key: str, ratios: Any) -> list[float]:
    """Fractions removed as a list of floats.

    Args:
        key: Where they stand, for messages; ``prune_cfg`` and a dot are put before.
        ratios: The value there.

    Raises:
        UserError: they are no list, none, not in (0, 1), or not rising.
    """
    if isinstance(ratios, str) or not isinstance(ratios, Sequence) or not ratios:
        raise UserError(f'{key} is {ratios!r}; it must be a list of rising fractions removed')
    found = [checked_ratio(ratio, f'{key}[{i}]') for i, ratio in enumerate(ratios)]
    if any(b <= a + SAME for a, b in zip(found, found[1:], strict=False)):
        raise UserError(f'{key} is {list(ratios)}; each must be larger than the one before')
    return found


def nested_budget(budget: Any, rescoring: Any) -> tuple[Any, Any, list[float]]:
    """A budget with ``ratios`` as one of the last of them, and the steps to it.

    Args:
        budget: ``prune_cfg.budget``.
        rescoring: ``prune_cfg.rescoring``.

    Returns:
        Both blocks, and the ratios; as they are, and none, if the budget has a ratio.

    Raises:
        UserError: the ratios aren't valid, or another key says how much to remove, or in which steps.
    """
    if not isinstance(budget, Mapping) or 'ratios' not in budget:
        return budget, rescoring, []
    key = 'prune_cfg.budget.ratios'
    ratios = rising_ratios(key, budget['ratios'])
    for other in ('ratio', 'density'):
        if other in budget:
            flag = ' (or --pruning-ratio)' if other == 'ratio' else ''
            raise UserError(
                f'prune_cfg.budget.{other}={budget[other]!r}{flag} does not go with {key}, which are '
                'several; leave one out'
            )
    if is_searched(budget):
        raise UserError(
            f'{key} does not go with prune_cfg.budget.type {budget["type"]!r}, which looks for a ratio '
            'itself; leave one out'
        )
    if rescoring is not None:
        raise UserError(
            f'prune_cfg.rescoring={rescoring!r} does not go with {key}, which are the steps; leave one out'
        )
    block = {k: v for k, v in budget.items() if k != 'ratios'}
    return {**block, 'ratio': ratios[-1]}, {'ratios': ratios}, ratios


def built_rescoring(cfg: Mapping | None, pruner: Any) -> RescoringSettings | None:
    """The ``rescoring`` block of a StructuredPruner, whose other blocks are built.

    Args:
        cfg: The block, or that which a budget's ratios stand for.
        pruner: The pruner.

    Raises:
        UserError: it isn't valid, or doesn't go with the others.
    """
    if cfg is None:
        return None
    settings = read_settings(RescoringSettings, cfg, 'prune_cfg.rescoring')
    key = 'prune_cfg.budget.ratios' if pruner.nested else 'prune_cfg.rescoring'
    execution: ExecutionSettings = pruner.execution
    for wrong, what, instead in (
        (
            pruner.in_rounds,
            f'prune_cfg.schedule.type {type(pruner.schedule).__name__!r}, which prunes in rounds of '
            'training',
            'take OneShot',
        ),
        (
            pruner.penalty is not None,
            'prune_cfg.penalty, which removes while training',
            'leave one out',
        ),
        (pruner.fillback_rate, 'prune_cfg.fillback_rate, which is for rounds', 'leave one out'),
        (
            execution.streamed,
            "prune_cfg.execution.mode 'streamed', which reads every block once",
            "take mode='memory'",
        ),
        (
            pruner.searched,
            f'prune_cfg.budget.type {pruner.budget.quantity!r}, which has yet to find its ratio',
            'leave one out',
        ),
        (
            pruner.criterion.reads_ratio,
            f'prune_cfg.criterion {type(pruner.criterion).__name__}, which scores by the ratio',
            'take another',
        ),
    ):
        if wrong:
            raise UserError(f'{key} does not go with {what}; {instead}')
    ratio = pruner.budget.known_ratio
    if settings.ratios is not None and not pruner.nested and settings.ratios[-1] >= ratio - SAME:
        raise UserError(
            f'prune_cfg.rescoring.ratios ends with {settings.ratios[-1]}, but prune_cfg.budget.ratio is '
            f'{ratio}, the last step; give smaller ones, or a larger budget'
        )
    return settings


def check_one_ratio(pruner: Any) -> None:
    """Raise :class:`UserError` where one model is to be made, but the budget has several ratios."""
    if pruner.nested:
        raise UserError(
            f'prune_cfg.budget.ratios={list(pruner.nested)} makes a model of each, which '
            'tools/analysis_struct.py does without training; to train one, give its checkpoint to '
            'tools/train.py --load-from, or take budget.ratio and rescoring=dict(ratios=...)'
        )
