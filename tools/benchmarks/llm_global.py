"""Global structured pruning of SmolLM2: GQA groups and MLP channels, 10 % and 25 % of all parameters.

Every method is a fresh process that computes importance once and prunes a copy of the model at each
ratio. The importance pass is held against bare forward and backward passes over the same sequences
that ask for the same gradients.
"""

import argparse
import json
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import redirect_stdout
from copy import deepcopy
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llm_common import (  # noqa: E402
    add_common_options,
    calibration,
    check_data,
    check_dense,
    common_arguments,
    in_fresh_process,
    load_model,
    perplexity,
    test_windows,
    watch,
)

#: The plugin's methods: what their prune_cfg says beside budget and calibration.
REFIT = dict(compensation=dict(type='LeastSquares', dense_targets=0.5))
LOCAL = dict(reconstruction=dict(type='LocalReconstruction', epochs=4, lr=3e-4))
OURS = dict(
    ours=dict(criterion=dict(type='Fisher'), **REFIT),
    ours_obs=dict(criterion=dict(type='OptimalBrainSurgeon'), **REFIT),
    ours_steps4=dict(criterion=dict(type='Fisher'), **REFIT, rescoring=dict(steps=4)),
    ours_dense_outputs=dict(criterion=dict(type='Fisher'), compensation=dict(type='LeastSquares')),
    ours_local=dict(criterion=dict(type='Fisher'), **REFIT, **LOCAL),
    ours_without_refit=dict(criterion=dict(type='Fisher')),
    ours_normalised=dict(criterion=dict(type='Fisher', normalize='mean'), **REFIT),
    ours_taylor=dict(criterion=dict(type='Taylor', order=1), **REFIT),
    ours_taylor2=dict(criterion=dict(type='Taylor', order=2), **REFIT),
    ours_wanda=dict(criterion=dict(type='Wanda', normalize='mean'), **REFIT),
    ours_uniform=dict(
        units=[dict(type='FFNNeurons')],
        criterion=dict(type='Fisher'),
        allocator=dict(type='Uniform'),
        **REFIT,
    ),
)
#: Prunes a copy of the model to a ratio and returns it, with the time of each step.
Pruning = Callable[[Any, float], tuple[Any, dict[str, float]]]


def save_model(model) -> None:
    """Write the weights somewhere and throw them away: saving is part of the work."""
    from safetensors.torch import save_model

    with tempfile.TemporaryDirectory() as folder:
        save_model(model, str(Path(folder) / 'model.safetensors'))


def bare(model, sequences, args) -> None:
    """Forward and backward passes that leave nothing behind."""
    from plain.driver import linears

    model.requires_grad_(False)
    scored = linears(model.model.layers)
    for layer in scored:
        layer.requires_grad_(True)
    for sequence in sequences:
        model(sequence, labels=sequence).loss.backward()
        for layer in scored:
            layer.weight.grad = None


def plain(choice: str) -> Callable:
    """Plain Taylor with one of the two choices of units."""

    def method(model, sequences, args) -> Pruning:
        from plain import cutting, global_taylor

        scores = global_taylor.importance(model, sequences)

        def prune(model, ratio: float):
            start = time.perf_counter()
            kept = getattr(global_taylor, choice)(model, scores, ratio)
            chosen = time.perf_counter()
            cutting.cut(model, kept)
            cut = time.perf_counter()
            save_model(model)
            steps = dict(choose=chosen - start, cut=cut - chosen, save=time.perf_counter() - cut)
            return model, steps

        return prune

    return method


def ours(name: str) -> Callable:
    """The plugin, with a config's prune_cfg or what is listed under a name."""

    def method(model, sequences, args) -> Pruning:
        from mmengine.config import Config

        from projects.prune_plugin import build_pruner
        from projects.prune_plugin.calibration.data import CalibrationData

        cfg = dict(Config.fromfile(args.config).prune_cfg) if args.config else OURS[name]

        def pruner(ratio: float):
            blocks = dict(
                budget={**cfg.get('budget', {}), 'ratio': ratio},
                calibration=dict(num_samples=len(sequences), batch_size=args.batch_size),
            )
            return build_pruner({**cfg, **blocks})

        loader = dict(
            dataset=[sequence[0] for sequence in sequences], collate_fn=dict(type='default_collate')
        )

        def data(settings):
            return CalibrationData(loader, **settings.sampling)

        def loss(model, batch):
            return model(batch, labels=batch, use_cache=False).loss

        first = pruner(args.ratios[0])
        scored = first.score(model, data, loss=loss)

        def prune(model, ratio: float):
            start = time.perf_counter()
            own = pruner(ratio)
            plan = own.plan_from(model, scored)
            steps = dict(choose=time.perf_counter() - start)
            model = own.apply(model, plan, data, loss, steps).model
            start = time.perf_counter()
            save_model(model)
            return model, dict(steps, save=time.perf_counter() - start)

        return prune

    return method


