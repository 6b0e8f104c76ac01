"""The page of a report: whole, honest, escaped, and with nothing from elsewhere."""

import json
import re
from copy import deepcopy
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import pytest
from mmengine.config import Config

from projects.prune_plugin import RunReport
from projects.prune_plugin.workflows.options import PruneOptions
from projects.prune_plugin.workflows.prune import prune as prune_model
from projects.prune_plugin.workflows.prune import pruner_from_config
from projects.prune_plugin.workflows.reports import html, write_html
from projects.prune_plugin.workflows.reports.digits import difference, numbers
from projects.prune_plugin.workflows.reports.html import CAPTIONS, MOST_BARS
from projects.prune_plugin.workflows.reports.summary import fraction, is_pruned, share
from projects.prune_plugin.workflows.round_record import Row

ROOT = Path(__file__).resolve().parents[3]
VOID = {'meta', 'img', 'input', 'wbr'}
#: A name, not an address.
SVG = 'http://www.w3.org/2000/svg'
EVIL = '<script>alert("x")</script>&\'$title'
PNG = b'\x89PNG\r\n\x1a\n'


class Page(HTMLParser):
    """A page's cells, bars and terms, as a reader sees them; fails where tags don't pair up."""

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page)
        self.close()
        assert not self.open, f'never closed: {self.open}'

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
            self.texts.append((tag, ''))

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f'</{tag}> closes another element'

    def handle_data(self, data):
        if self.open and self.texts[-1][0] == self.open[-1]:
            self.texts[-1] = (self.open[-1], self.texts[-1][1] + data)

    def of(self, *tags: str) -> list[str]:
        """Texts of all elements with one of these tags."""
        return [text for tag, text in self.texts if tag in tags]

    def rows(self) -> dict[str, list[str]]:
        """Table rows by their first cell."""
        found: dict[str, list[str]] = {}
        for tag, text in self.texts:
            if tag == 'th':
                cells = found.setdefault(text, [])
            elif tag == 'td':
                cells.append(text)
        return found

    def all(self) -> str:
        """All text."""
        return ' '.join(text for tag, text in self.texts if tag not in ('style', 'script'))


def report_page(report: dict, *pictures) -> str:
    """The page of a ``report.json``."""
    return html.report_page(RunReport.from_dict(report), *pictures)


def prune(folder: Path, **overrides) -> RunReport:
    """The report of a run of the digits' ViT, small and without data."""
    cfg = Config.fromfile(ROOT / 'projects/configs/ViT/vit_tiny_digits_prune50.py')
    cfg.merge_from_dict({
        'model.model_kwargs.depth': 2, 'model.model_kwargs.embed_dim': 64,
        'model.model_kwargs.num_heads': 4, 'prune_cfg.profile': dict(seconds=0.05, batch_size=2),
        'test_dataloader.dataset.indices': 64, **overrides,
    })  # fmt: skip
    return prune_model(cfg, pruner_from_config(cfg), PruneOptions(None, folder)).report


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """Where a StructuredPruner's run left its files."""
    pytest.importorskip('timm')
    folder = tmp_path_factory.mktemp('units')
    prune(folder)
    return folder


@pytest.fixture
def report(folder) -> dict:
    return json.loads((folder / 'report.json').read_text())


@pytest.fixture(scope='module')
def zeros_folder(tmp_path_factory) -> Path:
    """Where a WeightPruner's run left its files."""
    pytest.importorskip('timm')
    folder = tmp_path_factory.mktemp('weights')
    changes = {'type': 'WeightPruner', 'budget': dict(type='weights', ratio=0.5)}
    cfg = {'prune_cfg': dict(changes, sparsifier=dict(type='Magnitude'), _delete_=True)}
    cfg['prune_cfg']['profile'] = dict(seconds=0.05, batch_size=2)
    prune(folder, **{'prune_cfg.profile': cfg['prune_cfg']['profile']}, **cfg)
    return folder


