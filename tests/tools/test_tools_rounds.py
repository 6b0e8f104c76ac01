"""Pruning in rounds through the tools: files, zeros, two ranks, and kills at any moment."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from tool_runs import CONFIG, kill_at, options

from projects.prune_plugin.methods.pruners.layer_progress import LayerProgress
from projects.prune_plugin.training.hooks.mask_hook import unpack_masks

RATIOS = [0.3, 0.5, 0.6]
TINY = (
    'train_dataloader.dataset.indices=64', 'val_dataloader.dataset.indices=16',
    'test_dataloader.dataset.indices=32',
    'default_hooks.logger.interval=1',
)  # fmt: skip
RECOVERY = "recovery=dict(mode='fine_tune', epochs=2, max_steps=2)"
STEPS = f"schedule=dict(type='Steps', ratios={RATIOS}, lr_decay=0.5)"
#: Each of these changes one key of the pruning that all tests share.
VARIANTS = {
    'imp': f"sparsifier=dict(type='Magnitude'), {STEPS}, {RECOVERY}",
    'gpt': f"sparsifier=dict(type='SparseGPT'), {STEPS}, {RECOVERY}, "
    'calibration=dict(num_samples=32, batch_size=8)',
    'rewound': f"sparsifier=dict(type='Magnitude'), schedule=dict(type='Cubic', rounds=2, "
    f"rewind='initial'), budget=dict(ratio=0.6), {RECOVERY.replace('fine_tune', 'retrain')}",
    'once': f"sparsifier=dict(type='Magnitude'), budget=dict(ratio=0.6), {RECOVERY}",
}


@pytest.fixture(autouse=True)
def as_many_threads_as_in_processes():
    """Sums are rounded otherwise with another number of threads; see ``conftest.py``."""
    number = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(number)


def load(path) -> dict:
    return torch.load(path, weights_only=False)


def config(folder: Path, name: str) -> Path:
    path = folder / f'{name}_config.py'
    path.write_text(
        f"_base_ = ['{CONFIG}']\nprune_cfg = dict(type='WeightPruner', {VARIANTS[name]})\n"
    )
    return path


def args(folder: Path, name: str, start: Path, out: Path, *more) -> tuple:
    flags = (config(folder, name), start, '--output-dir', out, *more)
    return (*flags, *options(*TINY))


def train_args(folder: Path, name: str, start: Path, out: Path, *more) -> tuple:
    flags = (config(folder, name), '--load-from', start, '--work-dir', out, *more)
    return (*flags, *options(*TINY))


def rows(folder: Path) -> list[dict]:
    return json.loads((folder / 'history.json').read_text())['rows']


def assert_same_end(ours: Path, theirs: Path, name: str) -> None:
    """Bit by bit: masks and weights of every round, and what was measured."""
    assert rows(ours) == rows(theirs)
    for file in [f'round_0{n}/latest.pth' for n in (1, 2, 3)] + [
        f'{name}_pruned.pth',
        'latest.pth',
    ]:
        one, other = (load(folder / file) for folder in (ours, theirs))
        assert one['state_dict'].keys() == other['state_dict'].keys()
        for key, weight in other['state_dict'].items():
            assert torch.equal(one['state_dict'][key], weight), f'{key} of {file}'
        masks, expected = unpack_masks(one['masks']), unpack_masks(other['masks'])
        assert all(torch.equal(masks[key], mask) for key, mask in expected.items())


@pytest.fixture(scope='module')
def whole(run_tool, checkpoint, tmp_path_factory):
    """A run without a break."""
    base = tmp_path_factory.mktemp('whole')
    ended = run_tool('analysis_struct', *args(base, 'imp', checkpoint, base / 'out', '--fine-tune'))
    return base / 'out', ended


def test_rounds_and_their_files(whole, checkpoint, call_tool, tmp_path):
    out, ended = whole
    for number, ratio in enumerate(RATIOS, 1):
        assert f'pruning state {number} of 3: ratio {ratio}' in ended.out
    assert '3 of 3 done' in ended.out and 'against dense' in ended.out
    names = {path.name for path in out.iterdir()}
    assert {'imp_pruned.pth', 'latest.pth', 'history.csv', 'history.json', 'history.png',
            'report.html', 'report.json', 'round_01', 'round_02', 'round_03'} <= names  # fmt: skip
    report = json.loads((out / 'report.json').read_text())
    assert report['rounds'] == rows(out) and len(report['rounds']) == 3
    last = report['rounds'][-1]
    assert report['pruned']['metrics'] == last['after_prune']
    assert report['recovered']['metrics'] == last['after_training']
    assert report['recovered']['zeros'] == report['achieved']['zeros'] == last['sparsity']
    with open(out / 'history.csv') as file:
        table = list(csv.DictReader(file))
    assert [float(line['ratio']) for line in table] == RATIOS
    assert torch.equal(
        *(load(path)['state_dict']['backbone.head.weight']
          for path in (out / 'imp_pruned.pth', out / 'round_03' / 'imp_pruned.pth'))
    )  # fmt: skip
    ended = call_tool('test', config(tmp_path, 'imp'), out / 'round_02' / 'latest.pth',
                      '--work-dir', tmp_path / 'work', *options(*TINY))  # fmt: skip
    assert ended.code == 0, ended.out
    expected = report['rounds'][1]['after_training']['accuracy/top1']
    assert f'accuracy/top1: {expected:.4f}' in ended.out


def test_sparsity_is_exactly_kept_and_masks_only_shrink(whole, checkpoint):
    out, _ = whole
    before = None
    for number, ratio in enumerate(RATIOS, 1):
        pruned, trained = (
            load(out / f'round_0{number}' / name) for name in ('imp_pruned.pth', 'latest.pth')
        )
        masks, kept = unpack_masks(pruned['masks']), unpack_masks(trained['masks'])
        for name, keep in masks.items():
            assert int((~keep).sum()) == round(ratio * keep.numel())
            assert torch.equal(keep, kept[name])
            assert not trained['state_dict'][name][~keep].any()
            assert int((trained['state_dict'][name] == 0).sum()) == round(ratio * keep.numel())
            assert not torch.equal(trained['state_dict'][name], pruned['state_dict'][name])
            assert before is None or not (keep & ~before[name]).any()
        before = masks
        total = sum(keep.numel() for keep in masks.values())
        assert rows(out)[number - 1]['sparsity'] == pytest.approx(ratio, abs=10 / total)


def test_each_round_has_a_fresh_optimizer_and_less_learning_rate(whole):
    """Epochs are counted on, so that no two rounds see the data in the same order."""
    out, _ = whole
    rates = []
    for number in (1, 2, 3):
        (log,) = (out / f'round_0{number}').glob('*/vis_data/scalars.json')
        found = [json.loads(line) for line in log.read_text().splitlines() if '"loss"' in line]
        assert len(found) == 2 * 2  # epochs x max_steps
        rates.append(found[0]['lr'])
        last = load(out / f'round_0{number}' / 'latest.pth')
        assert last['meta']['epoch'] == 2 + 2 * number
        assert ('optimizer' in last) == (number == 3)
    assert rates == pytest.approx([rates[0], rates[0] / 2, rates[0] / 4])
    steps = {int(entry['step']) for entry in last['optimizer']['state'].values()}
    assert steps == {4}


def test_killed_and_resumed_it_ends_like_the_whole_run(whole, checkpoint, call_tool, tmp_path):
    """In the second round's training, while its first checkpoint is written."""
    run = args(tmp_path, 'imp', checkpoint, tmp_path / 'out', '--fine-tune', '--resume')
    kill_at('Saving checkpoint at 5 epochs', 'analysis_struct', *run)
    assert len(rows(tmp_path / 'out')) == 2 and not rows(tmp_path / 'out')[1]['complete']
    ended = call_tool('analysis_struct', *run)
    assert ended.code == 0, ended.out
    assert 'going on after 1 of 3 rounds' in ended.out and 'pruning state 2 of' not in ended.out
    assert_same_end(tmp_path / 'out', whole[0], 'imp')


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def test_train_does_the_same_and_goes_on_from_any_state(whole, checkpoint, call_tool, tmp_path):
    """States in which a kill may leave the folder, one after the other."""
    out = tmp_path / 'out'
    ended = call_tool('train', *train_args(tmp_path, 'imp', checkpoint, out))
    assert ended.code == 0, ended.out
    assert_same_end(out, whole[0], 'imp')

    def resume() -> str:
        ended = call_tool('train', *train_args(tmp_path, 'imp', checkpoint, out, '--resume'))
        assert ended.code == 0, ended.out
        assert_same_end(out, whole[0], 'imp')
        return ended.out

    said = resume()  # nothing is left to do
    assert 'pruning state' not in said and '3 of 3 done' in said

    history = json.loads((out / 'history.json').read_text())
    history['rows'][2] |= dict(complete=False, after_training=None, checkpoint='')
    (out / 'history.json').write_text(json.dumps(history))
    (out / 'round_03' / 'last_checkpoint').write_text('')
    (out / 'round_03' / 'latest.pth').unlink()
    assert 'resumed epoch: 8' in resume()  # trained, but not evaluated

    (out / 'history.json').write_text(json.dumps(history))
    cut(out / 'round_03' / 'epoch_8.pth')  # while it was written
    (out / 'round_03' / 'last_checkpoint').write_text('')
    (out / 'round_03' / 'latest.pth').unlink()
    assert 'resumed epoch: 7' in resume()

    history[
        'rows'
    ].pop()  # after the round's file, before its row; rubbish of an older run lies about
    (out / 'history.json').write_text(json.dumps(history))
    shutil.copy(out / 'round_02' / 'latest.pth', out / 'round_03' / 'epoch_99.pth')
    said = resume()
    assert 'pruning state 3 of 3' in said and 'pruning state 2 of 3' not in said
    assert not (out / 'round_03' / 'epoch_99.pth').exists()


