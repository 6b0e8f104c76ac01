"""The comparison with torch-pruning: equal parameters, honest failures, and what a short run writes."""

import copy
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tools' / 'benchmarks'))
import parts  # noqa: E402
import side_tables  # noqa: E402
from sides import measure, tasks  # noqa: E402


class TinyVit(tasks.Vit):
    """Two blocks, hardly trained, everything else as in the benchmark."""

    ratio = 0.4
    seeds = (3,)
    dense_steps, tune_steps, repeats = 8, 2, 1
    samples, batch = 16, 8
    latency_seconds = 0.2

    def __init__(self, folder: Path):
        self.folder = folder

    def build(self):
        import timm

        return timm.create_model(
            'vit_tiny_patch16_224', num_classes=10, img_size=32, patch_size=8, in_chans=1,
            embed_dim=64, depth=2, num_heads=8,
        )  # fmt: skip


def stopwatch(work):
    """As llm_common.watch, without its peak of this process, which runs other tests."""
    start = time.perf_counter()
    value = work()
    return dict(seconds=time.perf_counter() - start, peak_mb=2.0, before_mb=1.0, value=value)


def inner_params(model):
    """Parameters of a pruned TinyVit from its widths alone."""
    dim, patch, tokens = 64, 8 * 8, 17
    total = dim * (patch + 1) + dim + tokens * dim + 2 * dim + 10 * (dim + 1)
    for block in model.blocks:
        inner, hidden = block.attn.proj.in_features, block.mlp.fc1.out_features
        total += 4 * dim + 3 * inner * (dim + 1) + dim * (inner + 1)
        total += hidden * (dim + 1) + dim * (hidden + 1)
    return total


@pytest.mark.parametrize(
    'method', ['here', 'here_taylor', 'here_flops', 'peer_inner', 'peer_taylor_inner']
)
def test_equal_parameters_and_the_same_training(method, tmp_path):
    task = TinyVit(tmp_path)
    dense = sum(p.numel() for p in task.dense(3).parameters())
    (found,) = measure.measure(task, method, stopwatch, tmp_path / 'pruned.pth')['runs']
    pruned = torch.load(tmp_path / 'pruned.pth', weights_only=False)
    assert found['params'] == inner_params(pruned)
    assert found['matched'] and found['params'] == pytest.approx(0.6 * dense, rel=0.005)
    assert found['pruned'] == task.quality(pruned)
    again = task.quality(task.recover(copy.deepcopy(pruned), 3))
    assert found['recovered']['loss'] == pytest.approx(again['loss'], rel=1e-3)
    assert found['recovered'] != found['pruned']


def test_all_widths_of_torch_pruning_and_the_table(tmp_path):
    task = TinyVit(tmp_path)
    result = measure.measure_dense(task)
    result['dense']['latency_ms'] = 3.0
    found = measure.measure(task, 'peer', stopwatch, tmp_path / 'peer.pth')
    pruned = torch.load(tmp_path / 'peer.pth', weights_only=False)
    assert pruned.patch_embed.proj.out_channels < 64  # the residual stream has become narrower
    found['latency_ms'] = measure.latencies(task, {'peer': tmp_path / 'peer.pth'})['peer']
    result['methods'] = dict(peer=found, peer_taylor=dict(error='RuntimeError: no heads'))
    text = side_tables.measured(result, side_tables.LABELS)
    header, _, dense, row = (line.split(' | ') for line in text.splitlines())
    assert len(header) == len(dense) == len(row)
    assert row[1] == f'{found["runs"][0]["params"]:,}'
    flops = result['dense']['flops'] / found['runs'][0]['flops']
    assert row[-1] == f'{flops:.2f} |'
    assert 'RuntimeError: no heads' in side_tables.failures(result, side_tables.LABELS)


def test_bisection_stops_at_half_a_percent():
    tried = []

    def left(share):
        tried.append(share)
        return round(1_000_000 * (1 - share) ** 2)

    share, params = measure.bisect(left, 300_000, 0.7)
    assert abs(params - 300_000) <= 1_500 and share == pytest.approx(1 - 0.3**0.5, abs=0.005)
    assert len(tried) <= 10 and params == left(share)


def test_a_layer_without_heads_means_fewer_heads():
    class Model(nn.Linear):
        heads = 1.0

    def cut(share, heads):
        model = Model(max(1, round(1000 * (1 - share) * (1 - 0.5 * heads))), 1, bias=False)
        model.heads = heads
        return model

    def runs(model):
        if model.heads > 0.35:
            raise RuntimeError(f'{model.heads} of heads')

    share, heads, params = measure.match(cut, runs, 400, 0.5, (None, 0.5, 0.3, 0.0))
    assert heads == 0.3 and abs(params - 400) <= 2
    assert share == pytest.approx(1 - 0.4 / 0.85, abs=0.005)
    with pytest.raises(RuntimeError, match=r'0\.5 of heads'):
        measure.match(cut, runs, 400, 0.5, (0.5,))


def test_torch_prunings_failures_are_told_and_ours_are_not_hidden(tmp_path):
    class Broken(TinyVit):
        head_shares = (None,)

        def peer_options(self, model, widths, heads):
            raise ValueError('cannot be traced\nmore')

        def loss(self, model, batch):
            raise ValueError('ours')

    task = Broken(tmp_path)
    found = measure.measure(task, 'peer', stopwatch, tmp_path / 'x.pth')
    assert found == dict(error='ValueError: cannot be traced')
    with pytest.raises(ValueError, match='ours'):
        measure.measure(task, 'here_taylor', stopwatch, tmp_path / 'x.pth')
    assert not (tmp_path / 'x.pth').exists()


def result_of(part):
    """The name of what a part writes."""
    given = [arg.removeprefix('--output=') for arg in part.arguments if arg.startswith('--output=')]
    return given[0] if given else part.script


def test_short_runs_leave_the_figures_of_long_ones_alone():
    """side_by_side writes a file for each task; the long run adds the task that must be trained for."""
    short, long = ({result_of(part) for part in run} for run in (parts.SHORT, parts.LONG))
    assert short & long <= {'side_by_side'}
    for part in (*parts.SHORT, *parts.LONG):
        assert (ROOT / 'tools' / 'benchmarks' / f'{part.script}.py').is_file()
        changed = [a for a in part.arguments if not a.startswith(('--output', '--tasks'))]
        assert not changed or result_of(part) != part.script, 'other settings, the same file'
