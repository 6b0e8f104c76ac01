"""`prune_cfg.profile`: how FLOPs and latency are measured."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..common.validation import MAX_SECONDS, at_least, check_number, check_shape

#: Samples of a call to be timed, and CPU threads for it, at most.
MOST_SAMPLES, MOST_THREADS = 65_536, 1024


@dataclass
class ProfileSettings:
    """How FLOPs and latency are measured.

    Attributes:
        batch_size: Samples per forward call when timing; None: the model's usual number (8 for
            classifiers, 1 for VAD). FLOPs are always of one sample.
        num_threads: CPU threads when timing.
        seconds: Time to spend on timing dense and pruned model.
        input_shape: Shape of one sample, for models without ``dummy_inputs``.
    """

    batch_size: int | None = None
    num_threads: int = 1
    seconds: float = 4.0
    input_shape: Sequence[int] | None = None

    def __post_init__(self):
        if self.batch_size is not None:
            at_least('batch_size', self.batch_size, 1, MOST_SAMPLES)
        at_least('num_threads', self.num_threads, 1, MOST_THREADS)
        check_number('seconds', self.seconds, 0, MAX_SECONDS, least=True)
        if self.input_shape is not None:
            check_shape('input_shape', self.input_shape)