def test_two_ranks_make_the_same_masks(whole, checkpoint, run_tool, tmp_path):
    out = tmp_path / 'out'
    run_tool('analysis_struct', *args(tmp_path, 'imp', checkpoint, out, '--fine-tune', '--launcher',
                                      'pytorch'), ranks=2)  # fmt: skip
    for number in (1, 2, 3):
        trained = load(out / f'round_0{number}' / 'latest.pth')
        pruned = load(out / f'round_0{number}' / 'imp_pruned.pth')
        for name, keep in unpack_masks(pruned['masks']).items():
            assert torch.equal(keep, unpack_masks(trained['masks'])[name])
            assert not trained['state_dict'][name][~keep].any()
    first, expected = (load(folder / 'round_01/imp_pruned.pth') for folder in (out, whole[0]))
    for name, mask in unpack_masks(expected['masks']).items():
        assert torch.equal(unpack_masks(first['masks'])[name], mask)
    assert [row['sparsity'] for row in rows(out)] == [row['sparsity'] for row in rows(whole[0])]


class Killed(BaseException):
    """In the place of SIGKILL: nothing catches it."""


def stop_after(monkeypatch, layers: int) -> None:
    save, count = LayerProgress.save, iter(range(layers))

    def limited(self, *args):
        save(self, *args)
        if next(count, None) is None:
            raise Killed

    monkeypatch.setattr(LayerProgress, 'save', limited)


