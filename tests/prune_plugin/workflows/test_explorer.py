"""The explorer of a report: it plans as the plugin does, in a real browser."""

import json
import os
import shutil
from pathlib import Path

import pytest
from chromium import BROWSER, Page
from mmengine.config import Config

from projects.prune_plugin import InfeasibleBudgetError, build_pruner
from projects.prune_plugin.workflows.explorer_data import explorer_data
from projects.prune_plugin.workflows.options import PruneOptions, PruneResult
from projects.prune_plugin.workflows.prune import prune, pruner_from_config
from projects.prune_plugin.workflows.reports import read_explorer
from projects.prune_plugin.workflows.reports.explorer import explorer_section
from projects.prune_plugin.workflows.save_results import read_report, write_report

ROOT = Path(__file__).resolve().parents[3]
ARTEFACTS = Path(os.environ.get('TEST_ARTEFACTS', ROOT / 'work_dirs' / 'test_artefacts'))
CONFIG = ROOT / 'projects/configs/ViT/vit_tiny_digits.py'
OPTIONS = {
    'prune_cfg': dict(
        budget=dict(ratio=0.4), profile=dict(seconds=0.05, batch_size=2), weight_level=False
    ),
    'test_dataloader.dataset.indices': 32,
    'model.model_kwargs.depth': 3,
}
RATIOS = [i / 21 for i in range(1, 21)]
#: Seconds of a plan after the first, of 50 groups of 10,000 units.
MANY = """(() => {
  const numbers = Array.from({ length: 50 }, (_, g) => g), size = 10000
  const groups = numbers.map(g => ({ name: `g${g}`, kind: 'mlp', size, least: 0 }))
  const scores = new Float64Array(50 * size).map(() => Math.random())
  numbers.forEach(g => scores.subarray(g * size, (g + 1) * size).sort())
  let text = ''
  new Uint8Array(scores.buffer).forEach(byte => { text += String.fromCharCode(byte) })
  const params = {
    constant: 1e6, multipliers: numbers.map(() => 1), widths: numbers.map(() => [size, 512]),
    shares: numbers.map(g => [g, 0, g, 1]),
  }
  const found = new Explorer({ groups, scores: btoa(text), costs: { params }, dense: {}, points: [] })
  const asked = { budget: 'params', allocator: 'Knapsack', minKeep: 1, roundTo: 1 }
  found.plan({ ...asked, ratio: 0.3 })
  const start = performance.now()
  found.plan({ ...asked, ratio: 0.31 })
  return (performance.now() - start) / 1000
})()"""
in_browser = pytest.mark.skipif(not BROWSER, reason='there is no Chromium')


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """A run."""
    pytest.importorskip('timm')
    folder = tmp_path_factory.mktemp('explorer')
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict(OPTIONS)
    prune(cfg, pruner_from_config(cfg), PruneOptions(None, folder))
    return folder


@pytest.fixture(scope='module')
def page(folder, tmp_path_factory):
    """Its page, opened."""
    with Page(tmp_path_factory.mktemp('profile')) as page:
        page.view(1100, 900)
        page.open((folder / 'report.html').as_uri())
        yield page


def planned(page, **asked):
    """Units kept in the page's plan, or the most that can go."""
    asked = dict(budget='params', allocator='Knapsack', minKeep=1, roundTo=1) | asked
    return page.run(f'explorer.plan({json.dumps(asked)})')


