"""What people's configs, checkpoints and data sets look like, and that the tools take them."""

import csv
import json

import pytest
import torch
from tool_runs import CONFIG, QUICK, SMALL, options

from projects.prune_plugin.checkpoints.checkpoint_file import load_file
from projects.prune_plugin.common.directory_lock import locked

TRAINED = ('--fine-tune', '--fine-tune-epochs', 1)


@pytest.fixture
def prune(call_tool, checkpoint, tmp_path):
    """``prune(*args, config=..., extra=...)``: the report and what was printed."""

    def run(*args, config=CONFIG, given=checkpoint, extra=(), code=0):
        out = tmp_path / 'out'
        words = [config, *([given] if given else []), '--output-dir', out, *args]
        ended = call_tool('analysis_struct', *words, *options(*extra))
        assert ended.code == code, ended.out[-3000:]
        return json.loads((out / 'report.json').read_text()) if not code else None, ended, out

    return run


@pytest.mark.parametrize(
    'optimizer',
    [
        "dict(_delete_=True,type='Adagrad',lr=0.01)",
        "dict(_delete_=True,type='SGD',lr=0.01,momentum=0.9)",
    ],
)
def test_another_optimizer_than_the_checkpoint_s(prune, tmp_path, optimizer):
    config = tmp_path / 'own.py'
    config.write_text(f"_base_ = '{CONFIG}'\noptim_wrapper = dict(optimizer={optimizer})\n")
    report, ended, _ = prune(*TRAINED, config=config)
    assert report['recovered']['epochs'] == 1
    assert 'optimizer state is left out: it holds' in ended.out


def test_the_optimizer_s_own_learning_rate(prune, tmp_path):
    config = tmp_path / 'own.py'
    config.write_text(
        f"_base_ = '{CONFIG}'\noptim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW'))\n"
    )
    report, *_ = prune(*TRAINED, config=config)
    assert report['recovered']['metrics']