def test_sparsegpt_in_steps_without_training_resumes_in_the_middle(
    checkpoint, call_tool, tmp_path, monkeypatch
):
    """Each step prunes what the last one left."""
    whole, part = tmp_path / 'whole', tmp_path / 'part'
    ended = call_tool('analysis_struct', *args(tmp_path, 'gpt', checkpoint, whole))
    assert ended.code == 0, ended.out
    assert [row['after_training'] for row in rows(whole)] == [None] * 3
    with monkeypatch.context() as patch:
        stop_after(patch, 13)  # of ten a round
        with pytest.raises(Killed):
            call_tool('analysis_struct', *args(tmp_path, 'gpt', checkpoint, part))
    assert len(rows(part)) == 1 and len(list(part.glob('round_02/progress/*.pth'))) >= 1
    ended = call_tool('analysis_struct', *args(tmp_path, 'gpt', checkpoint, part, '--resume'))
    assert ended.code == 0, ended.out
    assert rows(part) == rows(whole)
    for number in (1, 2, 3):
        name = f'round_0{number}/gpt_pruned.pth'
        one, other = load(part / name), load(whole / name)
        for key, weight in other['state_dict'].items():
            assert torch.equal(one['state_dict'][key], weight)
    assert not list(part.glob('round_*/progress'))


