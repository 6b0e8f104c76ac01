"""Which models can be pruned: small ones of timm, torchvision, transformers and OpenMMLab's packages.

One per file of timm, all classifiers of torchvision, a tiny one for each type of causal language model
and for some eighty types of encoders, one per folder of configs of mmdet, mmdet3d and mmseg. Each is built
with random weights and pruned by L1 with the default settings and an example input (OpenMMLab's with the
plugin's own); its slim and its masked form are compared. timm's and torchvision's are pruned by
torch-pruning's defaults as well.

    python tools/benchmarks/coverage_sweep.py timm
"""

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from coverage_encoders import encoder_model, encoder_names  # noqa: E402
from coverage_openmmlab import folder_model, folder_names  # noqa: E402

os.environ.setdefault('HF_HUB_OFFLINE', '1')
os.environ.setdefault('TRANSFORMERS_VERBOSITY', 'critical')

OPENMMLAB = ('mmdet', 'mmdet3d', 'mmseg')
#: Fraction of all parameters to remove, by library.
RATIOS = {
    'timm': 0.3,
    'torchvision': 0.3,
    'transformers': 0.2,
    'encoders': 0.2,
    **dict.fromkeys(OPENMMLAB, 0.3),
}
#: Largest model that is tried, in parameters.
LARGEST = {name: 160_000_000 if name in OPENMMLAB else 90_000_000 for name in RATIOS}
#: Sizes of the tiny language models, by keys of transformers' configs.
TINY = {
    **dict.fromkeys(('hidden_size', 'n_embd', 'd_model', 'word_embed_proj_dim'), 64),
    **dict.fromkeys(
        ('num_hidden_layers', 'n_layer', 'num_layers', 'n_layers', 'decoder_layers'), 4
    ),
    **dict.fromkeys(('num_attention_heads', 'n_head', 'n_heads', 'decoder_attention_heads'), 4),
    **dict.fromkeys(('intermediate_size', 'n_inner', 'ffn_dim', 'd_ff', 'ffn_hidden_size'), 96),
    **dict.fromkeys(('max_position_embeddings', 'n_positions', 'n_ctx'), 128),
    **dict.fromkeys(('head_dim', 'v_head_dim', 'kv_lora_rank', 'q_lora_rank', 'rotary_dim'), 16),
    **dict.fromkeys(('num_experts', 'num_local_experts', 'n_routed_experts'), 4),
    **dict.fromkeys(('n_shared_experts', 'n_group', 'topk_group', 'first_k_dense_replace'), 1),
    **dict(num_key_value_heads=2, vocab_size=160, moe_intermediate_size=48, num_experts_per_tok=2),
    **dict(decoder_ffn_dim=96, qk_rope_head_dim=8, qk_nope_head_dim=8, num_kv_shared_layers=0),
    **dict(pad_token_id=0, bos_token_id=1, eos_token_id=2),
}


def stirred(model: Any) -> Any:
    """With noise on every parameter and statistic: zeros and ones hide mistakes."""
    import torch

    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.add_(0.03 * torch.randn(parameter.shape, generator=generator))
        for name, buffer in model.named_buffers():
            if name.endswith('running_var'):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model.eval()


def size(model: Any) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


# What there is


def timm_names() -> Iterator[str]:
    """The smallest model of each file of timm."""
    import timm
    import torch
    from timm.models import _registry

    for module in sorted(_registry._module_to_models):
        sizes = []
        names = [n for n in timm.list_models(module=module) if not n.startswith('tf_')]
        for name in sorted(names, key=lambda name: (len(name), name))[:8]:
            try:
                with torch.device('meta'):
                    sizes.append((size(timm.create_model(name)), name))
            except Exception:  # needs a package, or tensors that hold numbers
                continue
        if sizes:
            yield min(sizes)[1]


def torchvision_names() -> Iterator[str]:
    """All classifiers of torchvision."""
    import torchvision

    yield from torchvision.models.list_models(module=torchvision.models)


