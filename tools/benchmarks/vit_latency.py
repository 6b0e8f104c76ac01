"""Latency of a 70 % pruned ViT-Small against its FLOPs and against the same model cut by hand.

The hand-cut model is built by code that knows nothing of the plugin: timm's own layers, made anew
with the widths that the plugin chose.
"""

import argparse
import sys
from copy import deepcopy
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import timm  # noqa: E402
import torch  # noqa: E402
from common import save  # noqa: E402
from torch import nn  # noqa: E402

from projects.prune_plugin import build_pruner, slim  # noqa: E402
from projects.prune_plugin.evaluation.flops import module_flops  # noqa: E402
from projects.prune_plugin.evaluation.latency import model_latency  # noqa: E402
from projects.prune_plugin.evaluation.profiling import count_params  # noqa: E402


def cut_by_hand(dense: nn.Module, heads: list[int], neurons: list[int]) -> nn.Module:
    """timm's ViT with new linear layers of the given widths (weights don't matter for time)."""
    model = deepcopy(dense)
    for block, h, n in zip(model.blocks, heads, neurons, strict=True):
        attn, width = block.attn, block.attn.head_dim
        attn.qkv = nn.Linear(attn.qkv.in_features, 3 * h * width)
        attn.proj = nn.Linear(h * width, attn.proj.out_features)
        attn.num_heads, attn.attn_dim = h, h * width
        block.mlp.fc1 = nn.Linear(block.mlp.fc1.in_features, n)
        block.mlp.fc2 = nn.Linear(n, block.mlp.fc2.out_features)
    return model.eval()


def formula(
    heads: list[int], neurons: list[int], tokens: int = 65, dim: int = 384
) -> tuple[int, int]:
    """Parameters and FLOPs of a ViT (32x32 images, patch 4, 10 classes, head width 64) by hand."""
    patch, classes = 3 * 4 * 4, 10
    params = dim * (patch + 1) + dim + tokens * dim + 2 * dim + classes * (dim + 1)
    macs = (tokens - 1) * patch * dim + dim * classes
    for h, n in zip(heads, neurons, strict=True):
        inner = 64 * h
        params += 4 * dim + 3 * inner * (dim + 1) + dim * (inner + 1)
        params += n * (dim + 1) + dim * (n + 1)
        macs += tokens * dim * (4 * inner + 2 * n) + 2 * tokens * tokens * inner
    return params, 2 * macs


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--ratio', type=float, default=0.7)
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--seconds', type=float, default=60.0)
    args = parser.parse_args()
    torch.manual_seed(0)
    dense = timm.create_model('vit_small_patch16_224', img_size=32, patch_size=4, num_classes=10)
    pruner = build_pruner(dict(budget=dict(type='units', ratio=args.ratio)))
    plan = pruner.plan(dense.eval())
    slimmed = slim(deepcopy(dense), plan.state)
    heads = [len(plan.state.kept[f'blocks.{i}.attn']) for i in range(12)]
    neurons = [len(plan.state.kept[f'blocks.{i}.mlp']) for i in range(12)]
    by_hand = cut_by_hand(dense, heads, neurons)

    one = ((torch.zeros(1, 3, 32, 32),), {})
    flops = {
        n: sum(module_flops(m, one).values()) for n, m in (('dense', dense), ('slim', slimmed))
    }
    params = {'dense': count_params(dense), 'slim': count_params(slimmed)}
    dense_formula, slim_formula = formula([6] * 12, [1536] * 12), formula(heads, neurons)
    batch = ((torch.randn(args.batch_size, 3, 32, 32),), {})
    names = ('dense', 'slim', 'by_hand')
    times = model_latency([dense, slimmed, by_hand], batch, seconds=args.seconds, num_threads=1)
    latency = dict(zip(names, times, strict=True))
    speedup = latency['dense'] / latency['slim']
    flops_ratio = flops['dense'] / flops['slim']
    save(
        'vit_latency',
        dict(
            ratio=args.ratio,
            batch_size=args.batch_size,
            heads=heads,
            neurons=neurons,
            params=params,
            flops=flops,
            formula=dict(
                params=dict(dense=dense_formula[0], slim=slim_formula[0]),
                flops=dict(dense=dense_formula[1], slim=slim_formula[1]),
            ),
            latency_ms=latency,
            speedup=speedup,
            flops_ratio=flops_ratio,
            speedup_per_flops_ratio=speedup / flops_ratio,
            slim_against_by_hand=latency['slim'] / latency['by_hand'],
        ),
    )


if __name__ == '__main__':
    main()
