"""Nested models of one run: against their own runs, killed and gone on with, and on two ranks."""

import json

import pytest
import torch
from tool_runs import CONFIG, kill_at, options

TOOL = 'analysis_struct'
RATIOS = [0.1, 0.2, 0.3, 0.4]
ONE_THREAD = {'OMP_NUM_THREADS': '1'}.items()
METHOD = (
    "prune_cfg.criterion=dict(type='Fisher')",
    "prune_cfg.compensation=dict(type='LeastSquares',dense_targets=0.5)",
    'prune_cfg.calibration=dict(num_samples=64,batch_size=8)',
    'prune_cfg.weight_level=False',
)


def arguments(checkpoint, folder, budget: str, *more: str, flags=()) -> list:
    """A whole command line."""
    return [CONFIG, checkpoint, '--output-dir', folder, *flags,
            *options(f'prune_cfg.budget={budget}', *METHOD, *more)]  # fmt: skip


def nested(checkpoint, folder, *more, ratios=RATIOS, flags=()) -> list:
    return arguments(checkpoint, folder, f"dict(type='params',ratios={ratios})".replace(' ', ''),
                     *more, flags=flags)  # fmt: skip


def one(checkpoint, folder, ratio, before, flags=()) -> list:
    """A run to one ratio, in the same steps."""
    steps = [f'prune_cfg.rescoring=dict(ratios={before})'.replace(' ', '')] if before else []
    return arguments(checkpoint, folder, f"dict(type='params',ratio={ratio})", *steps, flags=flags)


def load(path):
    return torch.load(path, weights_only=True)


def saved(folder):
    return load(next(folder.glob('*_structured_pruned.pth')))


def assert_same(first, second):
    asked = [found['meta']['prune_cfg'] for found in (first, second)]
    assert all(asked[1][key] == value for key, value in asked[0].items())
    states = [found['meta']['prune_state']['groups'] for found in (first, second)]
    assert states[0] == states[1]
    assert first['state_dict'].keys() == second['state_dict'].keys()
    for name, weight in first['state_dict'].items():
        assert torch.equal(weight, second['state_dict'][name]), name


def test_one_run_gives_nested_models_and_a_curve(checkpoint, call_tool, tmp_path):
    """Each of them is that of its own run in the same steps, bit for bit."""
    made = tmp_path / 'made'
    assert call_tool(TOOL, *nested(checkpoint, made)).code == 0
    report = json.loads((made / 'curve.json').read_text())
    assert [row['ratio'] for row in report['rows']] == RATIOS == report['asked']['ratios']
    assert all(row['metrics'] for row in report['rows']) and (made / 'curve.csv').is_file()
    models = [load(row['checkpoint']) for row in report['rows']]
    assert all(row['removed'] >= row['ratio'] for row in report['rows'])
    for larger, smaller in zip(models, models[1:], strict=False):
        groups = [m['meta']['prune_state']['groups'] for m in (larger, smaller)]
        assert all(set(g['kept']) <= set(groups[0][n]['kept']) for n, g in groups[1].items())
    assert not (made / 'progress').exists()
    for number in (0, 2):
        own = tmp_path / str(number)
        ended = call_tool(TOOL, *one(checkpoint, own, RATIOS[number], RATIOS[:number]))
        assert ended.code == 0, ended.out
        assert_same(saved(own), models[number])
        written = json.loads((own / 'report.json').read_text())
        assert written['pruned']['metrics'] == report['rows'][number]['metrics']


@pytest.fixture(scope='module')
def whole(run_tool, checkpoint, tmp_path_factory):
    """The model of a run in three steps that nothing has broken off."""
    folder = tmp_path_factory.mktemp('steps') / 'out'
    run_tool(TOOL, *one(checkpoint, folder, 0.3, [0.1, 0.2]), env=ONE_THREAD)
    return saved(folder)


@pytest.mark.slow
def test_killed_in_the_middle_of_steps(whole, checkpoint, run_tool, tmp_path):
    kill_at('step 2 of 3', TOOL, *one(checkpoint, tmp_path, 0.3, [0.1, 0.2]), threads=1)
    assert list((tmp_path / 'progress').rglob('*.pth')) and not list(tmp_path.glob('*_pruned.pth'))
    run_tool(TOOL, *one(checkpoint, tmp_path, 0.3, [0.1, 0.2], flags=['--resume']), env=ONE_THREAD)
    assert_same(saved(tmp_path), whole)
    assert not (tmp_path / 'progress').exists()


@pytest.mark.slow
def test_two_ranks_make_what_one_makes(whole, checkpoint, run_tool, tmp_path):
    line = one(checkpoint, tmp_path, 0.3, [0.1, 0.2], flags=['--launcher', 'pytorch'])
    run_tool(TOOL, *line, ranks=2)
    found = saved(tmp_path)
    assert found['meta']['prune_state']['groups'] == whole['meta']['prune_state']['groups']
    for name, weight in found['state_dict'].items():
        assert torch.allclose(weight, whole['state_dict'][name], rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize(
    ('ratios', 'flags', 'said'),
    [
        ([0.3, 0.2], (), 'each must be larger than the one before'),
        ([0.3, 1.2], (), 'it must be in (0, 1), the fraction removed'),
        ([0.2, 0.3], ('--pruning-ratio', '0.3'), 'prune_cfg.budget.ratio=0.3 (or --pruning-ratio)'),
        ([0.2, 0.3], ('--fine-tune',), '--fine-tune does not go with prune_cfg.budget.ratios'),
        ([0.2, 0.3], ('--from-table', CONFIG, '--ratios', '0.3'), 'so no table'),
        ([0.2, 0.999], (), 'can be removed'),
    ],
)
def test_bad_input_writes_nothing(ratios, flags, said, checkpoint, call_tool, tmp_path):
    out = tmp_path / 'out'
    ended = call_tool(TOOL, *nested(checkpoint, out, ratios=ratios, flags=flags))
    assert ended.code == 2 and said in ended.out, ended.out
    assert not out.exists() or not list(out.rglob('*.*')), list(out.rglob('*'))


def test_training_wants_one_model(checkpoint, call_tool, tmp_path):
    line = nested(checkpoint, tmp_path)
    given = line[line.index('--cfg-options') :]
    ended = call_tool(
        'train', CONFIG, '--load-from', checkpoint, '--work-dir', tmp_path / 'w', *given
    )
    assert (
        ended.code == 2 and 'budget.ratios=[0.1, 0.2, 0.3, 0.4] makes a model of each' in ended.out
    )
