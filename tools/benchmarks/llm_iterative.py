"""Iterative magnitude pruning of SmolLM2, by default to 50 %, against one shot and the dense model.

All get the same number of AdamW steps, on as many tokens of WikiText-2's valid split, at the same
constant rate; training on that split lowers the dense model's perplexity too, so that is printed beside
the others. "ours" is tools/train.py with projects/configs/LLM/smollm2_135m_imp50.py, in rounds and in one
shot; it draws its batches in an order of its own. Several seeds, which order the batches.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from argparse import Namespace
from contextlib import redirect_stdout
from operator import itemgetter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from llm_common import (  # noqa: E402
    add_common_options,
    check_data,
    check_dense,
    common_arguments,
    in_fresh_process,
    load_model,
    load_tokens,
    perplexity,
    random_sequences,
    test_windows,
    watch,
    zeros_of_linears,
)


def plan_of(text: str) -> list[tuple[float, int]]:
    """``RATIO:STEPS,...`` as pairs: the fraction removed after a round, and its training steps."""
    return [(float(ratio), int(steps)) for ratio, steps in (x.split(':') for x in text.split(','))]


def steps_of(args: Namespace) -> int:
    """Training steps of all rounds."""
    return sum(steps for _ratio, steps in plan_of(args.plan))


def batches(args: Namespace) -> 'list':
    """Sequences from random places of the valid split, the same for every method with this seed."""
    import torch

    tokens = load_tokens(args.data, 'valid')
    number = args.batch * steps_of(args)
    sequences = torch.cat(
        [x[:, : args.window] for x in random_sequences(tokens, number, seed=1 + args.seed)]
    )
    return list(sequences.split(args.batch))


def iterative(model, args: Namespace, note) -> None:
    """Prune and train in rounds."""
    from plain.iterative import iterate

    for number, done in iterate(model, plan_of(args.plan), iter(batches(args)), args.rate):
        note(round=number, done=done)


def one_shot(model, args: Namespace, note) -> None:
    """Prune once, train as long."""
    from plain.iterative import train
    from plain.magnitude import prune_magnitude

    prune_magnitude(model, plan_of(args.plan)[-1][0])
    note(round=1, done='pruned')
    train(model, batches(args), args.rate)
    note(round=1, done='trained')


def dense(model, args: Namespace, note) -> None:
    """Train as long without pruning."""
    from plain.iterative import train

    note(round=0, done='loaded')
    train(model, batches(args), args.rate, keep_zeros=False)
    note(round=0, done='trained')


#: Written from the papers, in a process of their own.
PLAIN = dict(dense=dense, one_shot=one_shot, iterative=iterative)
#: This plugin: the rounds of the plan that it goes by.
OURS = dict(ours_one_shot=lambda plan: [(plan[-1][0], sum(n for _, n in plan))], ours=list)


def measure(method: str, args: Namespace) -> dict[str, Any]:
    """Do the work in this process; the seconds include the evaluations."""
    windows, model, history = test_windows(args.data, args.windows), load_model(), []

    def note(**about) -> None:
        value = dict(perplexity=perplexity(model, windows), sparsity=zeros_of_linears(model))
        history.append({**about, **value})

    found = watch(lambda: PLAIN[method](model, args, note))
    del found['value']
    if method == 'dense':
        check_dense(history[0]['perplexity'], args.windows)
    return dict(seed=args.seed, **found, perplexity=history[-1]['perplexity'], history=history)


def read_history(path: Path) -> dict[str, Any]:
    """A history table of the plugin as the other methods tell theirs: two steps a round."""
    with path.open(newline='') as file:
        rows = list(csv.DictReader(file))
    steps = [
        dict(
            round=int(row['iteration']),
            done=done,
            perplexity=float(row[f'ppl/perplexity after {when}']),
            sparsity=float(row['sparsity']),
        )
        for row in rows
        for done, when in (('pruned', 'pruning'), ('trained', 'training'))
    ]
    return dict(perplexity=steps[-1]['perplexity'], history=steps)


def config_text(args: Namespace, rounds: list[tuple[float, int]]) -> str:
    """A config of the plugin for the rounds given, otherwise like the plain methods."""
    ratios, steps = zip(*rounds, strict=True)
    config = ROOT / 'projects' / 'configs' / 'LLM' / 'smollm2_135m_imp50.py'
    return f"""_base_ = {str(config)!r}
