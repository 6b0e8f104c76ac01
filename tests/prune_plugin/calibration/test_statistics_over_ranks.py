"""Two processes over gloo decide what one process decides, and notice when they disagree."""

import os
import socket
from pathlib import Path

import brute_force as brute
import pytest
import torch
import torch.distributed as torch_dist
import torch.multiprocessing
import toy
from cases import BY_NAME, HEADS, NEURONS
from mmengine.config import Config
from test_criteria import samples_for

from projects.prune_plugin import StructuredPruner, UserError, WeightPruner
from projects.prune_plugin.calibration.collect import collect
from projects.prune_plugin.common import distributed
from projects.prune_plugin.methods.compensation import LeastSquares, least_squares
from projects.prune_plugin.training.config_edits import fit_to_device
from projects.prune_plugin.workflows import cli

CRITERIA = [
    dict(type='Taylor', order=1),
    dict(type='Taylor', order=2),
    dict(type='Wanda'),
    dict(type='Fisher'),
    dict(type='L1'),
    dict(type='Random', seed=3),
]
KINDS = frozenset(('gradients', 'squared_gradients', 'activations', 'fisher'))


def kept_by(criterion: dict, **calibration) -> str:
    pruner = StructuredPruner(
        [HEADS, NEURONS], criterion, budget=dict(type='params', ratio=0.4), calibration=calibration
    )
    samples = samples_for('vit')

    def data(settings):
        return brute.calibration_data(samples)  # three batches: one rank gets two

    plan = pruner.plan(BY_NAME['vit'].dense(), data, loss=brute.loss_of)
    return plan.state.digest()


def statistics():
    case = BY_NAME['vit']
    data = brute.calibration_data(samples_for('vit'))
    return collect(case.dense(), case.groups(), KINDS, data, brute.loss_of)


def trained(folder: str) -> dict:
    """Weights after a distributed training of a slim model with a batch norm."""
    model = dict(toy.MODEL, norm=True)
    pruner = StructuredPruner([NEURONS], dict(type='Random'), budget=dict(type='units', ratio=0.5))
    state = pruner.plan(toy.MODELS.build(dict(model))).state
    runner = toy.runner(
        Path(folder) / 'work',
        hooks=[dict(type='PruneStateHook')],
        model=dict(type='SlimModel', model=model, prune_state=state.to_dict()),
        launcher='pytorch',
        cfg=dict(model_wrapper_cfg=dict(type='MMDistributedDataParallel', device_ids=None)),
    )
    try:
        runner.train()
    except RuntimeError as error:
        return {'error': str(error)}
    return {n: p.detach().clone() for n, p in runner.model.module.named_parameters()}


def refitted(batch_size: int = 3) -> dict:
    """Weights after least squares, on three batches or fewer."""
    case = BY_NAME['vit']
    model, data = case.dense(), brute.calibration_data(samples_for('vit'), batch_size)
    LeastSquares(0.1).apply(model, case.state('half'), data, brute.loss_of)
    return model.state_dict()


def fitted_to_dense_streams() -> list[dict]:
    """Weights after methods that also run the dense model: refit, single weights, local reconstruction."""
    case = BY_NAME['vit']
    refit, other = case.dense(), case.dense()
    data = brute.calibration_data(samples_for('vit'))
    LeastSquares(0.1, dense_targets=0.5).apply(refit, case.state('half'), data, brute.loss_of)
    pruner = WeightPruner(
        dict(type='ALPS', targets='stream', weigh_outputs=1.0),
        budget=dict(ratio=0.5),
        include=[r'blocks\.'],
        reconstruction=dict(type='LocalReconstruction', epochs=2, lr=1e-4, batches_per_step=2),
    )
    plan = pruner.plan(other, data, loss=brute.loss_of)
    pruner.apply(other, plan, data, brute.loss_of)
    return [refit.state_dict(), other.state_dict()]


def refused() -> str:
    try:
        refitted(batch_size=7)
    except UserError as error:
        return str(error)
    return ''


def free_port() -> str:
    with socket.socket() as found:
        found.bind(('127.0.0.1', 0))
        return str(found.getsockname()[1])


