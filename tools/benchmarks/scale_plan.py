"""Which mode for which size: what pruning takes as a whole and block by block, from shapes alone.

The same estimates as ``analysis_struct.py --meta`` with ``prune_cfg.execution.mode='streamed'``, for the
language models of this repository. Nothing is read or computed; memory of streamed runs includes this
process without weights.
"""

import argparse
import sys

from common import ROOT, save

sys.path.insert(0, str(ROOT))
CONFIGS = ROOT / 'projects' / 'configs' / 'LLM'
MODELS = ('smollm2_135m', 'opt_1.3b', 'opt_2.7b', 'llama3_8b', 'llama3_70b', 'llama3_405b')
METHODS = {'sparsegpt50': 'cpu', 'sparsegpt50_disk': 'disk', 'global25': 'disk'}
GB = 10**9


def plan(model: str, method: str, offload: str) -> dict[str, float]:
    """The estimate of one config, in GB."""
    from mmengine.config import Config

    from projects.prune_plugin.evaluation.memory_estimate import rank_memory
    from projects.prune_plugin.workflows.plan_on_meta import build_on_meta
    from projects.prune_plugin.workflows.prune import pruner_from_config
    from projects.prune_plugin.workflows.streamed_estimate import planned

    cfg = Config.fromfile(CONFIGS / f'{model}_{method.removesuffix("_disk")}.py')
    cfg.prune_cfg.execution = dict(mode='streamed', offload=offload)
    meta = build_on_meta(cfg)
    run = planned(meta, meta, pruner_from_config(cfg))
    parameters = list(meta.parameters())
    return dict(
        params=sum(p.numel() for p in parameters),
        weights=rank_memory(parameters, 1, False)['weights'] / GB,
        trained_by_8=rank_memory(parameters, 8, True)['total'] / GB,
        memory=run.estimated_memory / GB,
        disk=run.disk / GB,
        read=run.bytes_read / GB,
    )


def main() -> None:
    """Estimate all."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    rows = {
        model: {method: plan(model, method, offload) for method, offload in METHODS.items()}
        for model in MODELS
    }
    save('scale_plan', dict(unit='GB (10^9 bytes)', windows=128, models=rows))
    for model, methods in rows.items():
        first, disk, units = methods.values()
        print(
            f'| {model} | {first["params"]:,} | {first["weights"]:.3g} | {first["memory"]:.3g} | '
            f'{disk["memory"]:.3g} | {units["memory"]:.3g} | {disk["disk"]:.3g} | {disk["read"]:.3g} | '
            f'{first["trained_by_8"]:.3g} |'
        )


if __name__ == '__main__':
    main()
