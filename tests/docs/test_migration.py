"""The tables of docs/migration.md: what they name here exists, and what they name of Torch-Pruning does."""

import inspect
import re
from pathlib import Path

import pytest
from test_docs import REGISTRIES, SETTINGS, rows

from projects.prune_plugin.common.registry import accepted_keys

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / 'docs' / 'migration.md').read_text(encoding='utf-8')
#: Heading: titles of its table's columns.
TABLES = {
    '### `analysis_struct.py` of VAD': ('flag', 'config key'),
    '### The SparseGPT notebooks': ('variable', 'config key'),
    '## Torch-Pruning': ('name', 'here'),
    '## MMRazor': ('name', 'here'),
    '## llm-compressor': ('name', 'here'),
}


def table(heading: str) -> list[list[str]]:
    """Rows of the table under a heading."""
    return rows(PAGE.partition(f'\n{heading}\n')[2], *TABLES[heading])


def known() -> set[str]:
    """Every name and key that a ``prune_cfg`` may hold."""
    classes = [cls for registry in REGISTRIES.values() for cls in registry.module_dict.values()]
    classes += SETTINGS.values()
    keys = {key for cls in classes for key in accepted_keys(cls)}
    names = {name for registry in REGISTRIES.values() for name in registry.module_dict}
    return keys | names | set(SETTINGS) | {'density', 'type'}


@pytest.mark.parametrize('heading', TABLES)
def test_keys_and_types_on_our_side_exist(heading):
    found = table(heading)
    assert len(found) >= 7
    for _, here in found:
        for path in re.findall(r'prune_cfg\.([\w.]+)', here):
            assert set(path.split('.')) <= known(), f'{heading}: {path}'
        for name in re.findall(r"type='(\w+)'", here):
            assert name in known(), f'{heading}: {name}'
        for key in re.findall(r'(\w+)=dict\(', here):
            assert key in known(), f'{heading}: {key}'


def test_names_of_torch_pruning_exist():
    tp = pytest.importorskip('torch_pruning')
    arguments = set(inspect.signature(tp.pruner.BasePruner.__init__).parameters)
    places = (tp, tp.importance, tp.pruner, tp.utils)
    found = {
        name for theirs, _ in table('## Torch-Pruning') for name in re.findall(r'`(\w+)`', theirs)
    }
    assert len(found) > 30
    missing = {n for n in found - arguments if not any(hasattr(place, n) for place in places)}
    assert not missing


def test_every_importance_and_pruner_of_torch_pruning_has_a_row():
    tp = pytest.importorskip('torch_pruning')
    found = {
        name for theirs, _ in table('## Torch-Pruning') for name in re.findall(r'`(\w+)`', theirs)
    }
    importances = {n for n in dir(tp.importance) if n.endswith('Importance')} - {'Importance'}
    pruners = {n for n in dir(tp.pruner) if n.endswith('Pruner')} - {'MagnitudePruner'}
    assert importances | pruners <= found
