"""``prune_cfg.calibration``: the data that statistics are computed from."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..common.errors import UserError
from ..common.patterns import check_pattern
from ..common.validation import at_least, check_number, one_of


@dataclass
class CalibrationSettings:
    """The data that statistics are computed from.

    Attributes:
        num_samples: Number of training samples.
        seed: Chooses the samples and seeds their augmentation.
        batch_size: Samples per batch on each rank.
        recalibrate_bn: Number of samples to recompute the running statistics of the pruned model's batch
            norms from; 0: the statistics are kept.
        gradient_memory: Memory limit for gradient statistics (Taylor) on each rank, in GB (10^9 bytes).
            Units are then scored in several passes over the samples, with the same result. None: no
            limit, one pass.
        precision: ``'float32'``: weights in half precision are float32 while units are scored, so that
            the ranking is that of a float32 model; with the copies they take three times the memory.
            ``'model'``: scores come from the model's own precision, with the loss scaled for float16.
        loss_weights: Factors on the parts of the loss whose gradients score units: by task if the model
            defines tasks, else by regular expressions on names of losses. 1 for the others.

    Raises:
        UserError: a value isn't valid.
    """

    num_samples: int = 128
    seed: int = 0
    batch_size: int = 16
    recalibrate_bn: int = 0
    gradient_memory: float | None = None
    precision: str = 'float32'
    loss_weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self):
        at_least('num_samples', self.num_samples, 1)
        at_least('seed', self.seed, 0)
        at_least('recalibrate_bn', self.recalibrate_bn, 0)
        at_least('batch_size', self.batch_size, 1)
        one_of('precision', self.precision, ['float32', 'model'])
        if self.gradient_memory is not None:
            check_number('gradient_memory', self.gradient_memory, 0, float('inf'))
        if not isinstance(self.loss_weights, Mapping):
            raise UserError(f'loss_weights is {self.loss_weights!r}; it must be a dict')
        for name, weight in self.loss_weights.items():
            check_pattern('loss_weights', name)
            check_number(f'loss_weights.{name}', weight, 0, float('inf'), least=True)
        self.loss_weights = {name: float(value) for name, value in self.loss_weights.items()}

    @property
    def sampling(self) -> dict[str, int]:
        """Arguments of :class:`projects.prune_plugin.calibration.data.CalibrationData`."""
        return dict(num_samples=self.num_samples, seed=self.seed, batch_size=self.batch_size)
