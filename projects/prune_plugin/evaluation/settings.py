"""`prune_cfg.profile`: how FLOPs and latency are measured."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..common.validation import MAX_SECONDS, at_least, check_number, check_shape

#: Largest batch size and number of CPU threads of a latency measurement.
MAX_SAMPLES, MAX_THREADS = 65_536, 1024


@dataclass
class ProfileSettings:
    """How FLOPs and latency are measured.

    Attributes:
        batch_size: Samples per forward call when measuring latency; None: the model's default (8 for
            classifiers, 1 for VAD). FLOPs are always those of one sample.
        num_threads: CPU threads when measuring latency.
        seconds: Time to spend on measuring the latency of the dense and the pruned model together.
        input_shape: Shape of one sample, for models without ``dummy_inputs``.
    """

    batch_size: int | None = None
    num_threads: int = 1
    seconds: float = 4.0
    input_shape: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.batch_size is not None:
            at_least('batch_size', self.batch_size, 1, MAX_SAMPLES)
        at_least('num_threads', self.num_threads, 1, MAX_THREADS)
        check_number('seconds', self.seconds, 0, MAX_SECONDS, least=True)
        if self.input_shape is not None:
            check_shape('input_shape', self.input_shape)
