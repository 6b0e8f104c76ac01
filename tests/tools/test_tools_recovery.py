"""Recovery through the tools: distillation, which model is trained, batch norms, ranks that die."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tool_runs import CONFIG, ROOT, SMALL, options

LOG_ALL = 'default_hooks.logger.interval=1'
DISTILL = 'prune_cfg.recovery.distill.targets=None'
#: A hook for a config: at the end of the second epoch's first step, rank 1 dies.
DIE = """
import os, signal
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class DieHook(Hook):
    def __init__(self, how):
        self.how = how

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.epoch == 1 and runner.rank == 1:
            print('DYING', flush=True)
            if self.how == 'raise':
                raise ValueError('the disk is full')
            os.kill(os.getpid(), signal.SIGKILL)
"""


def child(folder: Path, text: str, base: str = CONFIG) -> Path:
    """A config that changes another one."""
    path = folder / 'vit_child.py'
    path.write_text(f"_base_ = ['{base}']\n{text}\n")
    return path


def load(path) -> dict:
    return torch.load(path, weights_only=False)


def records(folder: Path) -> list[dict]:
    """Training iterations in the run's JSON log."""
    (log,) = folder.glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in log.read_text().splitlines() if '"loss"' in line]


@pytest.fixture(scope='module')
def distilled(run_tool, checkpoint, tmp_path_factory):
    """A retraining with distillation on two processes."""
    out = tmp_path_factory.mktemp('distilled') / 'out'
    ended = run_tool(
        'analysis_tools/analysis_struct', CONFIG, checkpoint, '--pruning-ratio', 0.4,
        '--output-dir', out, '--fine-tune', '--retrain', '--fine-tune-epochs', 2, '--gpus', 2,
        '--gpu-ids', 0, 1, '--launcher', 'pytorch', *options(LOG_ALL, DISTILL), ranks=2,
    )  # fmt: skip
    return out / 'retrained', ended


def test_distillation_on_two_ranks(distilled, checkpoint):
    folder, ended = distilled
    assert 'weights are identical on all 2 ranks' in ended.out
    assert all(r['loss_distill_logits'] > 0 for r in records(folder))
    last, dense = load(folder / 'latest.pth'), load(checkpoint)
    assert last['state_dict'].keys() == dense['state_dict'].keys()
    assert len(last['optimizer']['state']) == len(dense['optimizer']['state'])


def test_a_distillation_is_resumed_from_its_own_config(distilled, call_tool, tmp_path):
    """On one process, in another folder, from the first epoch: the teacher is found again."""
    folder, _ = distilled
    ended = call_tool(
        'train', folder / 'vit_tiny_digits.py', '--work-dir', tmp_path / 'on', '--resume',
        folder / 'epoch_1.pth',
    )  # fmt: skip
    assert ended.code == 0, ended.out
    found = records(tmp_path / 'on')
    assert len(found) == 8 and all(r['loss_distill_logits'] > 0 for r in found)
    assert (tmp_path / 'on' / 'epoch_2.pth').is_file()


def test_a_recovery_gone_on_with_is_reported(distilled, call_tool):
    """As after a kill in the second epoch: the pruning's report gets what the training made of it."""
    folder, _ = distilled
    whole = json.loads((folder.parent / 'report.json').read_text())
    cut = {key: value for key, value in whole.items() if key != 'recovered'}
    (folder.parent / 'report.json').write_text(json.dumps(cut))
    for name in ('epoch_2.pth', 'latest.pth'):
        (folder / name).unlink()
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_1.pth'))
    ended = call_tool('train', folder / 'vit_tiny_digits.py', '--work-dir', folder, '--resume')
    assert ended.code == 0, ended.out
    assert 'resumed epoch: 1' in ended.out
    report = json.loads((folder.parent / 'report.json').read_text())
    recovered, before = report['recovered'], whole['recovered']
    assert recovered.keys() == before.keys()
    same = ('params', 'flops', 'mode', 'epochs', 'checkpoint', 'trained', 'zeros')
    assert {key: recovered[key] for key in same} == {key: before[key] for key in same}
    assert recovered['metrics'].keys() == before['metrics'].keys()
    assert 'recovered' in (folder.parent / 'summary.csv').read_text()
    assert 'accuracy/top1' in ended.out.partition('recovered')[2]


