"""Latency budgets by engine and by the table of another machine."""

import csv
import importlib.util
from functools import partial

import pytest
import tiny_models as tiny
import torch
from cases import BY_NAME

from projects.prune_plugin import StructuredPruner, UserError, build_pruner, slim
from projects.prune_plugin.checkpoints.engines import timing
from projects.prune_plugin.evaluation.example_inputs import example_input
from projects.prune_plugin.methods.budgets import layer_shapes
from projects.prune_plugin.methods.budgets.latency_table import LatencyTable

PROFILE = dict(input_shape=(3, 32, 32), batch_size=2)
ENGINES = ('onnxruntime', 'openvino')
EXAMPLE = ((torch.zeros(2, 3, 32, 32),), {})


def needs(engine: str):
    packages = timing.TIMING_ENGINES[engine].packages
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.param(engine, marks=pytest.mark.skipif(bool(missing), reason=f'no {missing}'))


def vit_pruner(**budget) -> StructuredPruner:
    budget = dict(dict(type='latency', ratio=0.3), **budget)
    return StructuredPruner(BY_NAME['vit'].units, budget=budget, profile=PROFILE)


@pytest.fixture
def outputs(monkeypatch) -> list:
    """What the engines compute when they are timed, with the number of outputs as the 'time'."""
    seen = []

    def run(calls, *_, **__):
        for call in calls:
            found = call()
            found = list(found.to_tuple()) if hasattr(found, 'to_tuple') else found
            seen.append([torch.from_numpy(array.copy()) for array in found])
        return [float(i + 1) for i in range(len(calls))]

    monkeypatch.setattr(timing, 'interleaved_latency', run)
    return seen


