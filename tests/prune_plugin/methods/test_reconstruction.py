"""Local reconstruction: sublayers trained on the dense stream, masks kept, ranks and restarts alike."""

from copy import deepcopy

import pytest
import torch
from cases import BY_NAME
from refitting import Batches
from test_least_squares import data_of, run
from torch import nn

from projects.prune_plugin import (
    StructuredPruner,
    UserError,
    WeightPruner,
    build_pruner,
    mask,
    slim,
)
from projects.prune_plugin.calibration.residual_streams import find_sublayers
from projects.prune_plugin.methods.pruners.layer_progress import LayerProgress
from projects.prune_plugin.methods.pruners.reconstructing import dense_weights, unit_masks
from projects.prune_plugin.methods.reconstruction import LocalReconstruction
from projects.prune_plugin.methods.reconstruction.fit import Fit, Settings

RECONSTRUCTION = dict(type='LocalReconstruction', epochs=8, lr=1e-3)
INCLUDE = {
    'vit': [r'blocks\.'],
    'llama-gqa': [r'model\.layers\.'],
    'opt': [r'model\.decoder\.layers\.'],
}
#: By family: its sublayers, in the order they run.
SUBLAYERS = {
    'vit': [f'blocks.{i}.{x}' for i in range(3) for x in ('attn', 'mlp')],
    'llama-gqa': [f'model.layers.{i}.{x}' for i in range(3) for x in ('self_attn', 'mlp')],
}


def error_of(case, model, batches) -> float:
    """Mean squared difference of the last norm's inputs from the dense model's: the stream at the end."""
    dense = case.dense()

    def stream(net, batch):
        read = []
        last = [m for m in net.modules() if 'Norm' in type(m).__name__][-1]
        handle = last.register_forward_pre_hook(lambda m, args: read.append(args[0]))
        with torch.no_grad():
            net.eval()(*batch)
        handle.remove()
        return read[-1]

    return sum(float((stream(model, b) - stream(dense, b)).square().mean()) for b in batches)


def pruned(family, prune_cfg, reconstruction=RECONSTRUCTION, progress=None):
    case = BY_NAME[family]
    model, data = case.dense(), data_of(case, 4)
    pruner = build_pruner({**prune_cfg, 'reconstruction': reconstruction})
    plan = pruner.plan(model, data, loss=run)
    return case, pruner.apply(model, plan, data, run, progress=progress), plan, data.batches


@pytest.mark.parametrize('family', SUBLAYERS)
def test_sublayers_are_attentions_and_mlps(family):
    case = BY_NAME[family]
    model = case.dense()
    found = find_sublayers(model.eval(), lambda: model(*case.inputs()))
    assert list(found) == SUBLAYERS[family]


@pytest.mark.parametrize('family', SUBLAYERS)
def test_single_weights(family):
    cfg = dict(
        type='WeightPruner',
        sparsifier=dict(type='Magnitude'),
        budget=dict(ratio=0.6),
        include=INCLUDE[family],
    )
    case, before, _, batches = pruned(family, cfg, None)
    _, after, _, _ = pruned(family, cfg)
    assert before.masks.keys() == after.masks.keys()
    for name, keep in after.masks.items():
        weight = after.model.get_parameter(name)
        assert torch.equal(keep, before.masks[name]) and (weight[~keep] == 0).all()
        assert not torch.equal(weight, before.model.get_parameter(name))
    assert error_of(case, after.model, batches) < 0.5 * error_of(case, before.model, batches)
    untouched = {n for n, _ in after.model.named_parameters()} - {
        f'{s}.{n}'
        for s in SUBLAYERS[family]
        for n, _ in after.model.get_submodule(s).named_parameters()
    }
    dense = case.dense()
    for name in untouched:
        assert torch.equal(after.model.get_parameter(name), dense.get_parameter(name)), name


