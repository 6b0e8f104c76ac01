"""What the tests of streamed pruning share: reading folders, running and killing runs."""

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config
from safetensors import safe_open

from projects.prune_plugin.checkpoints.model_loading import load_model
from projects.prune_plugin.evaluation.test_set import TestSet
from projects.prune_plugin.workflows.options import PruneOptions
from projects.prune_plugin.workflows.prune import data_factory, make_plan, pruner_from_config, score
from projects.prune_plugin.workflows.streamed import prune_streamed


def in_memory(cfg: Config, table: str | None = None) -> tuple[dict, dict, dict]:
    """Weights, zeros by weight, and metrics before and after, of a model that is held as a whole."""
    loaded, pruner, test_set = load_model(cfg, None), pruner_from_config(cfg), TestSet(cfg)
    data, options = data_factory(cfg, pruner), PruneOptions(None, Path(), from_table=table)
    metrics = {'dense': test_set.evaluate(loaded.model, 'dense')}
    pruner.check(loaded.model, data)
    plan = make_plan(pruner, loaded, options, score(pruner, loaded, options, data))
    pruned = pruner.apply(loaded.model, plan, data)
    metrics['pruned'] = test_set.evaluate(pruned.model, 'pruned')
    zeros = {name: mask.numel() - int(mask.sum()) for name, mask in pruned.masks.items()}
    return pruned.model.state_dict(), zeros, metrics


def scored(cfg: Config, table: str) -> None:
    """Save the scores of a model that is held as a whole."""
    loaded, pruner = load_model(cfg, None), pruner_from_config(cfg)
    options = PruneOptions(None, Path(), save_table=table)
    make_plan(pruner, loaded, options, score(pruner, loaded, options, data_factory(cfg, pruner)))


def read_folder(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder's shards, by the names that the wrapped model has."""
    tensors = {}
    for file in folder.glob('*.safetensors'):
        with safe_open(file, 'pt') as opened:
            tensors |= {f'lm.{name}': opened.get_tensor(name) for name in opened.keys()}
    return tensors


def streamed(cfg: Config, folder: Path, **options) -> tuple[dict, dict]:
    """Weights and report of a streamed run."""
    result = prune_streamed(cfg, pruner_from_config(cfg), PruneOptions(None, folder, **options))
    return read_folder(result.trained()), json.loads((folder / 'report.json').read_text())


def assert_same(ours: dict, theirs: dict) -> None:
    """The same names and the same bits."""
    assert ours.keys() == theirs.keys()
    assert not [name for name in ours if not torch.equal(ours[name], theirs[name])]


def killed(run: Callable[[], object], owner: type, method: str, call: int, after: bool) -> None:
    """Run in a process of its own that kills itself at the ``call``-th call of a method."""

    def child() -> None:
        original, calls = getattr(owner, method), iter(range(1, 10_000))

        def deadly(*args, **kwargs):
            number = next(calls)
            result = original(*args, **kwargs) if number < call or after else None
            if number == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, method, deadly)
        run()

    process = multiprocessing.get_context('fork').Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