def recovered(report: dict, **more) -> dict:
    """The report after a training."""
    metrics = {name: value / 3 for name, value in report['dense']['metrics'].items()}
    stage = dict(metrics=metrics, mode='fine_tune', epochs=2, checkpoint='D/latest.pth', zeros=None)
    return {**report, 'recovered': {**report['pruned'], **stage, 'trained': 'structured', **more}}


def test_every_number_is_the_reports(folder, report):
    """Those that ``report.json`` has, as the terminal shows them, dense first."""
    page = Page((folder / 'report.html').read_text(encoding='utf-8'))
    assert page.of('th')[:5] == ['', 'dense', 'pruned', 'removed', 'zeros']
    rows = page.rows()
    for name, key, unit in (
        ('parameters', 'params', ''), ('FLOPs', 'flops', ''), ('latency', 'latency_ms', ' ms')
    ):  # fmt: skip
        values = [report[stage][key] for stage in ('dense', 'pruned')]
        assert rows[name] == [*numbers(values, unit), share(*values), '']
        assert share(*values) in page.of('p')[0]
    assert rows['weights in *_pruned.pth'] == ['', '', '', fraction(report['achieved']['zeros'])]
    for metric in report['headline']:
        values = [report[stage]['metrics'][metric] for stage in ('dense', 'pruned')]
        found = rows[f'{metric} ↑']
        first, second = numbers(values)
        by = difference(*values, values)
        assert found == [first, f'{second} ({by})', '', '']
    spans = page.of('span')
    groups = report['groups']
    for group in groups:  # <wbr> ends a piece of text only, not the element
        kept, size = group['kept'], group['size']
        assert spans[spans.index(group['name']) + 1] == (
            f'{kept:,} of {size:,} ({100 * kept / size:.1f} %)'
        )
    widths = [float(t['width']) for n, t in page.tags if n == 'rect' and t['class'] == 'fill']
    assert widths[: len(groups)] == [
        pytest.approx(100 * g['kept'] / g['size'], abs=0.006)
        for kind in dict.fromkeys(g['kind'] for g in groups)
        for g in groups
        if g['kind'] == kind
    ]
    for step, seconds in report['seconds'].items():
        if seconds >= 0.01:
            assert spans[spans.index(step) + 1] == f'{seconds:.2f} s'
    assert page.of('pre')[-1] == json.dumps(report['prune_cfg'], indent=2)
    assert report['prune_cfg']['budget'] == {'type': 'units', 'ratio': 0.5}
    for value in (report['config'], *report['environment'].values()):
        assert str(value) in page.of('dd')


def test_the_sentence_says_what_was_asked_and_achieved(report):
    sentence = Page(report_page(recovered(report))).of('p')[0]
    assert sentence.startswith('Asked: 0.5 of units removed; achieved: 5')
    for stage in ('dense', 'pruned', 'recovered'):
        assert f' {stage}' in sentence
    assert sentence.endswith('.') and sentence.count('.  ') == 0


def test_after_training_there_is_a_column_more(report):
    after = recovered(report)
    page = Page(report_page(after))
    assert page.of('th')[:5] == ['', 'dense', 'pruned', 'recovered', 'removed']
    assert is_pruned(RunReport.from_dict(after), 'recovered')
    metric = next(iter(report['headline']))
    third = page.rows()[f'{metric} ↑'][2]
    stages = ('dense', 'pruned', 'recovered')
    values = [after[stage]['metrics'][metric] for stage in stages]
    assert third.split(' ')[0] == numbers(values)[2]
    assert 'the structured model after training (2 epochs, fine_tune)' in page.all()
    after['recovered']['epochs'] = 1
    assert 'after training (1 epoch, fine_tune)' in Page(report_page(after)).all()
    assert 'Without the training' in page.all() and 'Without' not in report_page(report)
    assert 'D/latest.pth' in page.of('dd')