METHODS = dict(
    bare=bare,
    plain_global=plain('global_choice'),
    plain_uniform=plain('uniform_choice'),
    **{name: ours(name) for name in OURS},
)


def measure(method: str, args: Namespace) -> dict[str, Any]:
    """Do the work in this process."""
    windows = test_windows(args.data, args.windows)
    if method == 'dense':
        value = perplexity(load_model(), windows)
        check_dense(value, args.windows)
        return dict(perplexity=value)
    sequences, model = calibration(args.data, args.samples), load_model()
    found = watch(lambda: METHODS[method](model, sequences, args))
    prune = found.pop('value')
    if prune is None:
        return found
    dense = sum(parameter.numel() for parameter in model.parameters())
    found['pruned'] = []
    for ratio in args.ratios:
        pruned, steps = prune(deepcopy(model), ratio)
        params = sum(parameter.numel() for parameter in pruned.parameters())
        found['pruned'].append(
            dict(
                ratio=ratio,
                removed=1 - params / dense,
                params=params,
                perplexity=perplexity(pruned, windows),
                seconds_after=sum(v for step, v in steps.items() if step != 'compensate'),
                seconds_refit=steps.get('compensate'),
                steps=steps,
            )
        )
    return found


def ratios(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Ours against the plain methods and the bare passes."""
    result: dict[str, Any] = {}
    if 'ours' not in found:
        return result
    here = found['ours']
    if 'bare' in found:
        for key in ('seconds', 'cpu_seconds'):
            result[f'importance_{key}_per_bare'] = here[key] / found['bare'][key]
    for method in found:
        if method not in ('bare', 'ours'):
            result[method] = {
                str(a['ratio']): a['perplexity'] / b['perplexity']
                for a, b in zip(here['pruned'], found[method]['pruned'], strict=True)
            }
    return result


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_options(parser)
    parser.add_argument('--ratios', default='0.1,0.25', help='fractions of all parameters')
    parser.add_argument('--methods', default=','.join(METHODS), help='comma-separated')
    parser.add_argument('--config', type=Path, help='config whose prune_cfg is "ours"')
    parser.add_argument('--batch-size', type=int, default=1, help='of calibration, for "ours"')
    parser.add_argument(
        '--quick', action='store_true', help='4 sequences, 2 windows, nothing is saved'
    )
    parser.add_argument('--output', default='llm_global', help='name of the result')
    parser.add_argument('--worker', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.quick:
        args.samples, args.windows = 4, 2
    check_data(args.data)
    if args.worker:
        args.ratios = [float(ratio) for ratio in args.ratios.split(',')]
        with redirect_stdout(sys.stderr):
            found = measure(args.worker, args)
        print(json.dumps(found))
        return
    own = [f'--ratios={args.ratios}', f'--batch-size={args.batch_size}', *common_arguments(args)]
    own += [f'--config={args.config}'] if args.config else []
    found = {}
    for method in ('dense', *args.methods.split(',')):
        if method != 'dense' and method not in METHODS:
            parser.error(f'--methods has {method!r}; valid are {", ".join(METHODS)}')
        found[method] = in_fresh_process(__file__, f'--worker={method}', *own)
        print(f'{method:14} {json.dumps(found[method])}', flush=True)
    result = dict(
        dense_perplexity=found.pop('dense')['perplexity'],
        windows=args.windows,
        samples=args.samples,
        methods=found,
        ratios=ratios(found),
    )
    if args.quick:
        print(json.dumps(result['ratios'], indent=2))
        return
    from common import save

    save(args.output, result)


if __name__ == '__main__':
    main()
