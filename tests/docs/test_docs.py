"""The docs say what the code does: links, keys, defaults, flags, class names, snippets."""

import ast
import contextlib
import importlib.util
import io
import json
import re
from dataclasses import MISSING, fields
from inspect import Parameter, signature
from itertools import takewhile
from pathlib import Path

import pytest
from mmengine.config import Config

from projects.prune_plugin import (
    ALLOCATORS,
    BUDGETS,
    COMPENSATIONS,
    CRITERIA,
    PENALTIES,
    PRUNERS,
    SCHEDULES,
    SPARSIFIERS,
    UNITS,
)
from projects.prune_plugin.calibration.settings import CalibrationSettings
from projects.prune_plugin.common.registry import accepted_keys
from projects.prune_plugin.evaluation.settings import ProfileSettings
from projects.prune_plugin.methods.pruners.execution import ExecutionSettings
from projects.prune_plugin.methods.pruners.rescoring import RescoringSettings
from projects.prune_plugin.training.settings import RecoverySettings
from projects.prune_plugin.workflows.options import PruneOptions
from projects.prune_plugin.workflows.prune import prune, pruner_from_config
from projects.prune_plugin.workflows.reports import search, summary, tables

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / 'docs'
PAGES = [
    *(ROOT / name for name in ('README.md', 'README.zh.md', 'CONTRIBUTING.md')),
    *sorted(DOCS.glob('*.md')),
    *sorted(DOCS.glob('tutorials/*.ipynb')),
]
TOOLS = (
    'analysis_struct',
    'train',
    'test',
    'compare',
    'latency_table',
    'generate',
    'publish_model',
    'create_data toy',
    'create_data nuscenes',
    'create_data wikitext2',
    'visualize',
)
#: Flags of torch.distributed.run, the demos, tools/benchmarks/vad_parity.py and the requirements of
#: iterative and global pruning.
OTHER_FLAGS = {
    '--arch',
    '--dataset',
    '--exp_name',
    '--vit_pretrained',
    '--base_model',
    '--save_ckpt_log_name',
    '--pruning_ratio',
    '--importance_method',
    '--num_samples',
    '--layer_start',
    '--layer_end',
    '--remove_empty_layers',
    '--head_dim',
    '--gqa_ratio',
    '--finetune',
    '--finetune_method',
    '--lora_r',
    '--lora_alpha',
    '--finetune_samples',
    '--finetune_epochs',
    '--finetune_lr',
    '--test_before_prune',
    '--test_after_prune',
    '--save_model',
    '--save_table_path',
    '--model',
    '--target-sparsity',
    '--prune-percentage',
    '--epochs-per-iteration',
    '--max-iterations',
    '--max-steps',
    '--lr',
    '--nproc_per_node',
    '--master_port',
    '--anew',
    '--folder',
    '--det',
    '--reference',
    '--losses',
    '--struct',
    '--rate',
    '--mlp_prune_ratio',
    '--vit_prune_target',
    '--vit_structured',
    '--pruning_times',
    '--criteria',
    '--sorting_mode',
    '--fillback_rate',
    '--reg_granularity_prune',
    '--exponents',
    '--rewind_epoch',
    '--init',
    '--decreasing_lr',
    '--warmup',
    '--batch_size',
    '--data',
    '--save_dir',
    '--epochs',
}
OF_OTHER_PROGRAMS = """--nnodes --node_rank --rdzv_id --rdzv_backend --rdzv_endpoint --master_addr
--nodes --ntasks-per-node --gpus-per-node --cpus-per-task --host --npernode --dest --no-binary --no-deps
--no-build-isolation --force-reinstall --shapes --out --threads --seconds --trtexec --trtexec-args --fp16"""
OTHER_FLAGS |= set(OF_OTHER_PROGRAMS.split())
REGISTRIES = {
    'type': PRUNERS,
    'units': UNITS,
    'criterion': CRITERIA,
    'allocator': ALLOCATORS,
    'budget': BUDGETS,
    'schedule': SCHEDULES,
    'sparsifier': SPARSIFIERS,
    'penalty': PENALTIES,
    'compensation': COMPENSATIONS,
}
SETTINGS = {
    'calibration': CalibrationSettings,
    'recovery': RecoverySettings,
    'profile': ProfileSettings,
    'execution': ExecutionSettings,
    'rescoring': RescoringSettings,
}


# Reading Markdown


def text_of(path: Path) -> str:
    """A page's text; of a notebook, that of its Markdown cells."""
    text = path.read_text(encoding='utf-8')
    if path.suffix != '.ipynb':
        return text
    cells = (cell for cell in json.loads(text)['cells'] if cell['cell_type'] == 'markdown')
    return '\n\n'.join(''.join(cell['source']) for cell in cells)


def without_fences(text: str) -> str:
    return re.sub(r'^```.*?^```', '', text, flags=re.MULTILINE | re.DOTALL)


