"""Forward time of VAD-tiny against its FLOPs: dense, and with 30 and 50 % of its parameters removed."""

import argparse
from copy import deepcopy

import torch
from common import ROOT, save, spread
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

import projects.vad  # noqa: F401
from projects.prune_plugin import build_pruner, slim
from projects.prune_plugin.common.glibc_memory import keep_freed_memory
from projects.prune_plugin.evaluation.example_inputs import example_input
from projects.prune_plugin.evaluation.flops import module_flops
from projects.prune_plugin.evaluation.latency import interleaved_latency
from projects.prune_plugin.evaluation.profiling import count_params

CONFIG = ROOT / 'projects/configs/VAD/VAD_tiny_stage_2.py'
RATIOS = (0.3, 0.5)


def main() -> None:
    """Prune, time in turn, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()  # as the tools do
    cfg = Config.fromfile(CONFIG)
    init_default_scope(cfg.default_scope)
    cfg.model.img_backbone.init_cfg = None
    torch.manual_seed(0)
    dense = MODELS.build(cfg.model).eval()
    dense.init_weights()
    models = {'dense': dense}
    for ratio in RATIOS:
        # The same share of every layer: random weights have no layer worth less than another.
        pruner = build_pruner(
            dict(allocator=dict(type='Uniform'), budget=dict(type='params', ratio=ratio))
        )
        models[str(ratio)] = slim(deepcopy(dense), pruner.plan(dense).state).eval()
    call_args, kwargs = example_input(dense, 1)
    with torch.inference_mode():
        calls = [lambda m=m: m(*call_args, **kwargs) for m in models.values()]
        rounds: list[list[float]] = [[] for _ in calls]
        for _ in range(args.rounds):
            for times, ms in zip(rounds, interleaved_latency(calls, 0, args.threads), strict=True):
                times.append(ms)
    rows = {
        name: dict(
            params=count_params(model),
            flops=sum(module_flops(model, (call_args, kwargs), warm=True).values()),
            ms=spread(times)['median'],
            ms_spread=spread(times),
        )
        for (name, model), times in zip(models.items(), rounds, strict=True)
    }
    base = rows.pop('dense')
    for row in rows.values():
        row['flops_ratio'] = base['flops'] / row['flops']
        row['latency_ratio'] = base['ms'] / row['ms']
        row['latency_per_flops_ratio'] = row['latency_ratio'] / row['flops_ratio']
    units = 'L1, every default kind of unit, the same share of every layer'
    save('vad_speed', dict(units=units, rounds=args.rounds, dense=base, pruned=rows))


if __name__ == '__main__':
    main()
