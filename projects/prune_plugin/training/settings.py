"""``prune_cfg.recovery``: the settings of training after pruning."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..common.errors import UserError
from ..common.validation import (
    at_least,
    check_number,
    one_of,
)
from .distillation import check_distill
from .lora.adapters import check_lora
from .sharding.fully_shard import check_sharding

#: Learning-rate factor and warm-up iterations of each mode.
RECOVERY_MODES = {'fine_tune': (0.1, 500), 'retrain': (0.5, 1000)}
#: The registered scheduler of each learning-rate schedule.
LR_SCHEDULES = {'cosine': 'WarmupCosineLR', 'constant': 'WarmupConstantLR'}


@dataclass
class RecoverySettings:
    """Training after pruning.

    Attributes:
        mode: ``'fine_tune'`` (continues the dense model's training: 0.1 x its learning rate, its optimizer
            state and epoch number) or ``'retrain'`` (0.5 x, from epoch 0, with a new optimizer).
        epochs: Epochs to train.
        max_steps: Maximum number of iterations per epoch on each rank; None: the whole data set.
        lr: The learning rate, instead of a factor on the config's.
        lr_factor: Overrides the mode's factor on the config's learning rate.
        warmup_iters: Overrides the mode's iterations of warm-up (500, 1000); a run that isn't longer than
            its warm-up warms up over a tenth of its iterations.
        lr_schedule: After the warm-up, ``'cosine'`` (a half cosine to zero) or ``'constant'``.
        distill: None, or a dict to distil from the dense model: ``targets`` (by default those of the
            model's class); see :class:`projects.prune_plugin.training.distillation.Target`.
        max_keep_ckpts: Number of epoch checkpoints to keep, the newest ones; -1: all.
        lora: None, or a dict to train only low-rank adapters: ``r``, ``alpha``, ``dropout``,
            ``targets``, ``lr``; see :func:`projects.prune_plugin.training.lora.adapters.add_adapters`.
        sharding: None, or a dict to shard parameters and optimizer state among ranks: ``blocks``,
            ``mixed_precision``; see
            :class:`projects.prune_plugin.training.sharding.fully_shard.FullyShard`.

    Raises:
        UserError: a value isn't valid.
    """

    mode: str = 'fine_tune'
    epochs: int = 6
    max_steps: int | None = None
    lr: float | None = None
    lr_factor: float | None = None
    warmup_iters: int | None = None
    lr_schedule: str = 'cosine'
    distill: Mapping | None = None
    max_keep_ckpts: int = -1
    lora: Mapping | None = None
    sharding: Mapping | None = None

    def __post_init__(self):
        one_of('mode', self.mode, RECOVERY_MODES)
        at_least('epochs', self.epochs, 1)
        factor, warmup = RECOVERY_MODES[self.mode]
        self.warmup_iters = warmup if self.warmup_iters is None else self.warmup_iters
        self.check_rates()
        if self.fixed_lr is None and self.lr_factor is None:
            self.lr_factor = factor
        if self.max_steps is not None:
            at_least('max_steps', self.max_steps, 1)
        at_least('warmup_iters', self.warmup_iters, 0)
        one_of('lr_schedule', self.lr_schedule, LR_SCHEDULES)
        at_least('max_keep_ckpts', self.max_keep_ckpts, -1)
        if self.max_keep_ckpts == 0:
            raise UserError('max_keep_ckpts is 0; it must be at least 1, or -1 for all')
        if self.distill is not None:
            check_distill(self.distill)
        if self.sharding is not None:
            check_sharding(self.sharding)

    def check_rates(self) -> None:
        """Raise :class:`UserError` if more than one of ``lr``, ``lr_factor`` and ``lora.lr`` is given."""
        if self.lora is not None:
            check_lora(self.lora)
        rates = dict(lr=self.lr, lr_factor=self.lr_factor)
        rates = {name: rate for name, rate in rates.items() if rate is not None}
        for name, rate in rates.items():
            check_number(name, rate, 0, float('inf'))
        if self.lora is not None and self.lora.get('lr') is not None:
            rates['lora.lr'] = self.lora['lr']
        if len(rates) > 1:
            raise UserError(
                f'{" and ".join(rates)} are given, {" and ".join(map(str, rates.values()))}; '
                'give one of them'
            )

    @property
    def fixed_lr(self) -> float | None:
        """``lora.lr`` or ``lr``; None if the learning rate is a factor on the config's."""
        return self.lora['lr'] if self.lora and self.lora.get('lr') is not None else self.lr
