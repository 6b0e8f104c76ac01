"""Training after pruning: fine-tuning, retraining, resuming, on one process and on two."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from tool_runs import CONFIG, SMALL, options

BATCH, SAMPLES = 32, 256


def load(path) -> dict:
    return torch.load(path, weights_only=False)


def steps_of(checkpoint: dict) -> set[int]:
    return {int(entry['step']) for entry in checkpoint['optimizer']['state'].values()}


def epochs_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob('epoch_*.pth'))


def losses_of(folder: Path) -> list[dict]:
    """Records of training iterations in the run's JSON log."""
    (log,) = folder.glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in log.read_text().splitlines() if '"loss"' in line]


@pytest.fixture(scope='module')
def on_two_ranks(run_tool, checkpoint, tmp_path_factory):
    """A fine-tuning of two epochs by two processes."""
    out = tmp_path_factory.mktemp('two') / 'out'
    ended = run_tool(
        'analysis_struct', CONFIG, checkpoint, '--pruning-ratio', 0.4, '--output-dir', out,
        '--fine-tune', '--fine-tune-epochs', 2, '--launcher', 'pytorch',
        *options('default_hooks.logger.interval=1', 'prune_cfg.criterion.type=Taylor',
                 'prune_cfg.calibration.num_samples=40'),
        ranks=2,
    )  # fmt: skip
    return out, ended