def test_zeros_are_no_speed_up(zeros_folder, report):
    page = Page((zeros_folder / 'report.html').read_text(encoding='utf-8'))
    found = json.loads((zeros_folder / 'report.json').read_text())
    assert found['asked']['budget'] == 'weights'
    assert page.of('p')[0].startswith(
        'Asked: 0.5 of the weights set to zero; achieved: 50.00 % of them are zero, at dense shapes'
    )
    assert 'Zeros give no speed-up by themselves' in page.all()
    assert page.rows()['parameters'][-2:] == ['0.00 %', '']
    assert page.rows()['weights'][-2:] == ['', '50.00 %']  # zeros, not removed
    assert 'What each layer keeps' not in page.of('h2')
    assert 'in a second file, *_pruned.pth, which keeps the dense shapes' in report_page(report)
    report['achieved']['zeros'] = None
    assert 'Zeros give' not in report_page(report)


def test_the_page_gives_the_advice_of_the_console(report):
    """Where parameters were asked for and the FLOPs stayed."""
    report['asked']['budget'] = 'params'
    assert 'For a faster model' not in Page(report_page(report)).all()
    report['achieved'].update(params=0.4, flops=0.0)
    text = Page(report_page(report)).all()
    assert 'but only 0 % of the FLOPs' in text and "prune_cfg.budget.type='flops'" in text


def test_rounds(zeros_folder):
    found = json.loads((zeros_folder / 'report.json').read_text())
    metric = next(iter(found['headline']))
    made = [Row(1, 0.25, 0.2501, {metric: 61.25}, {metric: 81.5}), Row(2, 0.5, 0.5, None)]
    page = Page(report_page({**found, 'rounds': [asdict(row) for row in made]}))
    rows = page.rows()
    assert rows['1'] == ['0.25', '25.01 %', '61.25', '81.50']
    assert rows['2'] == ['0.5', '50.00 %', '-', '-']


def outside(page: str) -> list[str]:
    """Whatever a browser would load."""
    places = {
        'src',
        'href',
        'srcset',
        'data',
        'action',
        'poster',
        'xlink:href',
        'style',
        'background',
    }
    found = [t[key] for _, t in Page(page).tags for key in places & t.keys()]
    style = re.search(r'<style>(.*?)</style>', page, re.DOTALL)[1]
    return [v for v in found if not v.startswith('data:')] + re.findall(r'url\(|@import', style)


def test_nothing_is_loaded_from_elsewhere(folder, zeros_folder):
    for place in (folder, zeros_folder):
        page = (place / 'report.html').read_text(encoding='utf-8')
        assert outside(page) == []
        assert '://' not in page.replace('data:image', '').replace(SVG, '')
        tags = Page(page).tags
        assert not {'link', 'iframe', 'object'} & {name for name, _ in tags}
        assert "default-src 'none'" in page
        scripts = [attributes for name, attributes in tags if name == 'script']
        assert not any('src' in attributes for attributes in scripts)
        assert len(scripts) == (2 if place is folder else 0) and ('sha256-' in page) == bool(
            scripts
        )


def test_pictures_are_inside(folder, zeros_folder):
    pytest.importorskip('matplotlib')
    pages = {
        at: Page((at / 'report.html').read_text(encoding='utf-8')) for at in (folder, zeros_folder)
    }
    shown = {at: [t['alt'] for n, t in page.tags if n == 'img'] for at, page in pages.items()}
    assert shown[folder] == [CAPTIONS['metrics_params.png'], CAPTIONS['kept_share.png']]
    assert shown[zeros_folder] == [CAPTIONS['metrics_params.png']]


