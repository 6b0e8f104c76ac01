"""What a streamed run will take, from a model on the meta device."""

from torch import nn

from ..common.errors import UserError
from ..common.model_interface import offers_streaming
from ..evaluation.example_inputs import Example, require_example_input
from ..methods.pruners import Pruner
from ..streaming.chain import BlockChain, find_chain
from ..streaming.estimate import Counts, Estimate, estimate
from ..streaming.live_bytes import bytes_of
from .run_report import StreamedRun


def chain_of(meta: nn.Module, pruner: Pruner) -> tuple[Example, BlockChain]:
    """An example call of a model on the meta device, and its blocks.

    Raises:
        UserError: it can't be streamed.
    """
    if not offers_streaming(meta):
        raise UserError(
            f"prune_cfg.execution.mode is 'streamed', which a {type(meta).__name__} does not offer: it "
            'has no weight_folder; take mode="memory"'
        )
    shape = pruner.profile.input_shape
    example = require_example_input(meta, shape, 1, 'prune_cfg.profile')
    return example, find_chain(meta, *example)


def planned(meta: nn.Module, slimmed: nn.Module, pruner: Pruner) -> StreamedRun:
    """The estimate for as many calibration samples as the config says, each as long as the example.

    Test data isn't read, and not counted.

    Args:
        meta: The dense model on the meta device.
        slimmed: The same as it will be.
        pruner: The pruner.
    """
    example, chain = chain_of(meta, pruner)
    sampling = pruner.calibration
    counts = Counts(-(-sampling.num_samples // sampling.batch_size), sampling.batch_size)
    written = bytes_of(slimmed.state_dict(keep_vars=True))
    found = estimate(meta, chain, example, pruner, counts, written)
    found.check(pruner.execution)
    return streamed_run(chain, found, found.read, found.written, None)


def streamed_run(
    chain: BlockChain, found: Estimate, read: int, written: int, peak: int | None
) -> StreamedRun:
    """The entry of a report.

    Args:
        chain: The model's blocks.
        found: What was estimated.
        read: Bytes of weights read.
        written: Bytes of weights written.
        peak: Most memory that was measured; None: nothing was.
    """
    return StreamedRun(len(chain.blocks), read, written, peak, found.peak, found.disk)