def test_fine_tuning_on_two_ranks(on_two_ranks):
    out, ended = on_two_ranks
    assert 'launcher pytorch, world size 2' in ended.out
    assert 'weights are identical on all 2 ranks' in ended.out
    tuned = out / 'fine_tuned'
    assert epochs_in(tuned) == ['epoch_3.pth', 'epoch_4.pth']  # goes on after two dense epochs
    assert (tuned / 'latest.pth').readlink() == Path('epoch_4.pth')
    assert (tuned / 'vit_tiny_digits.py').is_file()
    assert 'fine-tuning continues after epoch 2, with optimizer state' in ended.out
    report = json.loads((out / 'report.json').read_text())
    assert report['environment']['world_size'] == 2
    assert report['recovered']['mode'] == 'fine_tune' and report['recovered']['epochs'] == 2
    assert report['recovered']['metrics']['accuracy/top1'] > 0
    last = load(tuned / 'latest.pth')
    slim = load(out / 'vit_structured_pruned.pth')
    assert last['meta']['prune_state'] == slim['meta']['prune_state']
    assert last['meta']['epoch'] == 4
    dense_steps = 2 * SAMPLES // BATCH
    assert steps_of(last) == {dense_steps + 2 * SAMPLES // BATCH // 2}


def test_the_learning_rate_is_a_tenth_after_a_short_warm_up(on_two_ranks):
    records = losses_of(on_two_ranks[0] / 'fine_tuned')
    rates = [record['lr'] for record in records]
    assert len(rates) == 8 and max(rates) <= 1e-4 * (1 + 1e-6)
    assert rates[0] == pytest.approx(1e-4)  # eight steps: a tenth of them is none
    assert rates == sorted(rates, reverse=True)


def test_one_rank_keeps_the_same_units(on_two_ranks, checkpoint, call_tool, tmp_path):
    ended = call_tool(
        'analysis_struct', CONFIG, checkpoint, '--pruning-ratio', 0.4, '--output-dir',
        tmp_path / 'out',
        *options('prune_cfg.criterion.type=Taylor', 'prune_cfg.calibration.num_samples=40'),
    )  # fmt: skip
    assert ended.code == 0, ended.out
    one, two = (
        load(folder / 'vit_structured_pruned.pth')['meta']['prune_state']['groups']
        for folder in (tmp_path / 'out', on_two_ranks[0])
    )
    assert one == two


def test_two_ranks_evaluate_like_one(on_two_ranks, run_tool, tmp_path):
    out, _ = on_two_ranks
    expected = json.loads((out / 'report.json').read_text())['recovered']['metrics']
    ended = run_tool(
        'test', CONFIG, out / 'fine_tuned' / 'latest.pth', '--eval', 'accuracy', '--launcher',
        'pytorch', '--work-dir', tmp_path / 'work', '--tmpdir', tmp_path / 'exchange',
        '--cfg-options', *SMALL, ranks=2,
    )  # fmt: skip
    assert f'accuracy/top1: {expected["accuracy/top1"]:.4f}' in ended.out


def test_retraining_starts_anew(checkpoint, call_tool, tmp_path):
    out = tmp_path / 'out'
    ended = call_tool(
        'analysis_struct', CONFIG, checkpoint, '--pruning-ratio', 0.4, '--output-dir', out,
        '--fine-tune', '--retrain', '--fine-tune-epochs', 2, '--amp',
        *options('default_hooks.logger.interval=1'),
    )  # fmt: skip
    assert ended.code == 0, ended.out
    assert epochs_in(out / 'retrained') == ['epoch_1.pth', 'epoch_2.pth']
    assert not (out / 'fine_tuned').exists()
    last = load(out / 'retrained' / 'latest.pth')
    assert last['meta']['epoch'] == 2 and steps_of(last) == {2 * SAMPLES // BATCH}
    rates = [record['lr'] for record in losses_of(out / 'retrained')]
    assert max(rates) == pytest.approx(5e-4)
    assert rates[0] == pytest.approx(2.5e-4)  # sixteen steps: one of warm-up
    report = json.loads((out / 'report.json').read_text())
    assert report['recovered']['mode'] == 'retrain'


def test_masked_weights_stay_zero_in_a_fine_tuning(checkpoint, call_tool, tmp_path):
    out = tmp_path / 'out'
    ended = call_tool(
        'analysis_struct', CONFIG, checkpoint, '--pruning-ratio', 0.5, '--output-dir', out,
        '--fine-tune', '--fine-tune-epochs', 1, *options('prune_cfg.type=WeightPruner'),
    )  # fmt: skip
    assert ended.code == 0, ended.out
    last, start = load(out / 'fine_tuned' / 'latest.pth'), load(out / 'vit_pruned.pth')
    assert last['masks'].keys() == start['masks'].keys()
    changed = False
    for name in start['masks']:
        zero = start['state_dict'][name] == 0
        assert not last['state_dict'][name][zero].any()
        changed |= not torch.equal(last['state_dict'][name], start['state_dict'][name])
    assert changed


@pytest.fixture(scope='module')
def pruning_run(run_tool, checkpoint, tmp_path_factory):
    """``tools/train.py`` with a prune_cfg, one epoch of three; and the whole run beside it."""
    base = tmp_path_factory.mktemp('train')
    recovery = ('prune_cfg.recovery.mode=retrain', 'prune_cfg.recovery.epochs=2')
    args = ('--load-from', checkpoint, *options('prune_cfg.budget.ratio=0.4', *recovery))
    config = CONFIG.replace('.py', '_prune50.py')
    run_tool('train', config, '--work-dir', base / 'whole', *args)
    return base / 'whole', config, args


def test_train_prunes_first(pruning_run):
    folder, _, _ = pruning_run
    names = {path.name for path in folder.iterdir()}
    assert {'vit_structured_pruned.pth', 'report.json', 'epoch_1.pth', 'epoch_2.pth'} <= names
    state = load(folder / 'epoch_2.pth')['meta']['prune_state']
    assert state['asked'] == {'budget': 'units', 'ratio': 0.4}
    kept = {'attention': 0, 'mlp': 0}
    for group in state['groups'].values():
        kept[group['kind']] += len(group['kept'])
    assert kept == {'attention': int(8 * 0.6), 'mlp': int(512 * 0.6)}
    report = json.loads((folder / 'report.json').read_text())
    assert report['recovered']['epochs'] == 2


def test_a_resumed_run_ends_like_the_whole_one(pruning_run, run_tool, tmp_path):
    """As if killed after the first epoch."""
    import shutil

    whole, config, args = pruning_run
    part = tmp_path / 'part'
    part.mkdir()
    for name in ('epoch_1.pth', 'vit_structured_pruned.pth', 'vit_pruned.pth', 'report.json'):
        shutil.copy(whole / name, part / name)
    (part / 'last_checkpoint').write_text(str(part / 'epoch_1.pth'))
    ended = run_tool('train', config, '--work-dir', part, '--resume', *args)
    assert re.search(r'resumed epoch: 1', ended.out)
    assert epochs_in(part) == ['epoch_1.pth', 'epoch_2.pth']
    ours, theirs = load(part / 'epoch_2.pth'), load(whole / 'epoch_2.pth')
    assert ours['meta']['prune_state'] == theirs['meta']['prune_state']
    for name, weight in theirs['state_dict'].items():
        assert torch.equal(ours['state_dict'][name], weight), name
    report = json.loads((part / 'report.json').read_text())
    assert (
        report['recovered']['metrics']
        == (json.loads((whole / 'report.json').read_text())['recovered']['metrics'])
    )


def test_training_goes_on_from_slim_and_masked_checkpoints(pruning_run, call_tool, tmp_path):
    """With the dense config: the checkpoint says what to build."""
    whole, _, _ = pruning_run
    for name, key in (('vit_structured_pruned.pth', 'prune_state'), ('vit_pruned.pth', 'masks')):
        work = tmp_path / name
        ended = call_tool(
            'train', CONFIG, '--work-dir', work, '--load-from', whole / name, '--cfg-options',
            *SMALL, 'train_cfg.max_epochs=1',
        )  # fmt: skip
        assert ended.code == 0, ended.out
        last, start = load(work / 'latest.pth'), load(whole / name)
        where = (lambda c: c['meta']) if key == 'prune_state' else (lambda c: c)
        assert where(last)[key].keys() == where(start)[key].keys()
        assert {n: w.shape for n, w in last['state_dict'].items()} == {
            n: w.shape for n, w in start['state_dict'].items()
        }


@pytest.mark.parametrize('quiet', [False, True])
def test_a_training_that_is_finished_says_so(quiet, trained, call_tool, tmp_path):
    """Also in a directory that is further than what is asked for, and with --quiet."""
    work = tmp_path / 'work'
    shutil.copytree(trained, work, symlinks=True)
    words = ('--cfg-options', *SMALL, 'train_cfg.max_epochs=1', *(['-q'] if quiet else []))
    ended = call_tool('train', CONFIG, '--work-dir', work, '--resume', *words)
    assert ended.code == 0, ended.out
    assert 'already at epoch 2 of 1: nothing to train; raise train_cfg.max_epochs' in ended.out
    said = [line for line in ended.out.splitlines() if line.startswith('next: python ')]
    assert len(said) == (not quiet) and all(f'{work}/latest.pth' in line for line in said)