@in_browser
@pytest.mark.parametrize(
    'settings',
    [
        dict(),
        dict(allocator='Global'),
        dict(budget='units'),
        dict(min_keep=3, round_to=8),
        dict(min_keep=0, round_to=5, budget='units'),
    ],
)
def test_plans_are_the_plugins(tmp_path_factory, settings):
    """At twenty ratios, of a small model with groups of several costs: the same units, or refused alike."""
    from tiny_models import randomised, timm_vit

    model = randomised(timm_vit())
    pruner = build_pruner(
        dict(
            allocator=dict(type=settings.get('allocator', 'Knapsack')),
            budget=dict(type=settings.get('budget', 'params'), ratio=0.5),
            **{k: v for k, v in settings.items() if k in ('min_keep', 'round_to')},
        )
    )
    scored = pruner.score(model)
    plan = pruner.at(0.01).plan_from(model, scored)
    profiles = [dict(params=sum(p.numel() for p in model.parameters()), flops=None)] * 2
    data = explorer_data(pruner, model, plan, profiles)
    asked = dict(
        budget=settings.get('budget', 'params'), allocator=settings.get('allocator', 'Knapsack'),
        minKeep=pruner.min_keep, roundTo=pruner.round_to,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp('page')
    script = (ROOT / 'projects/prune_plugin/workflows/reports/page/explorer.js').read_text()
    (folder / 'page.html').write_text(f'<html><body></body><script>{script}</script></html>')
    compared = 0
    with Page(tmp_path_factory.mktemp('profile')) as page:
        page.open((folder / 'page.html').as_uri())
        page.run(f'window.explorer = new Explorer({json.dumps(data)}); 0')
        for ratio in RATIOS:
            found = planned(page, **asked, ratio=ratio)
            try:
                kept = pruner.at(ratio).plan_from(model, scored).state.kept
            except InfeasibleBudgetError as error:
                assert found['most'] == pytest.approx(error.most, abs=1e-9)
                continue
            assert found['counts'] == [len(kept[group.name]) for group in plan.groups]
            compared += 1
    assert compared >= 8


@in_browser
def test_what_is_predicted_is_what_the_run_counted(folder, page):
    report = json.loads((folder / 'report.json').read_text())
    counts = planned(page, ratio=0.4)['counts']
    assert counts == [row['kept'] for row in report['groups']]
    left = page.run(f'explorer.predicted({counts})')
    assert left['params'] == report['pruned']['params']
    assert left['flops'] == pytest.approx(report['pruned']['flops'])
    assert left['between'] == pytest.approx(report['pruned']['latency_ms'])
    middle = page.run(f'explorer.predicted({planned(page, ratio=0.2)["counts"]})')
    ends = sorted(report[stage]['latency_ms'] for stage in ('dense', 'pruned'))
    assert ends[0] <= middle['between'] <= ends[1]
    more = page.run(f'explorer.predicted({planned(page, ratio=0.7)["counts"]})')
    assert 'between' not in more  # beyond what was measured


@in_browser
def test_slider_and_keyboard(page):
    """A step of the slider is a hundredth; figures, bars and the lines to copy follow."""
    said = 'document.getElementById("x-said").textContent'
    left = 'document.querySelector("#x-sizes tbody td:nth-child(3)").textContent'
    before, size = page.run(said), page.run(left)
    page.run('document.getElementById("x-ratio").focus()')
    for _ in range(10):
        page.press('ArrowRight')
    assert page.run('document.getElementById("x-exact").value') == '0.5'
    assert page.run(said) != before and page.run(left) != size
    counts = planned(page, ratio=0.5)['counts']
    assert page.run('page.counts') == counts
    assert '--pruning-ratio 0.5 ' in page.run('document.getElementById("x-config").textContent')
    page.press('End')
    assert 'can be removed' in page.run(said)
    page.press('Home')
    page.run('document.getElementById("x-exact").value = 0.4')
    page.run('document.getElementById("x-exact").dispatchEvent(new Event("input"))')
    assert page.run(said) == before
    assert not page.errors and not [u for u in page.requests if u.startswith('http')]


@in_browser
@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('width', [390, 1100])
def test_nothing_overflows_and_it_is_accessible(page, width, scheme):
    """Screenshots go to work_dirs/test_artefacts; the page isn't wider than the window."""
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    page.view(width, 900, scheme)
    page.shot(ARTEFACTS / f'explorer_{width}_{scheme}.png')
    assert page.run('document.documentElement.scrollWidth') <= width
    assert page.violations() == []


@in_browser
def test_half_a_million_units(tmp_path):
    """A step of the slider takes less than a second."""
    script = (ROOT / 'projects/prune_plugin/workflows/reports/page/explorer.js').read_text()
    (tmp_path / 'page.html').write_text(f'<html><body></body><script>{script}</script></html>')
    with Page(tmp_path / 'profile') as page:
        page.open((tmp_path / 'page.html').as_uri())
        seconds = page.run(MANY)
    assert seconds < 5  # some 0.2 s; a loaded machine is slower


def test_a_page_written_again_keeps_its_explorer(folder, tmp_path):
    """As after a recovery that is gone on with, when the plan is not at hand."""
    copy = tmp_path / 'copy'
    shutil.copytree(folder, copy)
    data = read_explorer(copy / 'report.html')
    assert data['ratio'] == 0.4 and data['costs'].keys() == {'params', 'flops'}
    write_report(PruneResult(read_report(copy), explorer=data), copy)
    assert read_explorer(copy / 'report.html') == data
    (copy / 'report.html').write_text('nothing')
    assert read_explorer(copy / 'report.html') is None


def test_names_are_no_html(folder):
    report, data = read_report(folder), read_explorer(folder / 'report.html')
    data['groups'][0]['name'] = report.config = '</script><script>alert(1)</script>'
    section = explorer_section(report, data)
    assert '<script>alert' not in section and section.count('</script>') == 2


def test_no_explorer_where_the_arithmetic_is_another():
    from tiny_models import llama

    model = llama()
    pruner = build_pruner(dict(min_keep=0, remove_empty_layers=True, budget=dict(ratio=0.2)))
    profiles = [dict(params=1), dict(params=1)]
    assert explorer_data(pruner, model, pruner.plan(model), profiles) is None
    pruner = build_pruner(dict(budget=dict(ratio=0.2)))
    assert explorer_data(pruner, model, pruner.plan(model), profiles)['costs'].keys() == {'params'}