train_dataloader = dict(batch_size={args.batch}, dataset=dict(window={args.window}))
test_dataloader = dict(dataset=dict(window=512, max_windows={args.windows}))
randomness = dict(seed={args.seed})
prune_cfg = dict(
    budget=dict(ratio={ratios[-1]}),
    schedule=dict(_delete_=True, type='Steps', ratios={list(ratios)},
                  recovery={[dict(max_steps=number) for number in steps]}),
    recovery=dict(lr={args.rate}),
)
"""


def with_plugin(method: str, args: Namespace) -> dict[str, Any]:
    """Prune and train by tools/train.py, and read its history."""
    with tempfile.TemporaryDirectory() as folder:
        config, work_dir = Path(folder) / 'imp.py', Path(folder) / 'work'
        config.write_text(config_text(args, OURS[method](plan_of(args.plan))))
        subprocess.run(
            [sys.executable, ROOT / 'tools' / 'train.py', config, '--work-dir', work_dir],
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, 'WIKITEXT2_ROOT': str(args.data.resolve())},
        )
        return dict(seed=args.seed, **read_history(work_dir / 'history.csv'))


def earlier(output: str, settings: dict[str, Any], again: set[tuple[str, int]]) -> dict[str, list]:
    """The runs of each method in an earlier result, but those ``(method, seed)`` to be done again.

    It must have had the same settings.
    """
    from common import RESULTS

    path = RESULTS / f'{output}.json'
    saved = json.loads(path.read_text())
    for key, value in settings.items():
        if saved[key] != value:
            raise SystemExit(
                f'--add: {path.name} was measured with {key} {saved[key]}, not {value}'
            )
    return {
        method: [entry for entry in found['runs'] if (method, entry['seed']) not in again]
        for method, found in saved['methods'].items()
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_options(parser)
    parser.add_argument(
        '--plan', default='0.35:8,0.45:8,0.5:44', help='RATIO:STEPS of each round, comma-separated'
    )
    parser.add_argument('--rate', type=float, default=3e-4, help='learning rate')
    parser.add_argument('--window', type=int, default=512, help='tokens of a training sequence')
    parser.add_argument('--batch', type=int, default=2, help='sequences in a step')
    parser.add_argument(
        '--seeds',
        nargs='+',
        type=int,
        default=[0, 1, 2],
        help='the dense model has the first alone',
    )
    parser.add_argument('--methods', default=','.join((*PLAIN, *OURS)), help='comma-separated')
    parser.add_argument(
        '--quick', action='store_true', help='1 seed, 2 rounds of 2 steps, 2 windows; not saved'
    )
    parser.add_argument(
        '--add', action='store_true', help='keep what was measured of other methods and seeds'
    )
    parser.add_argument('--output', default='llm_iterative', help='name of the result')
    parser.add_argument('--worker', help=argparse.SUPPRESS)
    parser.add_argument('--seed', type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.quick:
        args.plan, args.windows, args.seeds = '0.4:2,0.5:2', 2, [0]
    check_data(args.data)
    if args.worker:
        with redirect_stdout(sys.stderr):
            found = measure(args.worker, args)
        print(json.dumps(found))
        return
    from common import write

    settings = {key: getattr(args, key) for key in ('windows', 'plan', 'rate', 'window', 'batch')}
    methods = args.methods.split(',')
    for method in methods:
        if method not in {**PLAIN, **OURS}:
            parser.error(f'--methods has {method!r}; valid are {", ".join((*PLAIN, *OURS))}')
    todo = [
        (method, seed)
        for seed in args.seeds
        for method in methods
        if method != 'dense' or seed == args.seeds[0]
    ]
    runs = earlier(args.output, settings, set(todo)) if args.add else {}
    for method, args.seed in todo:
        found = run(method, args)
        print(f'{method:13} {json.dumps(found)}', flush=True)
        runs[method] = sorted([*runs.get(method, []), found], key=itemgetter('seed'))
        if not args.quick:
            write(args.output, summary(settings, runs))


def run(method: str, args: Namespace) -> dict[str, Any]:
    """One method, one seed."""
    if method in OURS:
        return with_plugin(method, args)
    own = [f'--{key}={getattr(args, key)}' for key in ('plan', 'rate', 'window', 'batch', 'seed')]
    return in_fresh_process(__file__, f'--worker={method}', *own, *common_arguments(args))


def summary(settings: dict[str, Any], runs: dict[str, list]) -> dict[str, Any]:
    """What has been measured so far: mean and spread of each method, and its runs."""
    methods = {}
    for method, own in runs.items():
        values = [entry['perplexity'] for entry in own]
        if values:
            methods[method] = dict(
                perplexity=statistics.mean(values),
                spread=statistics.stdev(values) if len(values) > 1 else None,
                runs=own,
            )
    result = dict(**settings, methods=methods)
    pairs = dict(plain=('iterative', 'one_shot'), ours=('ours', 'ours_one_shot'))
    result['against_one_shot'] = {
        name: methods[iterative]['perplexity'] / methods[one_shot]['perplexity']
        for name, (iterative, one_shot) in pairs.items()
        if iterative in methods and one_shot in methods
    }
    return result


if __name__ == '__main__':
    main()