def test_pictures_of_another_run_are_not_shown(report, tmp_path):
    report['checkpoint'] = 'a.pth'

    def captions() -> list[str]:
        page = Page(write_html(RunReport.from_dict(report), tmp_path).read_text(encoding='utf-8'))
        return [tag['alt'] for name, tag in page.tags if name == 'img']

    for name in CAPTIONS:  # of an earlier run in this folder
        (tmp_path / name).write_bytes(PNG)
    assert captions() == []
    for text in ('{"checkpoint": "b.pth"}', 'broken', '[]'):
        (tmp_path / 'sensitivity.json').write_text(text)
        assert captions() == []
    (tmp_path / 'sensitivity.json').write_text('{"checkpoint": "a.pth"}')
    assert captions() == [CAPTIONS['sensitivity.png']]
    report['rounds'] = []
    assert captions() == [CAPTIONS['sensitivity.png']]
    report['rounds'] = [asdict(Row(1, 0.5, 0.5, None))]
    assert captions() == [CAPTIONS['history.png'], CAPTIONS['sensitivity.png']]


def test_everything_is_escaped(report):
    evil = recovered(report, mode=EVIL, checkpoint=EVIL)
    evil['config'] = f'configs/{EVIL.replace("/", "")}.py'
    evil.update(checkpoint=EVIL, command=[EVIL, EVIL], prune_cfg={EVIL: [EVIL]})
    evil.update(environment={EVIL: EVIL}, not_prunable={EVIL: EVIL}, notes={EVIL: EVIL})
    evil.update(seconds={EVIL: 1.0}, removed_layers=[EVIL], headline={EVIL: 'max'})
    evil['asked'] = dict(budget=EVIL, ratio=0.5)
    evil['groups'] = [dict(name=EVIL, kind=EVIL, layer_idx=0, size=4, kept=2)]
    for stage in ('dense', 'pruned', 'recovered'):
        evil[stage] = {**evil[stage], 'metrics': {EVIL: 1.0}}
    evil['rounds'] = [asdict(Row(1, 0.5, 0.5, {EVIL: 1.0}))]
    page = report_page(evil, {'kept_share.png': PNG})
    plain, changed = Page(report_page(recovered(report))), Page(page)
    known = {name for name, _ in plain.tags} | {'details', 'summary', 'figure', 'figcaption', 'img'}
    assert {name for name, _ in changed.tags} <= known
    assert '<script' not in page and 'alert("x")' not in page and outside(page) == []
    assert changed.all().count('<script>alert("x")') > 15 and '$title' in changed.of('title')[0]


def test_what_was_not_measured_is_a_dash(report):
    bare = deepcopy(report)
    for stage in ('dense', 'pruned'):
        bare[stage].update(flops=None, latency_ms=None, metrics=None)
    bare['achieved'].update(flops=None, latency=None)
    bare.update(headline={}, checkpoint=None, prune_cfg=None, config=None, not_prunable={})
    page = Page(report_page(bare))
    assert page.rows()['FLOPs'] == page.rows()['latency'] == ['-', '-', '-', '']
    assert '-' not in page.of('p')[0] and 'There are no metrics' in page.all()
    assert page.of('pre')[1] == 'none: the defaults'
    report['pruned']['metrics'] = dict.fromkeys(report['headline'], float('nan'))
    assert 'nan' not in report_page(report)


def test_reports_of_older_versions_are_shown(report):
    for key in ('headline', 'removed_layers', 'prune_cfg'):
        del report[key]
    Page(report_page(report))


def test_many_bars_and_those_that_lost_nothing_are_folded_in(report):
    group = dict(name='a.b', kind='mlp', layer_idx=0, size=4, kept=2)

    def unfolded(groups) -> list[bool]:
        left = dict(not_prunable={}, uncovered={}, weights=[])
        page = Page(report_page({**report, 'groups': groups, **left}))
        return ['open' in tag for name, tag in page.tags if name == 'details']

    assert unfolded([group] * MOST_BARS) == [True]
    assert unfolded([group] * (MOST_BARS + 1)) == [False]
    assert unfolded([group, dict(group, kind='attention', kept=4)]) == [True, False]
