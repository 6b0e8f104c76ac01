"""The VAD document's forms on a small drive: prune and retrain on two processes, kill, resume, test."""

import json
import re

import pytest
import torch
from test_tools_vad import metrics_of, weights_of
from tool_runs import ROOT, VAD_CONFIG, kill_at
from tool_runs import vad_options as options

from projects.prune_plugin.checkpoints.checkpoint_file import load_file

PRUNED = str(ROOT / 'projects/configs/VAD/VAD_nano_toy_prune0.3.py')
TOOL = 'analysis_tools/analysis_struct'
TICKETS = str(ROOT / 'projects/configs/VAD/VAD_nano_toy_rsst0.3.py')
QUICK = (
    'prune_cfg.profile.seconds=0.1',
    'prune_cfg.calibration.num_samples=4',
    'prune_cfg.calibration.recalibrate_bn=2',
)


@pytest.fixture(scope='module')
def retrained(vad_trained, run_tool, toy_root, tmp_path_factory):
    """Where two processes pruned 30 % by Taylor scores, one epoch of retraining included."""
    folder = tmp_path_factory.mktemp('pruned')
    run_tool(
        TOOL, PRUNED, vad_trained / 'epoch_3.pth', '--output-dir', folder, '--fine-tune', '--retrain',
        '--fine-tune-epochs', 1, '--gpus', 2, '--gpu-ids', 0, 1, '--launcher', 'pytorch',
        *options(toy_root, *QUICK, 'train_dataloader.batch_size=1'), ranks=2,
    )  # fmt: skip
    return folder


def test_two_processes_leave_the_documents_tree(retrained):
    expected = {
        'vad_pruned.pth', 'vad_structured_pruned.pth', 'report.json', 'summary.csv',
        'report.csv', 'report.html',
        'units.csv', 'global_group_table.csv', 'groups_to_prune.csv', 'kept_share.png',
        'metrics_params.png', 'zeros.csv',
        'retrained',
    }  # fmt: skip
    names = {path.name for path in retrained.iterdir()}
    (log,) = (name for name in names if re.fullmatch(r'\d{8}_\d{6}', name))
    assert names - {log} == expected
    inside = {path.name for path in (retrained / 'retrained').iterdir()}
    assert {'epoch_1.pth', 'latest.pth', 'VAD_nano_toy_prune0.3.py'} <= inside
    report = json.loads((retrained / 'report.json').read_text())
    assert report['environment']['world_size'] == 2
    assert report['achieved']['params'] == pytest.approx(0.3, abs=0.005)
    kinds = {g['kind'] for g in report['groups'] if g['kept'] < g['size']}
    assert {'channel', 'branch', 'mlp'} <= kinds
    assert set(report['headline']) <= set(report['recovered']['metrics'])


def test_an_ordinary_test_of_the_slim_model_gives_the_reports_metrics(
    retrained, run_tool, toy_root, tmp_path
):
    run_tool(
        'test', VAD_CONFIG, retrained / 'retrained' / 'latest.pth', '--eval', 'bbox',
        '--work-dir', tmp_path / 'work', *options(toy_root),
    )  # fmt: skip
    found = metrics_of(tmp_path / 'work')
    report = json.loads((retrained / 'report.json').read_text())['recovered']['metrics']
    assert len(report) > 60
    for name, value in report.items():
        assert found[name] == pytest.approx(value, rel=1e-5, abs=1e-8), name


@pytest.mark.slow
def test_killed_retraining_ends_like_a_whole_one(retrained, run_tool, toy_root, tmp_path):
    """Killed in the second epoch, resumed from the config that lies in its folder."""
    slim = retrained / 'vad_structured_pruned.pth'
    whole, broken = tmp_path / 'whole', tmp_path / 'broken'
    more = ('train_cfg.max_epochs=2', f'load_from={slim}')

    def arguments(folder):
        return ('--work-dir', str(folder), *options(toy_root, *more))

    run_tool('train', VAD_CONFIG, *arguments(whole))
    kill_at(r'Epoch\(train\)\s+\[2\]\[2/', 'train', VAD_CONFIG, *arguments(broken))
    assert not (broken / 'epoch_2.pth').exists()
    ended = run_tool('train', broken / 'VAD_nano_toy.py', '--resume', '--work-dir', broken)
    assert 'resumed epoch: 1' in ended.out
    one, other = weights_of(whole / 'epoch_2.pth'), weights_of(broken / 'epoch_2.pth')
    assert one.keys() == other.keys()
    for name, weight in one.items():
        assert torch.equal(weight, other[name]), name
    states = [load_file(f / 'epoch_2.pth')['meta']['prune_state'] for f in (whole, broken)]
    assert states[0] == states[1]


def test_soft_pruning_of_heads_neurons_and_channels(vad_trained, run_tool, toy_root, tmp_path):
    """Two states of an epoch; an ordinary test of the last one gives the state's metrics."""
    more = (
        'train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'param_scheduler=[]',
        'prune_cfg.schedule.rounds=1', 'prune_cfg.profile.seconds=0.1',
    )  # fmt: skip
    begin = ('--load-from', vad_trained / 'epoch_3.pth')
    ended = run_tool(
        'train', TICKETS, *begin, '--work-dir', tmp_path / 'work', *options(toy_root, *more)
    )
    assert 'planning/plan_L2_3s' in re.search('pruning state 1 done: (.*)', ended.out)[1]
    rows = json.loads((tmp_path / 'work' / 'states.json').read_text())
    assert set(rows[1]['kept']) == {'channel', 'deformable', 'attention', 'mlp'}
    for left, size in rows[1]['kept'].values():
        assert 0.6 < left / size <= 0.7
    run_tool(
        'test', VAD_CONFIG, tmp_path / 'work' / 'state_01.pth', '--eval', 'bbox',
        '--work-dir', tmp_path / 'test', *options(toy_root),
    )  # fmt: skip
    found = metrics_of(tmp_path / 'test')
    told = {name: value for name, value in rows[1]['after_removal'].items() if value is not None}
    assert len(told) > 40
    for name, value in told.items():
        assert found[name] == pytest.approx(value, rel=1e-5, abs=1e-8), name
