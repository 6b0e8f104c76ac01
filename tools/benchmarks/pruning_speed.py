"""Time to prune a ViT-Small: this plugin against torch-pruning, in turn in one process.

Both find the units, score them by L1 magnitude, choose 70 % of heads and neurons over all layers,
and cut the model; neither evaluates or saves anything.
"""

import argparse
import sys
from copy import deepcopy
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import timm  # noqa: E402
import torch  # noqa: E402
from common import alternate, save, spread  # noqa: E402
from torch import nn  # noqa: E402

from projects.prune_plugin import build_pruner, slim  # noqa: E402
from projects.prune_plugin.evaluation.profiling import count_params  # noqa: E402


def prune_here(model: nn.Module, ratio: float) -> nn.Module:
    """Prune with the plugin."""
    pruner = build_pruner(dict(budget=dict(type='units', ratio=ratio)))
    return slim(model, pruner.plan(model).state)


def prune_there(model: nn.Module, ratio: float) -> nn.Module:
    """Prune inner widths only, with torch-pruning, as its own timm example does."""
    import torch_pruning

    heads, ignored = {}, [model.head, model.patch_embed.proj]
    for block in model.blocks:
        heads[block.attn.qkv] = block.attn.num_heads
        ignored += [block.attn.proj, block.mlp.fc2]
        block.attn.fused_attn = False  # its tracer needs to see the products
    pruner = torch_pruning.pruner.BasePruner(
        model,
        torch.zeros(1, 3, 32, 32),
        importance=torch_pruning.importance.MagnitudeImportance(p=1),
        global_pruning=True,
        pruning_ratio=ratio,
        ignored_layers=ignored,
        num_heads=heads,
        prune_num_heads=True,
        prune_head_dims=False,
        head_pruning_ratio=ratio,
    )
    pruner.step()
    for block in model.blocks:
        attn = block.attn
        attn.num_heads = pruner.num_heads[attn.qkv]
        attn.attn_dim = attn.qkv.out_features // 3
    return model


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--ratio', type=float, default=0.7)
    parser.add_argument('--rounds', type=int, default=5)
    args = parser.parse_args()
    torch.manual_seed(0)
    dense = timm.create_model('vit_small_patch16_224', img_size=32, patch_size=4, num_classes=10)
    dense.eval()
    results: dict[str, nn.Module] = {}

    def run(name: str, prune) -> None:
        results[name] = prune(deepcopy(dense), args.ratio)

    seconds = alternate(
        {
            'copy': lambda: deepcopy(dense),
            'here': lambda: run('here', prune_here),
            'torch_pruning': lambda: run('torch_pruning', prune_there),
        },
        args.rounds,
    )
    copying = spread(seconds.pop('copy'))['median']
    times = {name: spread([s - copying for s in taken]) for name, taken in seconds.items()}
    left = {name: count_params(model) for name, model in results.items()}
    for model in results.values():
        model(torch.zeros(1, 3, 32, 32))
    save(
        'pruning_speed',
        dict(
            ratio=args.ratio,
            rounds=args.rounds,
            seconds=times,
            params=dict(dense=count_params(dense), **left),
            here_per_torch_pruning=times['here']['median'] / times['torch_pruning']['median'],
        ),
    )


if __name__ == '__main__':
    main()
