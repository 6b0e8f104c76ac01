"""A budget of quality: as much as the metric allows."""

from collections.abc import Mapping
from typing import Any

from ...common.errors import UserError
from ...common.registry import BUDGETS, build
from ...common.validation import at_least, check_number, checked_ratio
from .base import Budget

SPLITS = ('test', 'val')
#: Metrics closer than this share of the dense value count as equal: they may be sums in float32.
ROUNDING = 1e-6


@BUDGETS.register_module(name='metric')
class MetricBudget(Budget):
    """Remove as much as a metric allows: the largest ratio at which it gets worse by at most ``max_drop``.

    The ratio is one of another budget, ``of``, and is found by bisection: at each ratio tried the model
    is pruned and evaluated as it is, before any training. Scores are computed once. The metric is taken
    to get worse as the ratio grows; where it doesn't, the ratio found holds, but a larger one may too.

    Args:
        metric: A result of the evaluator, by its whole name or what stands behind a ``/`` in it.
        max_drop: How much worse than in the dense model it may be, in its own unit, >= 0.
        relative: Whether ``max_drop`` is a fraction of the dense model's value instead.
        lower_is_better: Which way is worse; None: as the metric's class or its name says.
        of: The budget whose ratio is looked for, a type or a dict; None: the pruner's default.
        low: The smallest ratio to try.
        high: The largest.
        tolerance: How closely the ratio is found.
        trials: Evaluate at most so many pruned models; None: as many as the tolerance takes.
        num_samples: Evaluate the trials on the first so many samples; None: on all.
        split: Evaluate them on the config's ``'test'`` or ``'val'`` data.

    Example:
        >>> prune_cfg = dict(budget=dict(type='metric', metric='NDS', max_drop=0.01))
    """

    quantity = 'metric'
    searched = True

    def __init__(
        self,
        metric: str,
        max_drop: float,
        relative: bool = False,
        lower_is_better: bool | None = None,
        of: str | Mapping | None = None,
        low: float = 0.05,
        high: float = 0.95,
        tolerance: float = 0.01,
        trials: int | None = None,
        num_samples: int | None = None,
        split: str = 'test',
    ):
        if not isinstance(metric, str) or not metric:
            raise UserError(f'metric is {metric!r}; it must be the name of a result, such as NDS')
        check_number('max_drop', max_drop, 0, float('inf'), least=True)
        for key, value, valid in (
            ('relative', relative, (True, False)),
            ('lower_is_better', lower_is_better, (None, True, False)),
        ):
            if not any(value is option for option in valid):
                options = ' or '.join(map(str, valid))
                raise UserError(f'{key} is {value!r}; it must be {options}')
        checked_ratio(low, 'prune_cfg.budget.low')
        checked_ratio(high, 'prune_cfg.budget.high')
        if low > high:
            raise UserError(f'low is {low} and high is {high}; low must not be above high')
        check_number('tolerance', tolerance, 0, 1)
        if trials is not None:
            at_least('trials', trials, 2)
        if num_samples is not None:
            at_least('num_samples', num_samples, 1)
        if split not in SPLITS:
            raise UserError(f'split is {split!r}; valid are {", ".join(SPLITS)}')
        self.metric, self.max_drop, self.relative = metric, float(max_drop), relative
        self.lower_is_better = lower_is_better
        self.of = inner_budget(of, low)
        self.low, self.high = float(low), float(high)
        self.tolerance, self.trials = float(tolerance), trials
        self.num_samples, self.split = num_samples, split
        self.ratio = None

    def at(self, ratio):
        """The budget ``of`` with a ratio."""
        return self.of.at(ratio)

    def cost(self, model, groups, profile):
        """Not defined: a ratio has to be found first."""
        raise UserError(
            "prune_cfg.budget.type is 'metric', which evaluates models to find a ratio; that takes "
            'tools/analysis_struct.py or tools/train.py'
        )

    @property
    def asked(self) -> dict[str, Any]:
        """The settings, as in the reports."""
        keys = ('metric', 'max_drop', 'relative', 'low', 'high', 'tolerance', 'trials')
        settings = {key: getattr(self, key) for key in keys}
        samples = {'samples': self.num_samples, 'split': self.split}
        return {**settings, 'of': self.of.quantity, **samples}

    @property
    def whole_test_set(self) -> bool:
        """Whether trials are evaluated on what the final model is evaluated on."""
        return self.split == 'test' and self.num_samples is None

    def limit(self, dense: float, better: str) -> float:
        """The worst value that is still allowed.

        Args:
            dense: The metric of the dense model.
            better: Its better direction, ``'max'`` or ``'min'``.
        """
        drop = self.max_drop * abs(dense) if self.relative else self.max_drop
        return dense - drop if better == 'max' else dense + drop


def worse_by(dense: float, value: float, better: str) -> float:
    """How much worse ``value`` is than ``dense``; below 0 if it is better."""
    return dense - value if better == 'max' else value - dense


def within(limit: float, dense: float, value: float | None, better: str) -> bool:
    """Whether a value is no worse than the limit, but for rounding; None, no number, never is."""
    return value is not None and worse_by(limit, value, better) <= ROUNDING * abs(dense)


def inner_budget(of: str | Mapping | None, ratio: float) -> Budget:
    """The budget that ``of`` names, with a ratio to begin with.

    Raises:
        UserError: it has a ratio of its own, or is searched itself.
    """
    key = 'prune_cfg.budget.of'
    cfg = {'type': of or 'params'} if of is None or isinstance(of, str) else of
    if isinstance(cfg, Mapping):
        for name in ('ratio', 'density', 'sparsity'):
            if name in cfg:
                raise UserError(
                    f'{key}.{name} is {cfg[name]!r}, but the ratio is what is looked for'
                )
        valid = [name for name, cls in BUDGETS.module_dict.items() if not cls.searched]
        if cfg.get('type') not in valid:
            raise UserError(f'{key} is {cfg.get("type")!r}; valid are {", ".join(sorted(valid))}')
        cfg = {**cfg, 'ratio': ratio}
    return build(BUDGETS, cfg, key)