@pytest.mark.parametrize('engine', map(needs, ENGINES))
def test_layers_alone_compute_the_same_in_the_engine(engine, outputs):
    """At every width that is timed, on the inputs of the first call, and the model as a whole."""
    case, dense = BY_NAME['vit'], BY_NAME['vit'].dense()
    groups = case.groups()[:2]
    torch.manual_seed(0)
    example = ((torch.randn(2, 3, 32, 32),), {})
    calls = layer_shapes.owner_calls(dense, groups, example)
    measure = partial(timing.TIMING_ENGINES[engine].latency, seconds=0, num_threads=1)
    expected = []
    for group in groups:
        modules = [layer_shapes.slim_owner(dense, group, n) for n in (1, group.size)]
        measure(modules, calls[group.owner])
        args, kwargs = calls[group.owner]
        expected += [module(*args, **kwargs) for module in modules]
    measure([dense], example)
    expected.append(dense(*example[0]))
    for (found,), wanted in zip(outputs, expected, strict=True):
        torch.testing.assert_close(found, wanted.detach(), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize('engine', map(needs, ENGINES[:1]))
def test_the_plan_and_the_report_s_figure_are_the_engine_s(engine, monkeypatch):
    """With a clock in which only the engine's own calls take time: as long as the module is large."""
    sizes = []

    def call(self, data, inputs, num_threads):
        sizes.append(len(data))
        return lambda: None

    def graph(module, example, engine):
        return bytes(sum(p.numel() for p in module.parameters())), []

    def by_size(calls, *_, **__):
        return [size / 1e3 for size in sizes[-len(calls) :]]

    monkeypatch.setattr(timing, 'onnx_call', graph)
    monkeypatch.setattr(timing.OnnxruntimeTiming, 'call', call)
    monkeypatch.setattr(timing, 'interleaved_latency', by_size)
    dense = BY_NAME['vit'].dense()
    pruner = vit_pruner(engine=engine, points=3)
    plan = pruner.plan(dense)
    assert pruner.asked == {'budget': 'latency in onnxruntime', 'ratio': 0.3}
    pruned = slim(BY_NAME['vit'].dense(), plan.state)
    result = pruner.budget.remeasured(dense, pruned, {**PROFILE, 'example': None})
    assert (result.quantity, result.asked, result.unit) == ('latency in onnxruntime', 0.3, 'ms')
    assert result.dense == sizes[-2] / 1e3 and result.pruned == sizes[-1] / 1e3
    assert result.achieved == pytest.approx(1 - sizes[-1] / sizes[-2])
    assert result.achieved == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize('engine', map(needs, ENGINES[:1]))
def test_what_an_engine_cannot_run_is_said(engine):
    class ByValue(torch.nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(UserError, match=r"ByValue cannot be run in onnxruntime \(.*engine='torch'"):
        timing.TIMING_ENGINES[engine].latency([ByValue()], ((torch.ones(1),), {}), 0, 1)


def test_what_is_unknown_or_missing_is_refused(monkeypatch, tmp_path):
    with pytest.raises(UserError, match="engine is 'tvm'; valid are torch, onnxruntime, openvino"):
        vit_pruner(engine='tvm')
    table = table_file(tmp_path, [('a', 1, 1.0)])
    with pytest.raises(UserError, match="measured elsewhere, and engine 'onnxruntime'; leave one"):
        monkeypatch.setattr(timing, 'find_spec', lambda name: True)
        vit_pruner(engine='onnxruntime', table=table)
    monkeypatch.setattr(timing, 'find_spec', lambda name: None)
    for engine, extra in (('onnxruntime', 'export'), ('openvino', 'export,openvino')):
        with pytest.raises(UserError, match=rf"engine is '{engine}', .* -e \"\.\[{extra}\]\""):
            vit_pruner(engine=engine)


# Tables


def table_file(folder, rows, header=('shape', 'units', 'milliseconds'), name='orin.csv') -> str:
    with open(folder / name, 'w', newline='') as file:
        csv.writer(file).writerows([header, *rows])
    return str(folder / name)


def measured_elsewhere(dense, groups, per_unit) -> list[tuple]:
    """Rows of a machine on which a unit of a group takes ``per_unit(group)`` ms, and the rest 1 ms."""
    calls = layer_shapes.owner_calls(dense, groups, EXAMPLE)
    rows = []
    for group in groups:
        shape = layer_shapes.layer_shape(dense, group, calls[group.owner])
        rows += [(shape, n, 0.5 + per_unit(group) * n) for n in (1, group.size // 2, group.size)]
    total = 1 + sum(per_unit(group) * group.size for group in groups)
    return [(layer_shapes.model_shape(dense, EXAMPLE), 0, total), *rows]


@pytest.mark.parametrize('slow', ['attention', 'mlp'])
def test_the_plan_follows_the_table(slow, tmp_path):
    """The layers that another machine is slow at are cut first, whatever this one is slow at."""
    case, dense = BY_NAME['vit'], BY_NAME['vit'].dense()
    groups = case.groups()
    rows = measured_elsewhere(dense, groups, lambda g: 1.0 if g.kind == slow else 1e-6)
    total, half = rows[0][2], sum(g.size for g in groups if g.kind == slow) // 2
    # As much as half of the slow units take.
    pruner = vit_pruner(table=table_file(tmp_path, rows), ratio=half / total - 1e-9)
    plan = pruner.plan(dense)
    gone = {'attention': 0, 'mlp': 0}
    for group in plan.groups:
        gone[group.kind] += group.size - len(plan.state.kept[group.name])
    assert gone == {'attention': 0, 'mlp': 0} | {slow: half}
    assert (plan.result.dense, plan.result.quantity) == (total, 'latency by orin.csv')
    assert plan.result.pruned == pytest.approx(total - half)
    assert pruner.budget.remeasured(dense, dense, PROFILE) is None


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (lambda rows: rows[1:], "has no row for the whole model, shape 'model "),
        (lambda rows: rows[:1], r"has no row for \S+attn, shape 'Attention attention \d+ 2x"),
        (lambda rows: rows[:2], 'has rows of 1 units alone for .*attn, .* needs 4 units and at'),
        (lambda rows: [('a', 'x', 1.0)], "line 2: units is 'x' and milliseconds '1.0'; they must"),
        (lambda rows: [('a', 1, '')], "milliseconds ''; they must be a whole number and a number"),
        (lambda rows: [('a', 1, 'nan')], "milliseconds 'nan'; they must"),
        (lambda rows: [('a', 1, -1)], "milliseconds '-1'; they must"),
        (lambda rows: [('a', 1)], "milliseconds ''; they must"),
        (
            lambda rows: [('a', 1, 2), ('a', 1, 3)],
            "line 3: 'a' with 1 units has another time above",
        ),
    ],
)
def test_broken_tables_are_refused(change, said, tmp_path):
    dense = BY_NAME['vit'].dense()
    rows = measured_elsewhere(dense, BY_NAME['vit'].groups(), lambda group: 1.0)
    before = {name: x.clone() for name, x in dense.state_dict().items()}
    with pytest.raises(UserError, match=rf'prune_cfg\.budget\.table .*orin\.csv.*{said}'):
        vit_pruner(table=table_file(tmp_path, change(rows))).plan(dense)
    assert all(torch.equal(before[name], x) for name, x in dense.state_dict().items())


def test_files_that_are_no_tables_are_refused(tmp_path):
    for content, said in (
        (None, 'cannot be read: No such file'),
        (b'\xff\xfe', 'is no CSV file'),
        (b'', 'has no column shape, units, milliseconds; it needs shape, units, milliseconds'),
        (b'shape,units\n', 'has no column milliseconds'),
    ):
        path = tmp_path / 'a.csv'
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UserError, match=f'prune_cfg.budget.table {path} {said}'):
            build_pruner(dict(budget=dict(type='latency', table=str(path))))
    with pytest.raises(UserError, match='table is 3; it must be the path'):
        LatencyTable(3)


def test_shapes_are_named_alike_everywhere():
    """Two models of the same shapes, not the same weights; another width has another name."""
    named = []
    for seed, width in ((0, 4), (1, 4), (0, 3)):
        torch.manual_seed(seed)
        model = tiny.timm_vit(mlp_ratio=width).eval()
        groups = build_pruner(dict(units=BY_NAME['vit'].units)).discover(model)[0]
        example = example_input(model, 2, (3, 32, 32))
        calls = layer_shapes.owner_calls(model, groups, example)
        shapes = [layer_shapes.layer_shape(model, g, calls[g.owner]) for g in groups]
        named.append([*shapes, layer_shapes.model_shape(model, example)])
    assert named[0] == named[1]
    same = [a == b for a, b in zip(named[0], named[2], strict=True)]
    assert same == [g.kind == 'attention' for g in groups] + [False]
