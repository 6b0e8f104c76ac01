"""Recovery by adapters and by few steps, through the tools."""

import json

import pytest
import torch
from tool_runs import CONFIG, options

pytest.importorskip('peft')
RECOVERY = 'dict(epochs=2, max_steps=3, lora=dict(r=2, lr=1e-3, targets=["backbone.blocks"]))'


@pytest.mark.parametrize('kind', ['StructuredPruner', 'WeightPruner'])
def test_train_prunes_and_trains_adapters(kind, checkpoint, call_tool, tmp_path):
    config = tmp_path / 'child.py'
    base = CONFIG.replace('.py', '_prune50.py')
    config.write_text(f'_base_ = ["{base}"]\nprune_cfg = dict(recovery={RECOVERY})\n')
    work = tmp_path / 'work'
    changes = options('default_hooks.logger.interval=1')
    if kind == 'WeightPruner':
        config.write_text(
            f'_base_ = ["{CONFIG}"]\nprune_cfg = dict(type="WeightPruner", recovery={RECOVERY}, '
            'budget=dict(type="weights", ratio=0.5))\n'
        )
    ended = call_tool('train', config, '--work-dir', work, '--load-from', checkpoint, *changes)
    assert ended.code == 0, ended.out
    report = json.loads((work / 'report.json').read_text())
    last = torch.load(work / 'latest.pth', weights_only=False)
    assert not any('lora' in name for name in last['state_dict'])
    assert all(name.startswith('backbone.blocks') for name in last['lora']['base'])
    (log,) = work.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in log.read_text().splitlines() if '"loss"' in line]
    assert [line['step'] for line in lines] == [7, 8, 9, 10, 11, 12]
    if kind == 'WeightPruner':
        assert report['recovered']['zeros'] == pytest.approx(0.5, abs=1e-3)
    tested = call_tool('test', CONFIG, work / 'latest.pth', *changes[: len(changes)])
    assert tested.code == 0, tested.out