@pytest.mark.parametrize('family', SUBLAYERS)
@pytest.mark.parametrize('compensation', [None, dict(type='LeastSquares')])
def test_units_and_slim_equals_masked(family, compensation):
    cfg = dict(
        type='StructuredPruner',
        criterion=dict(type='L1'),
        budget=dict(ratio=0.3),
        compensation=compensation,
    )
    case, before, _, batches = pruned(family, cfg, None)
    _, after, plan, _ = pruned(family, cfg)
    gain = 0.9 if compensation is None else 1.0
    assert error_of(case, after.model, batches) <= gain * error_of(case, before.model, batches)
    shapes = [{n: p.shape for n, p in r.model.named_parameters()} for r in (before, after)]
    assert shapes[0] == shapes[1]
    # The same training on the masked model, without cutting, computes the same.
    masked = case.dense()
    data = Batches(batches)
    changed = [n for n, _ in masked.named_parameters()]
    with dense_weights(masked, changed) as dense:
        if compensation:
            StructuredPruner(compensation=compensation).compensation.apply(
                masked, plan.state, data, run
            )
        mask(masked, plan.state)
        masks = unit_masks(masked, plan.state)
        LocalReconstruction(8, 1e-3).apply(masked, dense, masks, data, run)
    for name, keep in masks.items():
        assert (masked.get_parameter(name)[~keep] == 0).all(), name
    for batch in batches:
        with torch.no_grad():
            ours, theirs = (
                m.eval()(*batch) for m in (after.model, slim(deepcopy(masked), plan.state))
            )
            whole = masked(*batch)
        one, two, three = (getattr(x, 'logits', x) for x in (ours, theirs, whole))
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(one, three, rtol=1e-3, atol=1e-4)


def test_a_killed_run_goes_on_with_the_same_bits(tmp_path):
    cfg = dict(
        type='WeightPruner',
        sparsifier=dict(type='SparseGPT'),
        budget=dict(ratio=0.6),
        include=INCLUDE['llama-gqa'],
    )
    whole = pruned('llama-gqa', cfg)[1].model.state_dict()
    seen = []

    class Killed(LayerProgress):
        def save(self, number, layers):
            super().save(number, layers)
            if self.folder.name == 'reconstruction':
                seen.append(number)
                if len(seen) == 3:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pruned('llama-gqa', cfg, progress=Killed(tmp_path, {'a': 1}))
    assert seen == [0, 1, 2] and len(list((tmp_path / 'reconstruction').glob('*.pth'))) == 3
    progress = LayerProgress(tmp_path, {'a': 1})
    found = pruned('llama-gqa', cfg, progress=progress)[1].model.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in whole.items())
    progress.clear()
    assert not tmp_path.exists() or not any(tmp_path.iterdir())


def test_the_target_without_streams_is_the_dense_sublayer_on_the_same_inputs():
    """One linear sublayer: its training ends at its own least squares."""
    torch.manual_seed(0)

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.LayerNorm(6), nn.LayerNorm(6)
            self.part = nn.Linear(6, 6, bias=False)

        def forward(self, x):
            return self.last(x + self.part(self.first(x)))

    dense = Residual().eval()
    model = deepcopy(dense)
    keep = torch.rand(6, 6) > 0.5
    keep[:, 0] = True
    model.part.weight.data.mul_(keep)
    batches = [(torch.randn(3, 20, 6),) for _ in range(4)]
    LocalReconstruction(300, 1e-2).apply(
        model,
        {'part.weight': dense.part.weight.detach().clone()},
        {'part.weight': keep},
        Batches(batches),
        run,
    )
    rows = torch.cat([dense.first(x).flatten(0, -2) for (x,) in batches]).double().detach()
    for row, target, kept in zip(model.part.weight, dense.part.weight, keep, strict=True):
        exact = torch.linalg.lstsq(rows[:, kept], rows @ target.double()).solution
        torch.testing.assert_close(row[kept].double(), exact, rtol=0.02, atol=0.01)