def section(page: str, heading: str) -> str:
    """What stands under the second-level ``heading`` of a page."""
    text = without_fences((DOCS / page).read_text(encoding='utf-8'))
    found = re.search(
        rf'^## {re.escape(heading)}\n(.*?)(?=^## |\Z)', text, re.MULTILINE | re.DOTALL
    )
    assert found, f'{page} has no heading "## {heading}"'
    return found[1]


def rows(text: str, *header: str) -> list[list[str]]:
    """Cells of the table that begins with these column titles."""
    lines = iter(text.splitlines())
    for line in lines:
        if cells(line)[: len(header)] == list(header):
            table = takewhile(lambda row: row.startswith('|'), lines)
            return [cells(row) for row in table][1:]
    raise AssertionError(f'no table with the columns {header}')


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip('|').split('|')]


def bare(cell: str) -> str:
    return cell.strip('`')


def snippets(path: Path) -> list[str]:
    return re.findall(r'^```python\n(.*?)^```', path.read_text(encoding='utf-8'), re.M | re.S)


def value_of(cell: str):
    """A default as written in a table: a literal, ``dict(key=literal)``, or ``required``."""
    assert cell == 'required' or cell[0] == cell[-1] == '`', f'{cell!r} is no default'
    if cell == 'required':
        return Parameter.empty
    node = ast.parse(bare(cell), mode='eval').body
    if isinstance(node, ast.Call):
        return {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
    return ast.literal_eval(node)


def plain(default):
    return list(default) if isinstance(default, tuple) else default


def anchors(path: Path) -> set[str]:
    """What GitHub makes of a page's headings."""
    titles = re.findall(r'^#+ (.+)$', without_fences(path.read_text(encoding='utf-8')), re.M)
    return {re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in titles}


# Links


@pytest.mark.parametrize('page', PAGES, ids=lambda path: path.name)
def test_links_resolve(page):
    """Those within the project; of others the form alone, as tests have no network."""
    for target in re.findall(r'\]\(([^)]*)\)', without_fences(text_of(page))):
        if '://' in target:
            assert re.fullmatch(r'https://[\w-]+(\.[\w-]+)+(/[\w./#%?=&~+-]*)?', target), target
            continue
        path, _, anchor = target.partition('#')
        file = page.parent / path if path else page
        assert file.exists(), f'{page.name} links to {target}, which does not exist'
        assert not anchor or anchor in anchors(file), f'{page.name}: no heading for {target}'


def test_pages_are_reached_from_the_readme():
    """Every page of docs/ and every tutorial has a link there."""
    linked = set(re.findall(r'\]\(([^)#]+)', text_of(ROOT / 'README.md')))
    assert {str(page.relative_to(ROOT)) for page in PAGES} - linked == {'README.md'}


# prune_cfg.md


def documented(heading: str) -> dict[str, dict[str, object]]:
    """For each type in a section's table: its keys and their defaults."""
    found: dict[str, dict[str, object]] = {}
    for name, key, _, default, meaning in rows(
        section('prune_cfg.md', f'`{heading}`'), 'type', 'key', 'values', 'default', 'meaning'
    ):
        assert meaning, f'{heading}: {name or key} has no meaning'
        if name:
            assert bare(name) not in found, f'{heading}: {name} stands there twice'
            keys = found[bare(name)] = {}
        if key:
            keys[bare(key)] = value_of(default)
    return found


def ours(registry) -> dict[str, type]:
    """What the engine itself registers: a model family documents its own."""
    return {
        name: cls
        for name, cls in registry.module_dict.items()
        if cls.__module__.startswith('projects.prune_plugin')
    }


@pytest.mark.parametrize('heading', REGISTRIES)
def test_every_type_and_key_is_documented(heading):
    table, registered = documented(heading), ours(REGISTRIES[heading])
    assert sorted(table) == sorted(registered)
    for name, cls in registered.items():
        assert list(table[name]) == accepted_keys(cls), f'keys of {name}'
        for key, default in table[name].items():
            actual = signature(cls).parameters[key].default
            assert default == plain(actual), f'default of {name}.{key}'


@pytest.mark.parametrize('heading', SETTINGS)
def test_every_setting_is_documented(heading):
    table = {
        bare(key): value_of(default)
        for key, _, default, _ in rows(
            section('prune_cfg.md', f'`{heading}`'), 'key', 'values', 'default', 'meaning'
        )
    }
    cls = SETTINGS[heading]
    given = {f.name: f.default for f in fields(cls) if f.default is not MISSING}
    made = {f.name: f.default_factory() for f in fields(cls) if f.default is MISSING}
    assert table == {key: plain(default) for key, default in (given | made).items()}


@pytest.mark.parametrize('number', range(len(snippets(DOCS / 'prune_cfg.md'))))
def test_examples_of_prune_cfg_are_valid(number, tmp_path):
    text = snippets(DOCS / 'prune_cfg.md')[number]
    assert len(text.splitlines()) <= 10, 'an example has ten lines at most'
    file = tmp_path / 'example.py'
    file.write_text(text.replace("'./", f"'{ROOT}/projects/configs/ViT/"))
    assert 'prune_cfg' in text
    pruner_from_config(Config.fromfile(file))


def test_the_first_example_is_the_config_it_names(tmp_path):
    file = tmp_path / 'example.py'
    text = snippets(DOCS / 'prune_cfg.md')[0]
    file.write_text(text.replace("'./", f"'{ROOT}/projects/configs/ViT/"))
    example = Config.fromfile(file).prune_cfg
    named = Config.fromfile(ROOT / 'projects/configs/ViT/vit_small_cifar10_prune70.py').prune_cfg
    assert example.items() <= named.items()


# tools.md


def heading_of(tool: str) -> str:
    """The section of a tool, or of one of its commands."""
    name, *command = tool.split()
    return ' '.join([f'tools/{name}.py', *command])


def help_of(tool: str) -> str:
    """``--help`` of a tool, or of one of its commands; its parser is built here and now."""
    tool, *command = tool.split()
    spec = importlib.util.spec_from_file_location(f'tool_{tool}', ROOT / f'tools/{tool}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), pytest.raises(SystemExit) as leaving:
        module.parse([*command, '--help'])
    assert leaving.value.code == 0
    return shown.getvalue()


def flags_in(text: str) -> set[str]:
    return set(re.findall(r'(?<![\w-])--[a-z][\w-]*', text))


@pytest.mark.parametrize('tool', TOOLS)
def test_every_flag_is_documented(tool):
    table = rows(section('tools.md', heading_of(tool)), 'flag', 'default', 'meaning')
    assert all(len(row) == 3 and all(row) for row in table)
    assert {bare(row[0]) for row in table} == flags_in(help_of(tool)) - {'--help'}


def test_no_flag_is_made_up():
    real = OTHER_FLAGS.union(*(flags_in(help_of(tool)) for tool in TOOLS))
    for page in PAGES:
        mentioned = flags_in(text_of(page))
        assert mentioned <= real, f'{page.name}: {mentioned - real}'


def test_every_column_and_key_of_the_reports_is_documented(tmp_path):
    pytest.importorskip('timm')
    text = section('tools.md', 'tools/analysis_struct.py')
    for columns in (
        tables.UNIT_COLUMNS, tables.SCORE_COLUMNS, tables.GROUP_COLUMNS, search.COLUMNS,
        summary.SUMMARY_COLUMNS,
    ):  # fmt: skip
        assert ','.join(columns) in text
    cfg = Config.fromfile(ROOT / 'projects/configs/ViT/vit_tiny_digits_prune50.py')
    options = PruneOptions(None, tmp_path, dry_run=True)
    report = prune(cfg, pruner_from_config(cfg), options).report.to_dict()
    inner = [report[key] for key in ('dense', 'achieved', 'seconds')] + report['groups'][:1]
    schema = (DOCS / 'report.md').read_text(encoding='utf-8')
    for key in set(report).union(*inner) - {'units'}:  # the budget's, here
        assert f'`{key}`' in schema, f'{key} of report.json'
    assert not list(tmp_path.iterdir())


# concepts.md and CONTRIBUTING.md


def test_every_class_that_a_finder_knows_is_listed():
    text = section('concepts.md', 'Kinds of units')
    for name, finder in ours(UNITS).items():
        assert f'`{name}`' in text
        for class_name, layout in finder.layouts.items():
            if layout.__module__.startswith('projects.prune_plugin'):
                assert f'`{class_name}`' in text, f'{name} knows {class_name}'


def run_snippets(path: Path) -> None:
    for number, text in enumerate(snippets(path)):
        exec(compile(text, f'{path.name}, snippet {number}', 'exec'), {'__name__': 'snippet'})


def test_concepts_notebook_runs(capsys):
    pytest.importorskip('timm')
    (text,) = snippets(DOCS / 'concepts.md')
    assert len([line for line in text.splitlines() if line]) <= 16
    run_snippets(DOCS / 'concepts.md')
    removed = float(capsys.readouterr().out.split()[0])
    assert 0.3 <= removed < 0.302


# Form


@pytest.mark.parametrize(
    'page', [page for page in PAGES if page.suffix == '.md'], ids=lambda path: path.name
)
def test_lines_are_wrapped_at_120_columns(page):
    """Except tables, links, quoted errors, and pages written from docstrings and from licences."""
    if page.name in ('reference.md', 'licenses.md', 'report.md'):
        return
    lines = page.read_text(encoding='utf-8').splitlines()
    wide = [line for line in lines if len(line) > 120 and line[0] != '|']
    assert not [line for line in wide if '](' not in line and 'rror: ' not in line]