def test_train_distils_what_it_pruned_and_resumes(checkpoint, call_tool, tmp_path):
    target = "dict(module='backbone.head', loss='l1', name='own')"
    config = child(
        tmp_path,
        f'prune_cfg = dict(recovery=dict(epochs=2, distill=dict(targets=[{target}])))',
        CONFIG.replace('.py', '_prune50.py'),
    )
    ended = call_tool(
        'train', config, '--work-dir', tmp_path / 'work', '--load-from', checkpoint,
        *options(LOG_ALL),
    )  # fmt: skip
    assert ended.code == 0, ended.out
    whole, part = tmp_path / 'work', tmp_path / 'part'
    assert all(r['loss_distill_own'] > 0 for r in records(whole))
    part.mkdir()  # as if killed after the first epoch
    for name in ('epoch_3.pth', 'vit_structured_pruned.pth', 'vit_pruned.pth', 'report.json'):
        shutil.copy(whole / name, part / name)
    ended = call_tool(
        'train', config, '--work-dir', part, '--resume', part / 'epoch_3.pth', *options(LOG_ALL)
    )
    assert ended.code == 0, ended.out
    assert len(records(part)) == 8 and all(r['loss_distill_own'] > 0 for r in records(part))
    ours, theirs = (load(folder / 'epoch_4.pth')['state_dict'] for folder in (part, whole))
    assert all(torch.equal(ours[name], weight) for name, weight in theirs.items())


@pytest.mark.parametrize(
    ('tool', 'args', 'message'),
    [
        (
            'analysis_struct',
            (),
            'distill needs a trained dense model as teacher; give a checkpoint',
        ),
        ('train', (), 'distill needs a trained dense model as teacher; give a checkpoint'),
    ],
)
def test_distillation_needs_a_teacher(tool, args, message, call_tool, tmp_path):
    out = tmp_path / 'out'
    where = (
        ('--output-dir', out, '--fine-tune') if tool == 'analysis_struct' else ('--work-dir', out)
    )
    config = CONFIG.replace('.py', '_prune50.py')
    ended = call_tool(tool, config, *where, *options(DISTILL))
    assert ended.code == 2 and message in ended.errors[-1]
    assert not out.exists()


def test_a_target_that_is_not_there_shows_before_anything_is_written(
    checkpoint, call_tool, tmp_path
):
    block = "prune_cfg = dict(recovery=dict(distill=dict(targets=[dict(module='neck')])))"
    ended = call_tool(
        'analysis_struct', child(tmp_path, block), checkpoint, '--output-dir', tmp_path / 'out',
        '--fine-tune', *options(),
    )  # fmt: skip
    assert ended.code == 2, ended.out
    assert "targets[0].module: the model has no module 'neck'" in ended.errors[-1]
    assert not (tmp_path / 'out').exists()


def test_the_unstructured_model_is_trained_when_asked(checkpoint, call_tool, tmp_path):
    """In mixed precision, with an EMA, accumulation and clipping, its zeros stay zeros."""
    out = tmp_path / 'out'
    config = child(
        tmp_path,
        "custom_hooks = [dict(type='EMAHook')]\n"
        'optim_wrapper = dict(accumulative_counts=2, clip_grad=dict(max_norm=0.5))',
    )
    ended = call_tool(
        'analysis_struct', config, checkpoint, '--pruning-ratio', 0.5, '--output-dir', out,
        '--fine-tune', '--fine-tune-epochs', 1, '--train', 'unstructured', '--amp', *options(),
    )  # fmt: skip
    assert ended.code == 0, ended.out
    report = json.loads((out / 'report.json').read_text())
    start, last = load(out / 'vit_pruned.pth'), load(out / 'fine_tuned' / 'latest.pth')
    zeros = total = 0
    for name in start['masks']:
        gone = start['state_dict'][name] == 0
        for key in ('state_dict', 'ema_state_dict'):
            weights = {k.removeprefix('module.'): v for k, v in last[key].items()}
            assert not weights[name][gone].any(), f'{name} in {key}'
            assert not torch.equal(weights[name], start['state_dict'][name])
        zeros, total = zeros + int(gone.sum()), total + gone.numel()
    assert 'prune_state' not in last['meta'] and last['meta']['epoch'] == 3
    dense, recovered = report['dense'], report['recovered']
    assert recovered['trained'] == 'unstructured'
    assert recovered['zeros'] == pytest.approx(zeros / total) == pytest.approx(0.5, abs=1e-3)
    assert report['masked']['zeros'] == recovered['zeros']
    for stage in ('masked', 'recovered'):
        assert [report[stage][k] for k in ('params', 'flops')] == [
            dense[k] for k in ('params', 'flops')
        ]
    assert report['pruned']['params'] < dense['params']
    page = (out / 'report.html').read_text(encoding='utf-8')  # written again after the training
    for stage in ('masked', 'recovered'):
        assert re.search(rf'<th scope="col"[^>]*>\s*{stage}\s*</th>', page)
    assert report['masked']['metrics'] != report['pruned']['metrics']
    table = [line.split() for line in ended.out.splitlines() if 'attention units' in line]
    assert len(table) == 1 and table[0].count('8') == 3  # dense, masked and recovered have all


