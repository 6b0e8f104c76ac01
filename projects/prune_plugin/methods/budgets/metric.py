"""A budget of accuracy: the largest ratio that a metric allows."""

from collections.abc import Mapping
from typing import Any

from ...common.errors import UserError
from ...common.registry import BUDGETS, build
from ...common.validation import at_least, check_number, checked_ratio
from .base import Budget

SPLITS = ('test', 'val')
#: Metrics that differ by less than this fraction of the dense value are equal: float32 sums are rounded.
ROUNDING = 1e-6


@BUDGETS.register_module(name='metric')
class MetricBudget(Budget):
    """Remove as much as a metric allows: the largest ratio at which it gets worse by at most ``max_drop``.

    The ratio of another budget, ``of``, is searched for by bisection: at each trial ratio the model is
    pruned and evaluated without training. Scores are computed once. Bisection assumes that the metric gets
    worse as the ratio grows; if not, the ratio found still meets ``max_drop``, but a larger one may too.

    Args:
        metric: A result of the evaluator, by its full name or the part after a ``/``.
        max_drop: By how much the metric may be worse than the dense model's, in its own unit, >= 0.
        relative: Whether ``max_drop`` is a fraction of the dense model's value instead.
        lower_is_better: The metric's direction; None: as defined by the metric's class or its name.
        of: The budget whose ratio is searched for, a type or a dict; None: the pruner's default.
        low: The smallest ratio to try.
        high: The largest ratio to try.
        tolerance: The search ends when the ratio is known to this precision.
        trials: Maximum number of pruned models to evaluate; None: as many as the tolerance takes.
        num_samples: Number of samples, from the first on, to evaluate trials on; None: all.
        split: The data to evaluate trials on: the config's ``'test'`` or ``'val'`` data.

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
        """The budget ``of`` at a ratio, the fraction removed."""
        return self.of.at(ratio)

    def cost(self, model, groups, profile):
        """Not defined: the ratio has to be searched for first."""
        raise UserError(
            "prune_cfg.budget.type is 'metric', which evaluates models to find a ratio; that takes "
            'tools/analysis_struct.py or tools/train.py'
        )

    @property
    def asked(self) -> dict[str, Any]:
        """The settings of the search, for the reports."""
        keys = ('metric', 'max_drop', 'relative', 'low', 'high', 'tolerance', 'trials')
        settings = {key: getattr(self, key) for key in keys}
        samples = {'samples': self.num_samples, 'split': self.split}
        return {**settings, 'of': self.of.quantity, **samples}

    @property
    def whole_test_set(self) -> bool:
        """Whether trials are evaluated on what the final model is evaluated on."""
        return self.split == 'test' and self.num_samples is None

    def limit(self, dense: float, better: str) -> float:
        """The worst value of the metric that is still allowed.

        Args:
            dense: The dense model's value.
            better: Direction of better values, ``'max'`` or ``'min'``.
        """
        drop = self.max_drop * abs(dense) if self.relative else self.max_drop
        return dense - drop if better == 'max' else dense + drop


def worse_by(dense: float, value: float, better: str) -> float:
    """How much worse ``value`` is than ``dense``; negative if it is better."""
    return dense - value if better == 'max' else value - dense


def within(limit: float, dense: float, value: float | None, better: str) -> bool:
    """Whether ``value`` is no worse than the limit, up to rounding; False for None (no finite value)."""
    return value is not None and worse_by(limit, value, better) <= ROUNDING * abs(dense)


def inner_budget(of: str | Mapping | None, ratio: float) -> Budget:
    """Build the budget that ``of`` describes, at an initial ratio.

    Args:
        of: A type or a dict; None: params.
        ratio: The fraction removed.

    Raises:
        UserError: ``of`` gives a ratio, or its ratio is searched for itself.
    """
    key = 'prune_cfg.budget.of'
    cfg = {'type': of or 'params'} if of is None or isinstance(of, str) else of
    if isinstance(cfg, Mapping):
        for name in ('ratio', 'density', 'sparsity'):
            if name in cfg:
                raise UserError(f'{key}.{name} is {cfg[name]!r}, but the ratio is searched for')
        valid = [name for name, cls in BUDGETS.module_dict.items() if not cls.searched]
        if cfg.get('type') not in valid:
            raise UserError(f'{key} is {cfg.get("type")!r}; valid are {", ".join(sorted(valid))}')
        cfg = {**cfg, 'ratio': ratio}
    return build(BUDGETS, cfg, key)
