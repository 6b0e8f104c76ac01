"""Everything registered has a row in the matrix, and ``build`` checks what it is given."""

import cases
import pytest

from projects.prune_plugin import (
    ALLOCATORS,
    BUDGETS,
    COMPENSATIONS,
    CRITERIA,
    PENALTIES,
    PRUNERS,
    RECONSTRUCTIONS,
    SCHEDULES,
    SPARSIFIERS,
    UNITS,
    UserError,
)
from projects.prune_plugin.common.registry import build
from projects.prune_plugin.structure.modules import CONVERTERS


def types(rows) -> set[str]:
    return {row['type'] for row in rows}


def unit_types(rows) -> set[str]:
    return types(unit for case in rows for unit in case.units)


@pytest.mark.parametrize(
    ('registry', 'rows'),
    [
        (UNITS, unit_types(cases.CASES) | {*cases.UNITS_ELSEWHERE, 'PreNormSublayers'}),
        (CRITERIA, types(cases.CRITERIA_ROWS) | set(cases.OTHER_CRITERIA)),
        (ALLOCATORS, types(cases.ALLOCATOR_ROWS) | set(cases.OTHER_ALLOCATORS)),
        (PENALTIES, {'RSST', 'GReg', 'GroupLasso'}),
        (
            BUDGETS,
            types(cases.BUDGET_ROWS) | set(cases.WEIGHT_BUDGETS) | set(cases.SEARCHED_BUDGETS),
        ),
        (SPARSIFIERS, types(cases.SPARSIFIER_ROWS)),
        (COMPENSATIONS, types(cases.COMPENSATION_ROWS)),
        (RECONSTRUCTIONS, set(cases.RECONSTRUCTIONS)),
        (SCHEDULES, types(cases.SCHEDULE_ROWS)),
        (PRUNERS, {'StructuredPruner', 'WeightPruner'}),
    ],
    ids=lambda value: getattr(value, 'name', ''),
)
def test_everything_registered_has_a_row(registry, rows):
    ours = {n for n, c in registry.module_dict.items() if c.__module__.startswith('projects.prune')}
    assert ours - rows == set(), f'give each a row in cases.py: {ours - rows}'
    assert rows - set(registry.module_dict) == set(), 'rows for what is not registered'


def test_every_converter_is_used_by_a_case():
    # tests of discovery/test_converters.py and test_whole_modules.py
    used = {'SlimRMSNorm', 'EagerExperts', 'SkipBranch'}
    for case in cases.CASES:
        for group in case.groups():
            used |= {converter for _, converter in (*group.converts, *group.emptied)}
    assert used == set(CONVERTERS)


def test_everything_registered_says_what_it_is():
    for registry in (
        UNITS, CRITERIA, ALLOCATORS, BUDGETS, SPARSIFIERS, COMPENSATIONS, RECONSTRUCTIONS,
        SCHEDULES, PRUNERS,
    ):  # fmt: skip
        for name, cls in registry.module_dict.items():
            assert cls.__doc__ and 'Example:' in cls.__doc__, f'{name} has no example'


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        (3, 'key is 3; it must be a dict'),
        (dict(type=UNITS), 'key.type is '),
        (
            dict(type='AttentionHeads', size=1),
            'key.size is not a key of AttentionHeads; valid are none',
        ),
    ],
)
def test_build_refuses(cfg, message):
    with pytest.raises(UserError, match=message):
        build(UNITS, cfg, 'key')


def test_build_names_what_is_missing():
    with pytest.raises(UserError, match='key.default is missing; ByKind needs it'):
        build(CRITERIA, dict(type='ByKind', kinds={}), 'key')