def test_the_structured_model_is_trained_when_asked(checkpoint, call_tool, tmp_path):
    out = tmp_path / 'out'
    ended = call_tool(
        'analysis_struct', CONFIG, checkpoint, '--pruning-ratio', 0.5, '--output-dir', out,
        '--fine-tune', '--fine-tune-epochs', 1, '--train', 'structured', *options(),
    )  # fmt: skip
    assert ended.code == 0, ended.out
    report = json.loads((out / 'report.json').read_text())
    assert report['recovered']['trained'] == 'structured' and 'masked' not in report
    assert report['recovered']['zeros'] is None
    assert report['recovered']['params'] == report['pruned']['params']


@pytest.mark.parametrize(
    ('args', 'more', 'message'),
    [
        (('--train', 'structured', '--fine-tune'), ('prune_cfg.type=WeightPruner',),
         '--train structured: a WeightPruner makes no structured model'),
        (('--train', 'unstructured'), (), '--train goes with --fine-tune'),
        (('--train', 'dense', '--fine-tune'), (), "invalid choice: 'dense'"),
    ],
)  # fmt: skip
def test_bad_choices_are_named(args, more, message, checkpoint, call_tool, tmp_path):
    out = tmp_path / 'out'
    ended = call_tool('analysis_struct', CONFIG, checkpoint, '--output-dir', out, *args,
                      *options(*more))  # fmt: skip
    assert ended.code == 2 and message in ended.errors[-1]
    assert not out.exists()


def test_train_keeps_the_zeros_of_a_weight_level_checkpoint(checkpoint, call_tool, tmp_path):
    out = tmp_path / 'out'
    config = (CONFIG, checkpoint, '--pruning-ratio', 0.5, '--output-dir', out)
    assert call_tool('analysis_struct', *config, *options('prune_cfg.type=WeightPruner')).code == 0
    start = load(out / 'vit_pruned.pth')
    ended = call_tool(
        'train', CONFIG, '--work-dir', tmp_path / 'work', '--load-from', out / 'vit_pruned.pth',
        '--cfg-options', *SMALL, 'train_cfg.max_epochs=1',
    )  # fmt: skip
    assert ended.code == 0, ended.out
    last = load(tmp_path / 'work' / 'latest.pth')
    for name in start['masks']:
        assert not last['state_dict'][name][start['state_dict'][name] == 0].any()
        assert not torch.equal(last['state_dict'][name], start['state_dict'][name])


def wait_for(ended: list[subprocess.Popen], limit: float) -> float:
    """Seconds until all have ended."""
    start = time.monotonic()
    try:
        for process in ended:
            process.wait(max(0.1, limit - (time.monotonic() - start)))
    finally:
        for process in ended:
            if process.poll() is None:
                process.kill()
    return time.monotonic() - start


@pytest.mark.parametrize('how', ['kill', 'raise'])
def test_a_rank_that_dies_ends_the_others(how, tmp_path):
    """Started as by slurm: no launcher watches over the two processes."""
    (tmp_path / 'die.py').write_text(DIE)
    imports = "custom_imports = dict(imports=['projects.vit', 'die'])"
    hooks = f"custom_hooks = [dict(type='DieHook', how='{how}')]"
    config = str(child(tmp_path, f'{imports}\n{hooks}'))
    outputs = [tmp_path / f'{rank}.txt' for rank in range(2)]
    processes = []
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    for rank, output in enumerate(outputs):
        env = dict(
            os.environ, SLURM_PROCID=str(rank), SLURM_NTASKS='2', SLURM_LOCALID=str(rank),
            MASTER_PORT=port, OMP_NUM_THREADS='1', PYTHONPATH=str(tmp_path),
        )  # fmt: skip
        command = [
            sys.executable, str(ROOT / 'tools/train.py'), config, '--work-dir', str(tmp_path / 'w'),
            '--launcher', 'slurm', '--cfg-options', *SMALL, 'train_cfg.max_epochs=999',
        ]  # fmt: skip
        with open(output, 'w') as file:
            processes.append(subprocess.Popen(command, stdout=file, stderr=file, env=env))
    start = time.monotonic()
    while 'DYING' not in outputs[1].read_text():
        if (
            any(process.poll() is not None for process in processes)
            or time.monotonic() - start > 120
        ):
            wait_for(processes, 0)
            pytest.fail('\n'.join(output.read_text()[-2000:] for output in outputs))
        time.sleep(0.1)
    seconds = wait_for(processes, 60)
    survivor, dead = (output.read_text() for output in outputs)
    assert seconds < 60
    assert [p.returncode for p in processes] == [1, -signal.SIGKILL if how == 'kill' else 1]
    sentence = 'error: rank 0 of 2 exits because another rank was lost'
    assert sentence in survivor and '--resume' in survivor
    assert 'Traceback' not in survivor.partition(sentence)[2]
    if how == 'raise':
        assert 'ValueError: the disk is full' in dead
    assert re.search(r'epoch_1.pth', ' '.join(os.listdir(tmp_path / 'w')))