def transformers_names() -> Iterator[str]:
    """All types of causal language models of transformers."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    yield from sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def timm_model(name: str) -> tuple[Any, Any]:
    """A model of timm and its example input."""
    import timm
    import torch

    model = timm.create_model(name)
    return model, torch.randn(1, *model.pretrained_cfg['input_size'])


def torchvision_model(name: str) -> tuple[Any, Any]:
    """A classifier of torchvision and its example input."""
    import torch
    import torchvision

    edge = 299 if 'inception_v3' in name else 224
    options = {'init_weights': False} if name in ('inception_v3', 'googlenet') else {}
    model = torchvision.models.get_model(name, weights=None, **options)
    return model, torch.randn(1, 3, edge, edge)


def transformers_model(name: str) -> tuple[Any, Any]:
    """A tiny language model and its example input."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    base = AutoConfig.for_model(name)
    sizes = {key: value for key, value in TINY.items() if hasattr(base, key)}
    try:
        config = AutoConfig.for_model(name, **sizes)
    except Exception:  # some keys only go one by one
        config = base
        for key, value in sizes.items():
            try:
                setattr(config, key, value)
            except Exception:  # follows from others
                continue
    with torch.device('meta'):
        total = size(AutoModelForCausalLM.from_config(config))
    if total > 8_000_000:
        raise ValueError(f'{total:,} parameters')
    return AutoModelForCausalLM.from_config(config).float(), {
        'input_ids': torch.randint(3, 150, (1, 24), generator=torch.Generator().manual_seed(0))
    }


NAMES: dict[str, Callable[[], Iterator[str]]] = {
    'timm': timm_names, 'torchvision': torchvision_names, 'transformers': transformers_names,
    'encoders': encoder_names, **{package: partial(folder_names, package) for package in OPENMMLAB},
}  # fmt: skip
MODELS: dict[str, Callable[[str], tuple[Any, Any]]] = {
    'timm': timm_model, 'torchvision': torchvision_model, 'transformers': transformers_model,
    'encoders': encoder_model, **{package: partial(folder_model, package) for package in OPENMMLAB},
}  # fmt: skip


# What comes of it


def run(model: Any, example: Any) -> list[Any]:
    """The tensors that count of what a model gives."""
    import torch
    from torch.utils._pytree import tree_leaves

    if example is None:
        return []
    with torch.no_grad():
        torch.manual_seed(0)  # some draw masks
        if isinstance(example, dict):
            out = model(**example, **({'use_cache': False} if model.can_generate() else {}))
            leaves = [out.logits] if hasattr(out, 'logits') else tree_leaves(tuple(out.values()))
            return [x for x in leaves if isinstance(x, torch.Tensor) and x.is_floating_point()]
        if hasattr(example, 'on'):
            leaves = tree_leaves(example.copied().on(model))
            return [x for x in leaves if isinstance(x, torch.Tensor) and x.is_floating_point()]
        out = model(example)
    return [out if isinstance(out, torch.Tensor) else out[0]]


def difference(one: list[Any], other: list[Any]) -> float:
    """The largest difference of two runs, relative to the largest value of the other."""
    pairs = zip(one, other, strict=True)
    gaps = (float((a - b).abs().max() / b.abs().max().clamp(min=1e-9)) for a, b in pairs)
    return max(gaps, default=0.0)


def reach(model: Any, groups: Any) -> float:
    """The share of the weights, embeddings and the head aside, in tensors that units own something of."""
    aside = ('embed', 'lm_head', 'wte', 'wpe')
    cut = {c.name for group in groups for c in group.cuts}
    sizes = {n: p.numel() for n, p in model.named_parameters() if not any(a in n for a in aside)}
    return sum(count for name, count in sizes.items() if name in cut) / max(sum(sizes.values()), 1)


def prune_here(model: Any, example: Any, ratio: float, generate: bool) -> dict[str, Any]:
    """Prune with the plugin; how far that goes, and whether slim equals masked."""
    from projects.prune_plugin import UserError, build_pruner, mask, slim

    start = time.perf_counter()
    try:
        pruner = build_pruner(dict(budget=dict(type='params', ratio=ratio)))
        own = example is None or hasattr(example, 'on')  # a call that the plugin has found
        plan = pruner.plan(model, example_inputs=None if own else example)
    except UserError as error:
        return dict(ok=False, why=str(error))
    row: dict[str, Any] = dict(reach=round(reach(model, plan.groups), 3), kinds={})
    row['seconds'] = round(time.perf_counter() - start, 2)
    for group in plan.groups:
        row['kinds'][group.kind] = row['kinds'].get(group.kind, 0) + 1
    slimmed = slim(deepcopy(model), plan.state)
    masked = run(mask(deepcopy(model), plan.state), example)
    gap = difference(run(slimmed, example), masked)
    row |= dict(
        compared=example is not None,
        removed=round(1 - size(slimmed) / size(model), 4),
        difference=gap,
    )
    row['ok'] = gap < 1e-3 and abs(row['removed'] - ratio) < 0.02
    if generate and not can_generate(slimmed, example):
        row['generates'] = can_generate(model, example) and 'the dense model alone' or 'neither'
        row['ok'] = row['ok'] and row['generates'] == 'neither'
    return row