def test_a_config_of_mixed_precision_where_nothing_is_trained(prune, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    report, *_ = prune(
        extra=('optim_wrapper.type=AmpOptimWrapper', 'optim_wrapper.loss_scale=dynamic')
    )
    assert report['pruned']['params'] < report['dense']['params']


@pytest.mark.parametrize(
    'dataset',
    [
        "dict(type='RepeatDataset', times=2, dataset=dict(type='Digits', indices=64))",
        "dict(type='ConcatDataset', datasets=[dict(type='Digits', indices=n) for n in (40, 24)])",
        "dict(type='ClassBalancedDataset', oversample_thr=0.2, dataset=dict(type='Digits', indices=64))",
    ],
)
def test_wrapped_data_sets(call_tool, checkpoint, tmp_path, dataset):
    config = tmp_path / 'own.py'
    dataset = dataset.replace('dict(', 'dict(_delete_=True, ', 1)
    config.write_text(
        f"_base_ = '{CONFIG}'\ntrain_dataloader = dict(dataset={dataset})\n"
        "prune_cfg = dict(criterion=dict(type='Taylor'))\n"
    )
    model = [word for word in SMALL if not word.startswith('train_dataloader')]
    ended = call_tool(
        'analysis_struct', config, checkpoint, '--output-dir', tmp_path / 'out', *TRAINED,
        '--cfg-options', *model, *QUICK,
    )  # fmt: skip
    assert ended.code == 0, ended.out[-3000:]


def test_a_hook_that_never_saves(prune):
    hook = 'default_hooks.checkpoint'
    report, _, out = prune(*TRAINED, extra=(f'{hook}.interval=10', f'{hook}.save_last=False'))
    assert report['recovered'] and (out / 'fine_tuned/latest.pth').exists()


def test_load_from_is_what_is_pruned(prune, checkpoint):
    report, *_ = prune(given=None, extra=(f'load_from={checkpoint}',))
    assert report['checkpoint'] == str(checkpoint)
    report, ended, _ = prune('--random-weights', given=None, extra=(f'load_from={checkpoint}',))
    assert report['checkpoint'] is None and 'freshly initialised' in ended.out


def test_fewer_samples_than_asked_for_are_counted(prune):
    _, ended, _ = prune(
        extra=('train_dataloader.dataset.indices=3', "prune_cfg.criterion=dict(type='Taylor')")
    )
    assert 'num_samples is 128, but the training data holds 3: all of them are used' in ended.out


def test_dicts_on_the_command_line(prune):
    report, *_ = prune(
        extra=("prune_cfg.units=[dict(type='AttentionHeads'),{'type': 'FFNNeurons'}]",)
    )
    assert {group['kind'] for group in report['groups']} == {'attention', 'mlp'}


def test_a_pruning_leaves_its_log_and_its_config(prune):
    _, _, out = prune()
    (folder,) = [path for path in out.iterdir() if path.is_dir()]
    (log,) = folder.glob('*.log')
    text = log.read_text()
    assert 'world size 1' in text and 'pruned: accuracy' in text and 'DEBUG' not in text
    assert (folder / 'vit_tiny_digits.py').exists()


def test_zeros_by_weight(prune):
    report, _, out = prune(extra=('prune_cfg.type=WeightPruner',))
    weights = load_file(next(out.glob('*_pruned.pth')))['state_dict']
    assert len(report['weights']) > 4
    for row in report['weights']:
        assert row['zeros'] == int((weights[row['name']] == 0).sum())
        assert row['shape'] == list(weights[row['name']].shape)
    with open(out / 'zeros.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert [int(row['zeros']) for row in rows] == [row['zeros'] for row in report['weights']]
    assert 'zeros of' in (out / 'report.html').read_text()


def test_a_directory_in_use(prune, tmp_path):
    """By another process: test_directory_lock.py; here only that the tool asks."""
    import subprocess
    import sys

    (tmp_path / 'out').mkdir()
    code = (
        'import sys\nfrom projects.prune_plugin.common.directory_lock import locked\n'
        'with locked(sys.argv[1]):\n    print(1, flush=True)\n    sys.stdin.read()\n'
    )
    from tool_runs import ROOT

    holder = subprocess.Popen(
        [sys.executable, '-c', code, tmp_path / 'out'], cwd=ROOT,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert holder.stdout.readline() == '1\n'
        _, ended, out = prune(code=2)
        assert 'is in use by another run' in ended.errors[0]
        assert not list(out.iterdir())
    finally:
        holder.communicate()
    with locked(tmp_path / 'out'):
        pass


LAZY = """
from mmengine.config import read_base
from mmengine.dataset import DefaultSampler, default_collate
from mmengine.hooks import CheckpointHook
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, TestLoop, ValLoop
from torch.optim import AdamW

from projects.vit.datasets.digits import Digits
from projects.vit.evaluation import Accuracy
from projects.vit.models import ImageClsPreprocessor, TimmClassifier

model = dict(
    type=TimmClassifier, arch='vit_tiny_patch16_224', num_classes=10,
    model_kwargs=dict(img_size=32, patch_size=8, in_chans=1, embed_dim=64, depth=2, num_heads=4),
    data_preprocessor=dict(type=ImageClsPreprocessor, mean=[0.2988], std=[0.3237]),
)
train_dataloader = dict(
    batch_size=64, sampler=dict(type=DefaultSampler, shuffle=True),
    collate_fn=dict(type=default_collate), dataset=dict(type=Digits, indices=128),
)
val_dataloader = dict(
    batch_size=64, sampler=dict(type=DefaultSampler, shuffle=False),
    collate_fn=dict(type=default_collate), dataset=dict(type=Digits, split='test', indices=64),
)
test_dataloader = val_dataloader
val_evaluator = dict(type=Accuracy)
test_evaluator = val_evaluator
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=1)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=AdamW, lr=1e-3))
default_hooks = dict(checkpoint=dict(type=CheckpointHook, interval=1))
"""


def test_a_pure_python_config(call_tool, checkpoint, tmp_path):
    config, out = tmp_path / 'lazy.py', tmp_path / 'out'
    config.write_text(LAZY)
    quick = ('--cfg-options', *QUICK)
    ended = call_tool('analysis_struct', config, checkpoint, '--output-dir', out, *TRAINED, *quick)
    assert ended.code == 0, ended.out[-3000:]
    slim = out / 'lazy_structured_pruned.pth'
    ended = call_tool('compare', config, checkpoint, slim, '--out', tmp_path / 'compared')
    assert ended.code == 0, ended.out[-3000:]
    ended = call_tool('test', config, slim, '--eval', 'accuracy', '--work-dir', tmp_path / 'work')
    assert ended.code == 0, ended.out[-3000:]
