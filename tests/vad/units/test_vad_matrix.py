"""Every kind of VAD's units, alone and all together, keeps the invariants of the matrix."""

from cases import UNITS_ELSEWHERE
from test_matrix import (  # noqa: F401  collected here too, with the cases below
    pytest_generate_tests,
    test_finds_the_groups_expected,
    test_gradients_reach_every_parameter,
    test_mask_equals_slim,
    test_masking_touches_its_units_alone,
    test_meta_tensors_will_do,
    test_min_keep_0_runs_or_is_refused,
    test_pruning_twice_composes,
    test_removing_nothing_changes_nothing,
    test_round_trip,
    test_same_seed_same_units,
    test_slim_shapes_and_survivors,
)
from vad_unit_cases import CASES

from projects.prune_plugin import UNITS


def test_every_kind_that_vad_brings_has_a_row():
    rows = {unit['type'] for case in CASES for unit in case.units}
    own = {n for n, cls in UNITS.module_dict.items() if cls.__module__.startswith('projects.vad')}
    assert own | set(UNITS_ELSEWHERE) <= rows, f'give each a row: {own - rows}'
