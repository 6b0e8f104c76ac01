"""What ``tools/latency_table.py`` writes, and the script that measures it anywhere."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models as tiny
from mmengine.config import Config
from mmengine.registry import MODELS

pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')
pytest.importorskip('timm')
onnx = pytest.importorskip('onnx')

from projects.prune_plugin import UserError  # noqa: E402
from projects.prune_plugin.workflows.latency_shapes import write_latency_shapes  # noqa: E402
from projects.prune_plugin.workflows.prune import pruner_from_config  # noqa: E402

BUDGET = dict(type='latency', ratio=0.2, table='not_there_yet.csv')
UNITS = [dict(type='AttentionHeads'), dict(type='FFNNeurons')]


@MODELS.register_module()
def LatencyTableViT(**kwargs):
    return tiny.timm_vit(**kwargs)


def config(**prune_cfg) -> Config:
    profile = dict(input_shape=(3, 32, 32), batch_size=2)
    prune_cfg = dict(dict(units=UNITS, budget=BUDGET, profile=profile), **prune_cfg)
    return Config(dict(model=dict(type='LatencyTableViT'), prune_cfg=prune_cfg))


def rows_of(path: Path) -> list[dict]:
    with open(path, newline='') as file:
        return list(csv.DictReader(file))


def measure(folder: Path, *words: str) -> subprocess.CompletedProcess:
    """The script in a process of its own, with nothing of this project to import."""
    command = [sys.executable, '-I', str(folder / 'measure_latency.py'), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder)


@pytest.fixture(scope='module')
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('orin')
    files = write_latency_shapes(config(), None, folder, points=2)
    assert [file.name for file in files] == ['shapes.csv', 'measure_latency.py']
    return folder


def test_the_list_has_each_shape_once_and_graphs_have_no_weights(written):
    rows = rows_of(written / 'shapes.csv')
    assert [(row['layer'], row['units']) for row in rows] == [
        ('model', str(2 * (4 + 192))),
        ('blocks.0.attn', '1'),
        ('blocks.0.attn', '4'),
        ('blocks.0.mlp', '1'),
        ('blocks.0.mlp', '192'),
    ]
    assert {row['milliseconds'] for row in rows} == {''}
    for row in rows:
        graph = written / row['graph']
        assert graph.stat().st_size < 60_000
        weights = [t for t in onnx.load(graph).graph.initializer if not t.raw_data]
        assert weights or row['units'] == '1'


def test_what_the_script_measures_is_what_the_budget_takes(written):
    ended = measure(written, '--seconds', '0.01')
    assert ended.returncode == 0, ended.stderr
    rows = rows_of(written / 'latency.csv')
    assert all(float(row['milliseconds']) > 0 for row in rows)
    cfg = config(budget=dict(BUDGET, table=str(written / 'latency.csv')))
    pruner, model = pruner_from_config(cfg), tiny.timm_vit().eval()
    groups = pruner.find(model).groups
    cost = pruner.cost(model, groups)
    assert cost.base == float(rows[0]['milliseconds'])
    for group, (counts, times) in zip(groups, cost.tables, strict=True):
        found = [row for row in rows if row['layer'].endswith(group.name.rpartition('.')[2])]
        assert counts.tolist() == [float(row['units']) for row in found]
        assert times[-1] == max(float(row['milliseconds']) for row in found)


def test_the_script_reads_what_trtexec_says(written, tmp_path):
    trtexec = tmp_path / 'trtexec'
    trtexec.write_text(
        f'#!{sys.executable}\nimport sys\nassert sys.argv[2:] == ["--fp16"]\n'
        'size = len(open(sys.argv[1].removeprefix("--onnx="), "rb").read())\n'
        'print(f"[I] GPU Compute Time: min = 1 ms, mean = 2 ms, median = {size / 1e3} ms, max = 3 ms")\n'
    )
    trtexec.chmod(0o755)
    words = ('--out', str(tmp_path / 'trt.csv'), '--trtexec', str(trtexec))
    ended = measure(written, *words, '--trtexec-args=--fp16')
    assert ended.returncode == 0, ended.stderr
    first, *rest = [float(row['milliseconds']) for row in rows_of(tmp_path / 'trt.csv')]
    weights = sum(p.numel() for p in tiny.timm_vit().parameters())
    assert 4e-3 * weights < first < 4e-3 * weights + 100  # filled in
    assert rest[1] > rest[0] and rest[3] > rest[2]
    ended = measure(written, *words[:3], str(tmp_path / 'gone'))
    assert (ended.returncode, ended.stderr.count('\n')) == (1, 1)
    assert ended.stderr.startswith(f'error: {tmp_path}/gone cannot be started')


def test_what_cannot_be_listed_is_refused_and_nothing_written(tmp_path):
    weights = config(type='WeightPruner', budget=dict(type='weights', ratio=0.5))
    weights.prune_cfg.pop('units')
    with pytest.raises(UserError, match="prune_cfg.type is 'WeightPruner', which removes no units"):
        write_latency_shapes(weights, None, tmp_path)
    shapeless = config(profile=dict(batch_size=1))
    with pytest.raises(UserError, match='tools/latency_table.py needs an example input'):
        write_latency_shapes(shapeless, None, tmp_path)
    assert not list(tmp_path.iterdir())
