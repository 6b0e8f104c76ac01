"""Weight-level pruning of SmolLM2: perplexity, seconds and peak memory of each method, in turn.

Every measurement is a fresh process, which times the pruning alone (not reading the model, nor
evaluating it). Checkouts of the reference repositories, where given, are used unedited.
"""

import argparse
import json
import sys
from argparse import Namespace
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median
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
    zeros_of_linears,
)
from llm_methods import METHODS, REFERENCES  # noqa: E402

#: Fraction removed, and (N, M).
SETTINGS: dict[str, tuple[float, tuple[int, int] | None]] = {
    '50%': (0.5, None),
    '2:4': (0.5, (2, 4)),
    '70%': (0.7, None),
    '90%': (0.9, None),
}


def measure(method: str, setting: tuple, args: Namespace) -> dict[str, Any]:
    """Do the work in this process."""
    windows = test_windows(args.data, args.windows)
    if method == 'dense':
        value = perplexity(load_model(), windows)
        check_dense(value, args.windows)
        return dict(perplexity=value)
    sequences = calibration(args.data, args.samples)
    model = load_model()
    found = watch(lambda: METHODS[method](model, sequences, *setting, args))
    del found['value']
    if method != 'forward':
        found.update(perplexity=perplexity(model, windows), zeros=zeros_of_linears(model))
    return found


def run(method: str, setting: str, args: Namespace) -> dict[str, Any]:
    """Do the work in a fresh process."""
    own = [f'--worker={method}', f'--settings={setting}', f'--batch-size={args.batch_size}']
    for name in REFERENCES:
        if getattr(args, name):
            own.append(f'--{name.replace("_", "-")}={getattr(args, name)}')
    found = in_fresh_process(__file__, *own, *common_arguments(args))
    print(f'{setting:4} {method:20} {json.dumps(found)}', flush=True)
    return dict(setting=setting, method=method, **found)


def medians(rows: list[dict[str, Any]], setting: str) -> dict[str, dict[str, float]]:
    """``{method: {quantity: median over rounds}}`` of one setting."""
    own = [row for row in rows if row['setting'] == setting]
    result: dict[str, dict[str, float]] = {}
    for method in dict.fromkeys(row['method'] for row in own):
        mine = [row for row in own if row['method'] == method]
        quantities = [key for key in mine[0] if key not in ('method', 'setting')]
        result[method] = {key: median(row[key] for row in mine) for key in quantities}
    return result


def ratios(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Ours against each baseline, by setting and method."""
    result: dict[str, Any] = {}
    for setting in dict.fromkeys(row['setting'] for row in rows):
        found = medians(rows, setting)
        for method, here in found.items():
            owner, _, name = method.partition('_')
            if owner != 'ours':
                continue
            name = name.partition('_')[0]
            against: dict[str, Any] = {}
            for base in (f'plain_{name}', f'reference_{name}', name):
                if base in found:
                    against[base] = {
                        key: here[key] / found[base][key]
                        for key in ('perplexity', 'seconds', 'cpu_seconds', 'peak_mb')
                    }
            if 'forward' in found:
                against['two_forwards'] = dict(
                    seconds=here['seconds'] / found['forward']['seconds']
                )
            result.setdefault(setting, {})[method] = against
    return result


def read_arguments() -> Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_options(parser)
    parser.add_argument('--settings', default=','.join(SETTINGS), help='comma-separated')
    parser.add_argument(
        '--methods', help=f'comma-separated; by default all that can run of {", ".join(METHODS)}'
    )
    parser.add_argument('--rounds', type=int, default=1)
    parser.add_argument('--batch-size', type=int, default=1, help='of calibration, for "ours"')
    parser.add_argument('--reference-sparsegpt', type=Path, help='checkout of IST-DASLab/sparsegpt')
    parser.add_argument('--reference-wanda', type=Path, help='checkout of locuslab/wanda')
    parser.add_argument(
        '--quick', action='store_true', help='4 sequences, 2 windows, 50 %% only, nothing is saved'
    )
    parser.add_argument(
        '--add', action='store_true', help='keep what was measured of settings that are not named'
    )
    parser.add_argument('--output', default='llm_weights', help='name of the result')
    parser.add_argument('--worker', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.quick:
        args.samples, args.windows, args.settings = 4, 2, '50%'
    args.settings = args.settings.split(',')
    runnable = [m for m in METHODS if m not in REFERENCES or getattr(args, m)]
    args.methods = args.methods.split(',') if args.methods else runnable
    for key, chosen, valid in (
        ('settings', args.settings, SETTINGS),
        ('methods', args.methods, runnable),
    ):
        wrong = [name for name in chosen if name not in valid and not args.worker]
        if wrong:
            parser.error(f'--{key} has {wrong[0]!r}; valid here are {", ".join(valid)}')
    check_data(args.data)
    return args


def main() -> None:
    """Run the benchmark."""
    args = read_arguments()
    if args.worker:
        name = args.settings[0]
        setting = SETTINGS[name] if name in SETTINGS else (float(name), None)
        with redirect_stdout(sys.stderr):
            found = measure(args.worker, setting, args)
        print(json.dumps(found))
        return
    from common import RESULTS, save, write

    dense = run('dense', '0', args)['perplexity']
    rows: list[dict[str, Any]] = []
    if args.add:  # methods are compared within a setting, which is measured as a whole
        earlier = json.loads((RESULTS / f'{args.output}.json').read_text())['results']
        rows = [row for row in earlier if row['setting'] not in args.settings]
    keep = (lambda *_: None) if args.quick else write
    for _ in range(args.rounds):
        for setting in args.settings:
            for method in args.methods:
                rows.append(run(method, setting, args))
                keep(args.output, summary(dense, rows, args))
    if args.quick:
        print(json.dumps(ratios(rows), indent=2))
    else:
        save(args.output, summary(dense, rows, args))


def summary(dense: float, rows: list[dict[str, Any]], args: Namespace) -> dict[str, Any]:
    """What is saved, after every measurement."""
    return dict(
        dense_perplexity=dense,
        windows=args.windows,
        samples=args.samples,
        batch_size=args.batch_size,
        results=rows,
        ratios=ratios(rows),
    )


if __name__ == '__main__':
    main()