def can_generate(model: Any, example: Any) -> bool:
    """Whether a language model writes a few tokens."""
    try:
        model.generate(**example, max_new_tokens=3, do_sample=False, pad_token_id=0)
    except Exception:  # the model's own code may raise anything
        return False
    return True


def prune_there(model: Any, example: Any, ratio: float) -> dict[str, Any]:
    """Prune with torch-pruning's defaults, the classifier kept."""
    import torch_pruning
    from torch import nn

    heads = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == 1000]
    before, shape = size(model), run(model, example)[0].shape
    try:
        torch_pruning.pruner.MagnitudePruner(
            model,
            example,
            importance=torch_pruning.importance.MagnitudeImportance(p=1),
            global_pruning=True,
            pruning_ratio=ratio / 2,
            ignored_layers=heads,
        ).step()
        same = run(model, example)[0].shape == shape
    except Exception as error:  # whatever it or the model raises
        return dict(ok=False, why=f'{type(error).__name__}: {str(error)[:120]}')
    removed = round(1 - size(model) / before, 4)
    return dict(ok=same and removed > 0.02, removed=removed)


def row_of(library: str, name: str, peer: bool) -> dict[str, Any]:
    """What comes of one model, pruned here or by the peer."""
    import torch

    warnings.filterwarnings('ignore')
    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        model, example = MODELS[library](name)
        if size(model) > LARGEST[library]:
            return dict(name=name, skipped=f'{size(model):,} parameters')
        run(stirred(model), example)
    except Exception as error:  # can't be built or run here
        return dict(name=name, skipped=f'{type(error).__name__}: {str(error)[:100]}')
    if peer:
        return prune_there(model, example, RATIOS[library])
    row = dict(name=name, params=size(model))
    try:
        row |= prune_here(model, example, RATIOS[library], library == 'transformers')
    except Exception as error:
        row |= dict(ok=False, crashed=True, why=f'{type(error).__name__}: {error}')
    return row


def in_process(seconds: int, *arguments: Any) -> dict[str, Any]:
    """:func:`row_of` in a process of its own, that a crash, a leak or the clock ends."""
    with ProcessPoolExecutor(1) as pool:
        future = pool.submit(row_of, *arguments)
        try:
            return future.result(seconds)
        except Exception as error:  # whatever ended the process
            for process in pool._processes.values():
                process.kill()
            return dict(name=arguments[1], ok=False, why=type(error).__name__)


def known_rows(library: str) -> list[dict[str, Any]]:
    """The rows that an earlier run has written."""
    from tables import has_result, result

    name = f'coverage_{library}'
    return result(name)['rows'] if has_result(name) else []


def main() -> None:
    """Go through a library."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('package', choices=NAMES)
    parser.add_argument('--only', nargs='+', help='names to try alone; nothing is written')
    parser.add_argument('--seconds', type=int, default=300, help='longest time for a model')
    parser.add_argument('--peer-seconds', type=int, default=90, help='the same for torch-pruning')
    parser.add_argument('--resume', action='store_true', help='leave out what the file has')
    args = parser.parse_args()
    warnings.filterwarnings('ignore')
    rows = known_rows(args.package) if args.resume and not args.only else []
    done = {row['name'] for row in rows}
    for name in args.only or NAMES[args.package]():
        if name in done:
            continue
        row = in_process(args.seconds, args.package, name, False)
        rows.append(row)
        if args.package in ('timm', 'torchvision') and 'skipped' not in row:
            row['torch_pruning'] = in_process(args.peer_seconds, args.package, name, True)
        told = row.get('skipped') or row.get('why') or row.get('reach')
        print(name, 'skipped' if 'skipped' in row else row['ok'], told, flush=True)
        if not args.only:
            from common import write

            write(f'coverage_{args.package}', dict(ratio=RATIOS[args.package], rows=rows))


if __name__ == '__main__':
    main()
