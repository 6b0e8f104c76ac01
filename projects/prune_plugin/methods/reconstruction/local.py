"""Local reconstruction: each attention and MLP is trained on the dense model's residual stream."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from mmengine import dist
from mmengine.logging import print_log
from torch import Tensor, nn

from ...calibration.data import forward_calls
from ...calibration.loss import guarded
from ...calibration.residual_streams import Stream, StreamReads, find_sublayers, first_tensor
from ...calibration.sequential import (
    SharedInput,
    layers_that_run_later,
    run_layer_by_layer,
    temporary_values,
)
from ...calibration.stream_shift import inverse_scale
from ...common.distributed import assert_ranks_agree, weights_digest
from ...common.errors import UserError
from ...common.eval_mode import inference
from ...common.progress import Bar
from ...common.registry import RECONSTRUCTIONS
from ...common.validation import at_least, check_fraction, check_number
from .base import Reconstruction
from .fit import Fit, Settings

#: Largest difference between two runs of a sublayer on the same arguments, relative to its output.
REPEATABLE = 1e-4


class Arguments(NamedTuple):
    """What a module is called with."""

    args: tuple
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, given: tuple[tuple, dict[str, Any]]) -> 'Arguments':
        """Those of a call, without a cache of keys and values, which would grow with every call."""
        args, kwargs = given
        return cls(
            args, {n: None if hasattr(v, 'get_seq_length') else v for n, v in kwargs.items()}
        )


@RECONSTRUCTIONS.register_module()
class LocalReconstruction(Reconstruction):
    """Train the kept weights of each sublayer so that the residual stream behind it is the dense model's.

    A sublayer is what adds its output to the residual stream: an attention, an MLP. One after the other, in
    the order in which they run, each is trained for some epochs over the calibration batches, on inputs
    that the sublayers before it, already trained, produce. The target is the dense sublayer's output in the
    dense model, plus what the stream has lost before it. No gradient runs through the whole model: memory
    holds the model, the streams of the batches in both models, and the gradients of one sublayer. The dense
    weights wait in a file.

    Args:
        epochs: Times that each sublayer sees the calibration batches.
        lr: Peak learning rate of Adam; it rises over a tenth of the steps and falls to zero by a cosine.
        batches_per_step: Calibration batches, over all ranks, whose gradients one step sums.
        dense_targets: The target between the dense sublayer's output on the pruned model's inputs (0), and
            the one that makes the stream the dense model's (1), in [0, 1].
        seed: Of the order of the batches.

    Source: Guo et al., "EBFT: Effective and Block-Wise Fine-Tuning for Sparse LLMs", arXiv 2402.12419; by
    sublayers as in "A free lunch in LLM compression", arXiv 2510.14444. Targets with the stream's loss are
    ours.

    Example:
        >>> prune_cfg = dict(type='WeightPruner', sparsifier=dict(type='SparseGPT'),
        ...     reconstruction=dict(type='LocalReconstruction', epochs=4))
    """

    def __init__(
        self,
        epochs: int = 6,
        lr: float = 2e-4,
        batches_per_step: int = 1,
        dense_targets: float = 1.0,
        seed: int = 0,
    ):
        at_least('epochs', epochs, 1)
        check_number('lr', lr, 0, float('inf'))
        at_least('batches_per_step', batches_per_step, 1)
        check_fraction('dense_targets', dense_targets)
        at_least('seed', seed, 0)
        self.dense_targets = float(dense_targets)
        self.passes = 3.0 * epochs + 6
        self.settings = Settings(epochs, float(lr), batches_per_step, seed)

    def apply(self, model, dense, masks, data, loss, progress=None):
        """See :meth:`Reconstruction.apply`."""
        parameters = dict(model.named_parameters())
        changed = {parameters[name]: value for name, value in dense.items()}
        with inference(model), Bar() as bar:
            calls = forward_calls(model, data, loss)
            first_call = partial(guarded(loss), model, data.first_sample())
            streams = self.sublayers(model, first_call, masks)
            steps: list[SharedInput] = [(name,) for name in streams]
            later = layers_that_run_later(model, steps, first_call)
            reads = StreamReads(model, streams)
            task = bar.add_task('reconstructing', total=len(steps))
            numbers = {name: number for number, name in enumerate(streams)}

            def visit(layers: SharedInput, given: list[Any], dense_given: list[Any]) -> None:
                (name,) = layers
                pairs = reads.take(name, len(dense_given), len(given))
                module = model.get_submodule(name)
                own = {f'{name}.{n}': p for n, p in module.named_parameters()}
                finished = progress.load(numbers[name]) if progress else None
                if finished is not None:
                    for parameter, found in finished.items():
                        own[parameter].copy_(found['weight'])
                else:
                    arguments = [Arguments.of(pair) for pair in given]
                    dense_arguments = [Arguments.of(pair) for pair in dense_given]
                    values = {p: changed[p] for p in own.values() if p in changed}
                    targets = self.targets(
                        name, module, streams[name], arguments, dense_arguments, pairs, values
                    )
                    kept = {
                        n: masks.get(n, torch.ones_like(p, dtype=torch.bool))
                        for n, p in own.items()
                    }
                    fit = Fit(module, list(own.values()), list(kept.values()), self.settings)
                    before, after = fit.run(
                        name, arguments, targets, len(data.batches), numbers[name]
                    )
                    print_log(
                        f'{name}: error {before:.4f} -> {after:.4f}', 'current', logging.DEBUG
                    )
                    if progress:
                        progress.save(
                            numbers[name], {n: (p.detach(), kept[n]) for n, p in own.items()}
                        )
                bar.advance(task)

            with reads.watched():
                run_layer_by_layer(model, calls, steps, visit, calls, later, True, changed)
        if dist.get_world_size() > 1:
            assert_ranks_agree(weights_digest(model), 'the reconstructed weights')
        return [f'{n}.{p}' for n in streams for p, _ in model.get_submodule(n).named_parameters()]

    def sublayers(
        self, model: nn.Module, call: Any, masks: Mapping[str, Tensor]
    ) -> dict[str, Stream]:
        """The sublayers that hold pruned weights, in the order in which they run.

        Raises:
            UserError: there is none.
        """
        found = {
            name: stream
            for name, stream in find_sublayers(model, call).items()
            if any(weight.startswith(f'{name}.') for weight in masks)
        }
        if not found:
            raise UserError(
                'prune_cfg.reconstruction: no module with pruned weights adds its output to a residual '
                'stream, as attentions and MLPs do; leave it out'
            )
        outside = [n for n in masks if not any(n.startswith(f'{name}.') for name in found)]
        if outside:
            print_log(
                f'LocalReconstruction leaves {len(outside)} pruned weights as they are, such as '
                f'{outside[0]}: they are in no sublayer that adds its output to a residual stream',
                'current',
                logging.WARNING,
            )
        return found

    def targets(
        self,
        name: str,
        module: nn.Module,
        stream: Stream,
        given: Sequence[Arguments],
        dense_given: Sequence[Arguments],
        streams: Sequence[tuple[Tensor, Tensor]],
        dense: Mapping[nn.Parameter, Tensor],
    ) -> list[Tensor]:
        """What a sublayer's output shall be on each batch of this rank.

        Args:
            name: The sublayer, for messages.
            module: The sublayer.
            stream: Where its output goes.
            given: Its arguments in each batch.
            dense_given: In the dense model.
            streams: The stream before it, in the dense model and here.
            dense: Its dense parameters, where they differ.

        Raises:
            UserError: it gives another output when it is run again on the same arguments.
        """
        found = []
        values = {p: value.to(p.device) for p, value in dense.items()}
        for number, (here, there) in enumerate(zip(given, dense_given, strict=True)):
            with temporary_values(values):
                own, whole = (output_of(module, x) for x in (here, there))
                again = output_of(module, there) if number == 0 else whole
            if float((again - whole).abs().max()) > REPEATABLE * float(whole.abs().max()):
                raise UserError(
                    f'prune_cfg.reconstruction: {name} computes something else when it runs again on the '
                    'same arguments, as with a cache of keys and values; switch that off'
                )
            if self.dense_targets:
                dense_h, h = streams[number]
                lost = (dense_h.float() - h.float()).view(own.shape) * inverse_scale(
                    stream, own.device
                )
                own = own + self.dense_targets * (lost + whole - own)
            found.append(own)
        return found


def output_of(module: nn.Module, given: Arguments) -> Tensor:
    """The first tensor of a module's output, in float32."""
    output = first_tensor((module(*given.args, **given.kwargs),), {})
    assert output is not None  # find_sublayers has seen it
    return output.float()
