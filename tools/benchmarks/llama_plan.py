"""Plan the pruning of a Llama-3-8B on the meta device: 459,008 units, random scores, no weights.

A fresh process does all of it, imports included: build the model, find, score, choose, cut, and
write the table of units.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def plan(folder: Path) -> dict:
    """Do the work, and say how long its steps took."""
    start = time.perf_counter()
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from projects.prune_plugin import build_pruner, slim
    from projects.prune_plugin.profiling import count_params
    from projects.prune_plugin.pruners import timed
    from projects.prune_plugin.reports import UnitTable

    seconds = {'import': time.perf_counter() - start}
    with timed(seconds, 'build'), torch.device('meta'):
        config = LlamaConfig(
            vocab_size=128256,
            hidden_size=4096,
            intermediate_size=14336,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=8,
        )
        model = LlamaForCausalLM(config)
    dense = count_params(model)
    pruner = build_pruner(
        dict(criterion=dict(type='Random', seed=0), budget=dict(type='params', ratio=0.25))
    )
    with timed(seconds, 'plan'):
        decided = pruner.plan(model)
    with timed(seconds, 'slim'):
        slim(model, decided.state)
    with timed(seconds, 'write'):
        UnitTable(decided).write_units(folder / 'units.csv')
    costs = {g.kind: int(c) for g, c in zip(decided.groups, decided.cost, strict=True)}
    return dict(
        units=sum(group.size for group in decided.groups),
        cost_per_unit=costs,
        params=dict(dense=dense, slim=count_params(model)),
        removed=1 - count_params(model) / dense,
        seconds=seconds,
        peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--inner', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    import json

    if args.inner:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(plan(Path(folder))))
        return
    from common import save, spread

    runs, wall = [], []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, __file__, '--inner'], capture_output=True, text=True, check=True
        )
        wall.append(time.perf_counter() - start)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    best = runs[wall.index(sorted(wall)[1])]
    save('llama_plan', dict(process_seconds=spread(wall), **best))


if __name__ == '__main__':
    main()