def test_rewinding_starts_each_training_from_the_dense_weights(checkpoint, call_tool, tmp_path):
    out = tmp_path / 'out'
    ended = call_tool('train', *train_args(tmp_path, 'rewound', checkpoint, out))
    assert ended.code == 0, ended.out
    start = load(checkpoint)['state_dict']
    for number in (1, 2):
        pruned = load(out / f'round_0{number}' / 'rewound_pruned.pth')
        masks = unpack_masks(pruned['masks'])
        for name, weight in pruned['state_dict'].items():
            keep = masks.get(name, torch.ones_like(weight, dtype=torch.bool))
            assert torch.equal(weight, start[name] * keep)
    assert [round(row['ratio'], 6) for row in rows(out)] == [0.6 * (1 - 0.5**3), 0.6]


def test_one_round_is_resumed_too(checkpoint, call_tool, tmp_path):
    """Its pruning is repeated, its training goes on."""
    whole, out = tmp_path / 'whole', tmp_path / 'out'
    assert (
        call_tool('analysis_struct', *args(tmp_path, 'once', checkpoint, whole, '--fine-tune')).code
        == 0
    )
    shutil.copytree(whole, out)
    (out / 'fine_tuned' / 'epoch_4.pth').unlink()
    (out / 'fine_tuned' / 'latest.pth').unlink()
    run = args(tmp_path, 'once', checkpoint, out, '--fine-tune', '--resume')
    ended = call_tool('analysis_struct', *run)
    assert ended.code == 0, ended.out
    assert 'resumed epoch: 3' in ended.out
    one, other = (load(f / 'fine_tuned' / 'latest.pth')['state_dict'] for f in (out, whole))
    assert all(torch.equal(one[name], weight) for name, weight in other.items())


@pytest.mark.parametrize(
    ('tool', 'flags', 'more', 'message'),
    [
        ('analysis_struct', ('--resume',), ('prune_cfg.type=StructuredPruner',),
         "--resume goes with a WeightPruner, but prune_cfg.type is 'StructuredPruner'"),
        ('analysis_struct', ('--resume', '--dry-run'), (), '--dry-run leaves nothing to resume'),
        ('analysis_struct', ('--resume', '--sensitivity'), (), '--resume does not go with'),
        ('analysis_struct', ('--pruning-ratio', '0.5'), (), "but the budget's ratio is 0.5"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(
    tool, flags, more, message, checkpoint, call_tool, tmp_path
):
    name = CONFIG.replace('.py', '_prune50.py') if more else config(tmp_path, 'imp')
    ended = call_tool(
        tool, name, checkpoint, '--output-dir', tmp_path / 'out', *flags, *options(*more)
    )
    assert ended.code == 2 and message in ended.errors[-1], ended.out
    assert not (tmp_path / 'out').exists()


def test_resuming_refuses_a_name_and_another_run(whole, checkpoint, call_tool, tmp_path):
    out = tmp_path / 'out'
    shutil.copytree(whole[0], out)
    state = (out / 'history.json').read_bytes()
    ended = call_tool(
        'train', *train_args(tmp_path, 'imp', checkpoint, out, '--resume', checkpoint)
    )
    assert ended.code == 2 and 'give --resume without a name' in ended.errors[-1], ended.out
    other = torch.load(checkpoint, weights_only=False)
    next(iter(other['state_dict'].values())).add_(1)
    torch.save(other, tmp_path / 'other.pth')
    ended = call_tool(
        'train', *train_args(tmp_path, 'imp', tmp_path / 'other.pth', out, '--resume')
    )
    assert ended.code == 2 and 'of a run with another checkpoint' in ended.errors[-1], ended.out
    assert (out / 'history.json').read_bytes() == state
