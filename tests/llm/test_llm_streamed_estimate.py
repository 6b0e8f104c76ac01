"""What a streamed run will take: said before it, refused where it is too much, and true where it counts."""

import pytest
import torch
from torch import nn

transformers = pytest.importorskip('transformers')

from mmengine.config import Config  # noqa: E402
from tiny_causal import LLAMA  # noqa: E402

import projects.llm  # noqa: E402, F401
from projects.prune_plugin import build_pruner  # noqa: E402
from projects.prune_plugin.common.errors import UserError  # noqa: E402
from projects.prune_plugin.streaming.estimate import (  # noqa: E402
    Counts,
    estimate,
    relative_length,
)
from projects.prune_plugin.streaming.live_bytes import activations_of  # noqa: E402
from projects.prune_plugin.workflows.options import PruneOptions  # noqa: E402
from projects.prune_plugin.workflows.plan_on_meta import (  # noqa: E402
    build_on_meta,
    plan_on_meta,
)
from projects.prune_plugin.workflows.streamed_estimate import chain_of  # noqa: E402

BLOCK = 2 * 32 * 32 + 2 * 16 * 32 + 3 * 32 * 48 + 2 * 32  # parameters: q, o; k, v; the MLP; norms
HIDDEN = 16 * 32 * 4  # bytes of a window


def config(**blocks) -> Config:
    pruner = dict(type='WeightPruner', sparsifier=dict(type='SparseGPT'), include=[r'.*layers\.'])
    execution = dict(mode='streamed', **blocks.pop('execution', {}))
    return Config(
        dict(
            model=dict(type='HFCausalLM', architecture=LLAMA, window=16),
            prune_cfg={**pruner, 'budget': dict(ratio=0.5), 'execution': execution, **blocks},
        )
    )


def estimated(cfg: Config, counts: Counts):
    meta, pruner = build_on_meta(cfg), build_pruner(cfg.prune_cfg.to_dict())
    example, chain = chain_of(meta, pruner)
    return estimate(meta, chain, example, pruner, counts)


def test_what_is_counted():
    found = estimated(config(), Counts(calibration=10, batch_size=2, test=3))
    assert found.block == 4 * BLOCK
    assert found.outside == 4 * (96 * 32 + 32)  # the output layer is tied to the embeddings
    # Embeddings are read at both ends.
    assert found.read == 4 * (2 * BLOCK + 2 * 96 * 32 + 32) and found.written == 4 * (
        2 * BLOCK + 96 * 32 + 32
    )
    # Ten batches of two; four of them in the dense model too, before and behind a block; three to test,
    # in the dense and in the pruned model.
    assert found.states == HIDDEN * (10 * 2 + 2 * 4 * 2 + 2 * 3)
    assert found.disk == found.written + 2 * HIDDEN * (10 * 2 + 4 * 2 + 2 * 3)
    # gate and up are the most weights; nothing has more inputs than down.
    gate_up = max(8 * 4 * 32**2 + 4 * 96 * 32, 4 * 4 * 32**2 + 23 * 96 * 32)
    down = max(8 * 4 * 48**2 + 4 * 32 * 48, 4 * 4 * 48**2 + 23 * 32 * 48)
    assert found.method == max(gate_up, down)
    disk = estimated(config(execution=dict(offload='disk')), Counts(10, 2, 3))
    assert disk.states == 0 and disk.activations < found.activations and disk.disk == found.disk
    twice = estimated(config(), Counts(10, 2, 3, length=2.0))
    assert twice.states == 2 * found.states and twice.method == found.method


def test_activations_of_a_block():
    with torch.device('meta'):
        module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        peak, held = activations_of(module, (torch.zeros(3, 4),), {})
    # The first layer's output and its ReLU, or that and the last output; before the last layer ReLU's.
    assert peak == 4 * 3 * (8 + 8) and held == 4 * 3 * 8


def test_samples_that_are_longer_than_the_example():
    example = ((), {'inputs': torch.zeros(1, 16)})
    assert relative_length(example, [{'inputs': torch.zeros(32)}, {'inputs': torch.zeros(8)}]) == 2
    assert relative_length(example, []) == 1


def test_too_much_is_refused():
    found = estimated(config(execution=dict(max_memory='1MB')), Counts(4))
    with pytest.raises(
        UserError, match="max_memory is '1MB', but the run is estimated to need [0-9]"
    ):
        found.check(
            build_pruner(config(execution=dict(max_memory='1MB')).prune_cfg.to_dict()).execution
        )


def test_a_plan_by_shapes_says_it(tmp_path):
    cfg = config()
    pruner = build_pruner(cfg.prune_cfg.to_dict())
    report = plan_on_meta(cfg, pruner, PruneOptions(None, tmp_path), True)
    run = report.streamed
    assert run.blocks == 2 and run.peak_memory is None and run.estimated_memory > run.bytes_read
    assert report.achieved['weights'] == 0.5 and (tmp_path / 'report.json').is_file()
    units = config(type='StructuredPruner', sparsifier=None, criterion=dict(type='L1'))
    for key in ('sparsifier', 'include'):
        units.prune_cfg.pop(key)
    units.prune_cfg.budget = dict(type='params', ratio=0.25)
    pruner = build_pruner(units.prune_cfg.to_dict())
    slim = plan_on_meta(units, pruner, PruneOptions(None, tmp_path), False)
    assert slim.streamed.bytes_written == 4 * slim.pruned.params < run.bytes_written
