"""Weight-level methods under one signature: plain ones, reference repositories' and this plugin's."""

import sys
from argparse import Namespace
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

#: (model, calibration sequences, fraction removed, (N, M) or None, options); prunes in place.
Method = Callable[['nn.Module', 'list[Tensor]', float, 'tuple[int, int] | None', Namespace], None]


def forward(model, sequences, ratio, pattern, args) -> None:
    """Two bare passes of the decoder over the sequences: what no block-wise method goes below."""
    import torch

    with torch.no_grad():
        for _ in range(2):
            for sequence in sequences:
                model.model(sequence)


def magnitude(model, sequences, ratio, pattern, args) -> None:
    """Plain magnitude, per layer."""
    from plain.magnitude import prune_magnitude

    prune_magnitude(model, ratio, pattern)


def plain_sparsegpt(model, sequences, ratio, pattern, args) -> None:
    """Plain SparseGPT."""
    from plain.driver import block_by_block
    from plain.sparsegpt import SparseGPT

    block_by_block(model, sequences, SparseGPT, ratio, pattern)


def plain_wanda(model, sequences, ratio, pattern, args) -> None:
    """Plain Wanda."""
    from plain.driver import block_by_block
    from plain.wanda import Wanda

    block_by_block(model, sequences, Wanda, ratio, pattern)


def import_from(folder: Path, module: str):
    """A module of a checkout, which stays as it is."""
    sys.path.insert(0, str(folder))
    return import_module(module)


def reference_sparsegpt(model, sequences, ratio, pattern, args) -> None:
    """The class of a checkout of IST-DASLab/sparsegpt, under the plain driver."""
    import torch
    from plain.driver import block_by_block

    torch.cuda.synchronize = lambda *_: None  # called after every layer, GPU or not
    theirs = import_from(args.reference_sparsegpt, 'sparsegpt').SparseGPT

    class Adapter:
        def __init__(self, layer):
            self.gpt = theirs(layer)

        def add(self, inputs):
            self.gpt.add_batch(inputs, None)

        def prune(self, ratio, pattern):
            kept, of = pattern or (0, 0)
            with redirect_stdout(sys.stderr):
                self.gpt.fasterprune(
                    ratio, prunen=of - kept, prunem=of, blocksize=128, percdamp=0.01
                )
            self.gpt.free()

    block_by_block(model, sequences, Adapter, ratio, pattern)


def reference_wanda(model, sequences, ratio, pattern, args) -> None:
    """The statistics class of a checkout of locuslab/wanda, under the plain driver.

    The repository chooses the weights in its driver, which wants a GPU; here the plain code does.
    """
    from plain.driver import block_by_block
    from plain.wanda import Wanda

    theirs = import_from(args.reference_wanda / 'lib', 'layerwrapper').WrappedGPT

    class Adapter(Wanda):
        def __init__(self, layer):
            super().__init__(layer)
            self.wrapped = theirs(layer)

        def add(self, inputs):
            self.wrapped.add_batch(inputs, None)

        def prune(self, ratio, pattern=None):
            self.squares = self.wrapped.scaler_row
            super().prune(ratio, pattern)

    block_by_block(model, sequences, Adapter, ratio, pattern)


def ours(sparsifier: str, local: dict | None = None, **keys) -> Method:
    """The plugin's method of that name and settings, on the same layers and sequences.

    Args:
        sparsifier: Its registered name.
        local: Settings of a local reconstruction after it.
        keys: Settings of the sparsifier.
    """

    def prune(model, sequences, ratio, pattern, args) -> None:
        from projects.prune_plugin import build_pruner
        from projects.prune_plugin.calibration.data import CalibrationData

        method = {'type': sparsifier, **keys}
        if pattern:
            method['pattern'] = '{}:{}'.format(*pattern)
        pruner = build_pruner(
            dict(
                type='WeightPruner',
                sparsifier=method,
                budget=dict(type='weights', ratio=ratio),
                include=[r'model\.layers\..*'],
                reconstruction=local and dict(type='LocalReconstruction', **local),
                calibration=dict(num_samples=len(sequences), batch_size=args.batch_size),
            )
        )
        loader = dict(
            dataset=[sequence[0] for sequence in sequences],
            collate_fn=dict(type='default_collate'),
        )

        def loss(model, batch):
            if keys.get('weigh_outputs'):
                return model(batch, labels=batch).loss
            return model.model(batch)

        def data(settings):
            return CalibrationData(loader, **settings.sampling)

        with redirect_stdout(sys.stderr):
            plan = pruner.plan(model, data, loss=loss)
            pruner.apply(model, plan, data, loss=loss)

    return prune


#: Of the local reconstructions.
LOCAL = dict(epochs=4, lr=3e-4)
METHODS: dict[str, Method] = dict(
    forward=forward,
    magnitude=magnitude,
    plain_wanda=plain_wanda,
    reference_wanda=reference_wanda,
    ours_wanda=ours('Wanda'),
    plain_sparsegpt=plain_sparsegpt,
    reference_sparsegpt=reference_sparsegpt,
    ours_sparsegpt=ours('SparseGPT', targets='stream', refinement=15),
    ours_sparsegpt_paper=ours('SparseGPT', dense_targets=0, refinement=0),
    ours_sparsegpt_plain_targets=ours('SparseGPT'),
    ours_sparsegpt_full=ours('SparseGPT', dense_share=1, targets='stream', refinement=15),
    ours_sparsegpt_local=ours('SparseGPT', LOCAL, targets='stream', refinement=15),
    ours_alps=ours('ALPS', targets='stream', weigh_outputs=0.5),
    ours_alps_local=ours('ALPS', LOCAL, targets='stream', weigh_outputs=0.5),
    ours_magnitude=ours('Magnitude'),
)
#: Need a checkout, whose folder is the option of that name.
REFERENCES = ('reference_sparsegpt', 'reference_wanda')