def on_one_rank(rank: int, port: str, folder: str) -> None:
    """What each process does; it leaves its findings in ``folder``."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE='2', LOCAL_RANK=str(rank), MASTER_PORT=port)
    distributed.init('pytorch')
    distributed.init('pytorch')  # a second call does nothing
    found = dict(backend=torch_dist.get_backend(), statistics=vars(statistics()))
    found['kept'] = [kept_by(criterion) for criterion in CRITERIA]
    found['kept_in_parts'] = kept_by(CRITERIA[0], gradient_memory=1e-4)
    found['fitted'] = fitted_to_dense_streams()
    if rank:
        del least_squares.refit  # rank 0 alone solves, as two machines could find two results
    found['refitted'], found['refused'] = refitted(), refused()
    found['from_rank_0'] = distributed.from_rank_0([f'said by {rank}'])
    tensors = {name: torch.full((2,), float(rank + 1)) for name in ('ba'[rank], 'ab'[rank])}
    found['sums'] = {name: t.tolist() for name, t in distributed.sum_over_ranks(tensors).items()}
    distributed.assert_ranks_agree('equal', 'this')
    try:
        distributed.assert_ranks_agree(f'digest {rank}', 'the units kept')
    except RuntimeError as error:
        found['disagreement'] = str(error)
    model = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(model.weight, rank)
    torch.nn.init.zeros_(model.bias)
    found['weights'] = distributed.weights_digest(model)
    found['trained'] = trained(folder)
    torch.save(found, f'{folder}/{rank}.pth')
    cli.shut_down(together=True)


@pytest.fixture(scope='module')
def ranks(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp('ranks')
    torch.multiprocessing.spawn(on_one_rank, (free_port(), str(folder)), nprocs=2)
    return [torch.load(folder / f'{rank}.pth', weights_only=True) for rank in range(2)]


def test_gloo_on_cpus(ranks):
    assert torch.cuda.is_available() or [r['backend'] for r in ranks] == ['gloo', 'gloo']


def test_two_ranks_keep_what_one_keeps(ranks):
    alone = [kept_by(criterion) for criterion in CRITERIA]
    assert ranks[0]['kept'] == ranks[1]['kept'] == alone
    assert ranks[0]['kept_in_parts'] == ranks[1]['kept_in_parts'] == alone[0]


def test_two_ranks_refit_as_one_does(ranks):
    for name, tensor in refitted().items():
        first, second = (rank['refitted'][name] for rank in ranks)
        assert torch.equal(first, second), name
        torch.testing.assert_close(first, tensor, rtol=1e-5, atol=1e-5)
    for rank in ranks:
        assert 'calibration gives 1 batches for 2 ranks; raise num_samples' in rank['refused']


def test_statistics_of_two_ranks_are_those_of_one(ranks):
    alone = vars(statistics())
    assert [rank['statistics']['samples'] for rank in ranks] == [alone['samples']] * 2
    for table in ('gradients', 'squared_gradients', 'input_rms', 'fisher'):
        for name, expected in alone[table].items():
            first, second = (rank['statistics'][table][name] for rank in ranks)
            assert torch.equal(first, second)
            torch.testing.assert_close(first, expected, rtol=1e-5, atol=1e-8)


def test_rank_0_decides(ranks):
    assert [rank['from_rank_0'] for rank in ranks] == [['said by 0']] * 2


def test_tensors_are_summed_by_name(ranks):
    assert [rank['sums'] for rank in ranks] == [{'a': [3.0, 3.0], 'b': [3.0, 3.0]}] * 2


def test_disagreement_is_an_error(ranks):
    for rank in ranks:
        assert 'ranks disagree on the units kept' in rank['disagreement']
        assert 'digest 0' in rank['disagreement'] and 'digest 1' in rank['disagreement']
    assert ranks[0]['weights'] != ranks[1]['weights']


def test_ranks_end_a_training_with_the_same_weights(ranks):
    """Each rank's batch norm has seen other samples, which is no disagreement."""
    first, second = (rank['trained'] for rank in ranks)
    assert 'error' not in first, first['error']
    assert first['mlp.fc1.weight'].shape == (8, toy.FEATURES)
    assert all(torch.equal(second[name], weight) for name, weight in first.items())


def test_alone_everything_agrees():
    distributed.assert_ranks_agree('anything', 'this')
    assert distributed.from_rank_0(3) == 3
    tensors = {'a': torch.ones(1)}
    assert distributed.sum_over_ranks(tensors) is tensors


@pytest.mark.parametrize(
    ('launcher', 'variable'),
    [('pytorch', 'RANK'), ('slurm', 'SLURM_PROCID'), ('mpi', 'OMPI_COMM_WORLD_RANK')],
)
def test_a_launcher_that_did_not_start_us_is_named(launcher, variable, monkeypatch):
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(UserError, match=f'--launcher {launcher} needs the environment variable'):
        distributed.init(launcher)


def test_the_wrapper_fits_the_device():
    cfg = Config(dict(find_unused_parameters=True))
    fit_to_device(cfg, 'none')
    assert 'model_wrapper_cfg' not in cfg
    fit_to_device(cfg, 'pytorch')
    if not torch.cuda.is_available():
        assert cfg.model_wrapper_cfg.device_ids is None
        assert cfg.model_wrapper_cfg.find_unused_parameters


def test_loaders_pin_their_memory_where_there_are_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    cfg = Config(dict(train_dataloader=dict(batch_size=1), test_dataloader=dict(pin_memory=False)))
    fit_to_device(cfg, 'none')
    assert cfg.train_dataloader.pin_memory and not cfg.test_dataloader.pin_memory


def test_bits_of_weights_are_summed_where_they_lie():
    """On GPUs: another value, or another place of it, gives another sum."""
    tensor = torch.randn(3, 5)
    expected = distributed.bit_sums(tensor).tolist()
    assert distributed.bit_sums(tensor.clone()).tolist() == expected
    bits = tensor.flatten().view(torch.int32).tolist()
    assert expected[0] == sum(bits)
    assert expected[1] == sum(b * (2 * i + 1) for i, b in enumerate(bits))
    for half in (torch.float16, torch.bfloat16, torch.float64, torch.bool):
        assert distributed.bit_sums(tensor.to(half)).shape == (2,)


def test_weights_digest_sees_every_parameter():
    case = BY_NAME['resnet18-channel']
    digest = distributed.weights_digest(case.dense())
    assert digest == distributed.weights_digest(case.dense())
    for name in ('layer4.1.bn2.weight', 'fc.bias'):
        model = case.dense()
        model.state_dict()[name][0] += 1
        assert distributed.weights_digest(model) != digest


def test_dense_streams_and_reconstruction(ranks):
    for ours, first, second in zip(
        fitted_to_dense_streams(), ranks[0]['fitted'], ranks[1]['fitted'], strict=True
    ):
        for name, tensor in ours.items():
            assert torch.equal(first[name], second[name]), name
            scale = float(tensor.abs().max()) or 1.0
            torch.testing.assert_close(first[name], tensor, rtol=0, atol=1e-3 * scale, msg=name)
