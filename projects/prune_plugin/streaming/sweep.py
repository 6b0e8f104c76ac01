"""One pass over the blocks of a model: each is read, pruned, evaluated, written and freed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from mmengine.logging import print_log
from torch import Tensor, nn

from ..calibration.data import CalibrationData, forward_calls
from ..calibration.loss import mmengine_loss
from ..checkpoints.shards import ShardWriter
from ..common.errors import UserError
from ..common.eval_mode import evaluation_mode, inference
from ..common.fileio import WRITE_ERRNOS
from ..common.glibc_memory import trim_heap
from ..common.timing import timed
from ..evaluation.test_set import TestSet
from .block_methods import BlockMethod, BlockResult
from .progress import StreamProgress
from .skeleton import Skeleton
from .stream import Finishing, Stream, capture
from .view import BlockView
from .window_data import WindowData


@dataclass
class Streams:
    """The batches that pass the blocks, by what is made of them.

    Attributes:
        pruned: Calibration batches that pass the pruned blocks.
        dense: Those that pass the dense ones.
        test_dense: Test batches that pass the dense blocks.
        test_pruned: Test batches that pass the pruned blocks.
    """

    pruned: Stream | None = None
    dense: Stream | None = None
    test_dense: Stream | None = None
    test_pruned: Stream | None = None

    def all(self) -> list[Stream]:
        """Those that there are."""
        every = (self.pruned, self.dense, self.test_dense, self.test_pruned)
        return [stream for stream in every if stream is not None]


@dataclass
class Swept:
    """What a pass over all blocks has found.

    Attributes:
        dense: Metrics of the dense model; None without test data.
        pruned: Metrics of the pruned model.
        results: What is known of each block, and of what is outside of them.
        seconds: Time of each block, by step.
    """

    dense: dict[str, float] | None = None
    pruned: dict[str, float] | None = None
    results: list[BlockResult] = field(default_factory=list)
    seconds: list[dict[str, float]] = field(default_factory=list)


class Sweep:
    """Prunes a model block by block.

    The model's blocks are left without weights, in their new shapes.

    Args:
        skeleton: The model and its files.
        method: What is done to each block.
        writer: Takes the pruned weights.
        names: The names that tensors are written under, by those in the model; others aren't written.
        progress: What is finished.
        in_memory: Whether hidden states wait in memory; else one batch at a time passes a block.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        method: BlockMethod,
        writer: ShardWriter,
        names: Mapping[str, str],
        progress: StreamProgress,
        in_memory: bool,
    ):
        self.skeleton, self.method, self.writer = skeleton, method, writer
        self.names, self.progress, self.in_memory = names, progress, in_memory
        self.model, self.chain = skeleton.model, skeleton.chain
        self.streams = Streams()
        self.data: CalibrationData | None = None

    def run(self, data: CalibrationData | None, test_set: TestSet | None) -> Swept:
        """Prune all blocks that aren't finished, and evaluate.

        Args:
            data: Calibration batches, for a method that needs them.
            test_set: What to evaluate the dense and the pruned model on; None: nothing.

        Raises:
            UserError: a file can't be written; what was finished is kept.
        """
        with self.prepared(data, test_set):
            for number in range(self.progress.done, len(self.chain.blocks)):
                self.block(number)
            return self.end(test_set)

    @contextmanager
    def prepared(self, data: CalibrationData | None, test_set: TestSet | None) -> Iterator[None]:
        """Take all batches to the first block that isn't finished; the body goes on from there."""
        self.data = data
        with inference(self.model), writing(self.progress):
            self.start(data, test_set)
            self.progress.restore(self.streams.all())
            yield

    def start(self, data: CalibrationData | None, test_set: TestSet | None) -> None:
        """Run all batches up to the first block."""
        early = self.skeleton.early()
        self.skeleton.load(early)
        streams = self.streams
        how = dict(
            folder=self.progress.states, device=self.skeleton.device, in_memory=self.in_memory
        )
        if data is not None:
            needed = self.method.batches(len(data.batches))
            calls = forward_calls(self.model, data, mmengine_loss)
            if needed.pruned:
                streams.pruned = capture(
                    self.model, self.chain, calls[: needed.pruned], name='pruned', **how
                )
                if needed.dense:
                    streams.dense = streams.pruned.copy('dense', needed.dense)
            elif needed.dense:
                streams.dense = capture(
                    self.model, self.chain, calls[: needed.dense], name='dense', **how
                )
        if test_set is not None and not test_set.missing:
            with evaluation_mode(self.model, fused=True):
                tests = (partial(self.model.test_step, batch) for batch in test_set.loader)
                streams.test_dense = capture(
                    self.model, self.chain, tests, name='test-dense', **how
                )
            streams.test_pruned = streams.test_dense.copy('test-pruned')
        self.skeleton.free(early)

    def block(self, number: int) -> None:
        """Read, prune, evaluate, write and free a block."""
        seconds: dict[str, float] = {}
        with timed(seconds, 'read'):
            view = self.skeleton.block(number)
        result = self.pruned(view, seconds)
        with timed(seconds, 'write'):
            result.zeros = self.write(view.state_dict())
            self.skeleton.take(view)
            self.progress.commit(result, seconds, self.streams.all())
        trim_heap()
        print_log(
            f'block {number + 1} of {len(self.chain.blocks)}: '
            + ', '.join(f'{step} {s:.1f} s' for step, s in seconds.items()),
            'current',
        )

    def pruned(self, view: BlockView, seconds: dict[str, float]) -> BlockResult:
        """Prune a block, and take all batches through it."""
        streams = self.streams
        following = None
        with timed(seconds, 'forward'):
            if streams.test_dense:
                with evaluation_mode(view, fused=True):
                    streams.test_dense.advance(view)
            if streams.dense:
                following = streams.dense.through(view, keep=True)
        with timed(seconds, 'prune'):
            result = self.method.prune(view, self.block_data())
        with timed(seconds, 'forward'):
            if streams.pruned:
                streams.pruned.advance(view)
            if streams.dense and following:
                streams.dense.step(following)
            self.method.shrink(view)
            if streams.test_pruned:
                with evaluation_mode(view, fused=True):
                    streams.test_pruned.advance(view)
        return result

    def block_data(self) -> WindowData | None:
        """The calibration data of the next block."""
        if self.data is None:
            return None
        batches, seed, alone = self.data.batches, self.data.seed, not self.in_memory
        dense, pruned = self.streams.dense, self.streams.pruned
        found = None
        if dense:
            found = WindowData(dense.windows(), batches[: len(dense.others)], seed, None, alone)
        if pruned:
            found = WindowData(pruned.windows(), batches, seed, found, alone)
        return found

    def end(self, test_set: TestSet | None) -> Swept:
        """Evaluate, and write what is outside of the blocks."""
        skeleton, streams = self.skeleton, self.streams
        skeleton.load(skeleton.outside)
        swept = Swept(seconds=self.progress.seconds)
        swept.dense = self.evaluated(test_set, streams.test_dense, 'dense')
        outside = self.method.prune_outside(self.model)
        swept.pruned = self.evaluated(test_set, streams.test_pruned, 'pruned')
        swept.results = [*self.progress.blocks, outside]
        tensors = self.model.state_dict()
        outside.zeros = self.write({name: tensors[name] for name in skeleton.outside})
        skeleton.free(skeleton.outside)
        return swept

    def write(self, tensors: Mapping[str, Tensor]) -> int:
        """Write tensors, of tied ones the first; how many zeros they have."""
        zeros = 0
        for name, tensor in tensors.items():
            if name in self.names:
                self.writer.write(self.names[name], tensor)
                zeros += int((tensor == 0).sum())
        self.writer.sync()
        return zeros

    def evaluated(
        self, test_set: TestSet | None, stream: Stream | None, label: str
    ) -> dict[str, float] | None:
        """The metrics of test batches that have passed all blocks."""
        if test_set is None or stream is None:
            return None
        standing: nn.Module = Finishing(self.model, self.chain, stream)
        return test_set.evaluate(standing, label)


@contextmanager
def writing(progress: StreamProgress) -> Iterator[None]:
    """Say what a full disk means here: finished blocks are kept."""
    try:
        yield
    except OSError as error:
        if error.errno not in WRITE_ERRNOS:
            raise
        raise UserError(
            f'{error.filename or progress.folder} cannot be written ({error.strerror}); {progress.done} '
            'blocks are finished: free some space, and go on with --resume'
        ) from error