def test_gradients_of_a_step_are_those_of_all_its_batches():
    """Steps of two batches: as plain Adam on the mean of their errors."""
    torch.manual_seed(0)
    layer = nn.Linear(4, 3, bias=False)
    plain = deepcopy(layer)
    inputs, targets = torch.randn(4, 5, 4), torch.randn(4, 5, 3)
    settings = Settings(epochs=2, lr=0.1, batches_per_step=2, seed=3)
    from projects.prune_plugin.methods.reconstruction.local import Arguments

    given = [Arguments((x,), {}) for x in inputs]
    before, after = Fit(layer, [layer.weight], [torch.ones(3, 4).bool()], settings).run(
        'layer', given, list(targets), 4, 5
    )
    generator = torch.Generator().manual_seed(3 * 1_000_003 + 5)
    optimizer = torch.optim.Adam([plain.weight], betas=(0.9, 0.95))
    step = 0
    for _ in range(2):
        for chosen in torch.randperm(4, generator=generator).split(2):
            error = (plain(inputs[chosen]) - targets[chosen]).square().sum() / 2
            optimizer.zero_grad()
            (error * 4 / targets.square().sum()).backward()
            optimizer.param_groups[0]['lr'] = settings.rate(step, 4)
            optimizer.step()
            step += 1
    torch.testing.assert_close(layer.weight, plain.weight, rtol=1e-4, atol=1e-5)
    assert after < before


class Remembering(nn.Module):
    """Adds what it has seen before."""

    def __init__(self):
        super().__init__()
        self.linear, self.calls = nn.Linear(6, 6), 0

    def forward(self, x):
        self.calls += 1
        return self.linear(x) * self.calls


def test_what_cannot_be_reconstructed_is_refused():
    class Model(nn.Module):
        def __init__(self, part):
            super().__init__()
            self.first, self.part, self.last = nn.LayerNorm(6), part, nn.LayerNorm(6)

        def forward(self, x):
            return self.last(x + self.part(self.first(x)))

    data = Batches([(torch.randn(2, 5, 6),) for _ in range(2)])
    cfg = dict(
        sparsifier=dict(type='Magnitude'), budget=dict(ratio=0.5), reconstruction=RECONSTRUCTION
    )
    for model, said in (
        (
            Model(Remembering()),
            'part computes something else when it runs again on the same arguments',
        ),
        (
            nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)),
            'no module with pruned weights adds',
        ),
    ):
        pruner = WeightPruner(**cfg)
        with pytest.raises(UserError, match=said):
            pruner.apply(model.eval(), pruner.plan(model, data, loss=run), data, run)


@pytest.mark.parametrize(
    ('keys', 'said'),
    [
        (
            dict(reconstruction=dict(type='LocalReconstruction', epochs=0)),
            'epochs is 0; it must be',
        ),
        (
            dict(reconstruction=dict(type='LocalReconstruction', lr=-1)),
            'lr is -1; it must be a number > 0',
        ),
        (dict(reconstruction=dict(type='Local')), "reconstruction.type is 'Local'; valid are"),
        (
            dict(reconstruction=RECONSTRUCTION, schedule=dict(type='Steps', ratios=[0.2, 0.5])),
            'prune_cfg.reconstruction does not go with rounds of pruning and training',
        ),
    ],
)
@pytest.mark.parametrize('kind', ['WeightPruner', 'StructuredPruner'])
def test_bad_configs(kind, keys, said):
    with pytest.raises(UserError, match=said):
        build_pruner(dict(type=kind, **keys))


def test_data_is_needed():
    pruner = build_pruner(
        dict(type='WeightPruner', budget=dict(ratio=0.5), reconstruction=RECONSTRUCTION)
    )
    assert [user.what for user in pruner.data_users()] == [
        'prune_cfg.reconstruction LocalReconstruction'
    ]
    model = BY_NAME['vit'].dense()
    with pytest.raises(
        UserError, match='reconstruction LocalReconstruction needs calibration data'
    ):
        pruner.apply(model, pruner.plan(model))
