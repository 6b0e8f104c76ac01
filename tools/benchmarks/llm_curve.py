"""Perplexity of SmolLM2 against sparsity: magnitude, Wanda, SparseGPT, and stepped with recovery.

Points that docs/benchmarks/llm_curve.csv has already are not measured again, so that a run can be
stopped and go on, nor are those that llm_weights.py has measured; --afresh begins anew, and
--no-measure only adds --stepped and draws.
"""

import argparse
import csv
import json
import sys
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llm_common import (  # noqa: E402
    ROOT,
    add_common_options,
    check_data,
    common_arguments,
    in_fresh_process,
)

TABLE = ROOT / 'docs' / 'benchmarks' / 'llm_curve.csv'
PLOT = ROOT / 'docs' / 'images' / 'llm_curve.png'
WEIGHTS = Path(__file__).with_name('llm_weights.py')
SPARSITIES = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
#: What each line of the plot is made by, of llm_methods.py.
METHODS = {
    'magnitude': 'ours_magnitude',
    'Wanda': 'ours_wanda',
    'SparseGPT of the paper': 'ours_sparsegpt_paper',
    'SparseGPT': 'ours_sparsegpt',
}
STEPPED = 'stepped, with recovery'
#: (method, sparsity) -> perplexity; the dense model is ('dense', 0.0).
Points = dict[tuple[str, float], float]


def read_points() -> Points:
    """What the table holds."""
    if not TABLE.is_file():
        return {}
    with TABLE.open(newline='') as file:
        return {
            (row['method'], float(row['sparsity'])): float(row['perplexity'])
            for row in csv.DictReader(file)
        }


def write_points(points: Points) -> None:
    """Write the table."""
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    with TABLE.open('w', newline='') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(('method', 'sparsity', 'perplexity'))
        for (method, sparsity), value in points.items():
            writer.writerow((method, f'{sparsity:g}', f'{value:.6g}'))


def measured_with_weights(args: Namespace) -> Points:
    """Points of llm_weights.py, if it was run with the same windows, samples and batches."""
    path = TABLE.with_name('llm_weights.json')
    found = json.loads(path.read_text()) if path.is_file() else {}
    if any(found.get(key) != getattr(args, key) for key in ('windows', 'samples', 'batch_size')):
        return {}
    lines = {worker: method for method, worker in METHODS.items()}
    return {
        (lines[row['method']], float(row['setting'][:-1]) / 100): row['perplexity']
        for row in found['results']
        if row['method'] in lines and row['setting'].endswith('%')
    }


def read_stepped(path: Path, sparsity: str, perplexity: str) -> Points:
    """The points of a history table, whose columns are named by the last two arguments."""
    with path.open(newline='') as file:
        rows = list(csv.DictReader(file))
    for column in (sparsity, perplexity):
        if not rows or column not in rows[0]:
            raise SystemExit(
                f'{path} has no column {column!r}; it has {", ".join(rows[0] if rows else [])}: '
                'name the right one with --stepped-columns'
            )
    return {(STEPPED, float(row[sparsity])): float(row[perplexity]) for row in rows}


def measure(points: Points, args: Namespace) -> None:
    """Add the points that are missing, each in a fresh process, writing the table after each."""
    own = [*common_arguments(args), f'--batch-size={args.batch_size}']
    wanted = [('dense', 0.0)]
    wanted += [(m, float(s)) for s in args.sparsities.split(',') for m in args.methods.split(',')]
    for method, sparsity in wanted:
        if (method, sparsity) in points:
            continue
        worker = METHODS.get(method, method)
        found = in_fresh_process(
            str(WEIGHTS), f'--worker={worker}', f'--settings={sparsity:g}', *own
        )
        points[method, sparsity] = found['perplexity']
        print(f'{method:22} {sparsity:4g} {found["perplexity"]:.6g}', flush=True)
        write_points(points)


def draw(points: Points) -> None:
    """One line per method, perplexity on a logarithmic axis."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for method in dict.fromkeys(method for method, _ in points):
        if method == 'dense':
            axes.axhline(points['dense', 0.0], color='grey', linestyle='--', label='dense')
            continue
        own = sorted((sparsity, v) for (name, sparsity), v in points.items() if name == method)
        axes.plot(*zip(*own, strict=True), marker='o', label=method)
    axes.set_yscale('log')
    axes.set_xlabel('fraction of linear weights removed')
    axes.set_ylabel('perplexity, WikiText-2')
    axes.grid(alpha=0.3, which='both')
    axes.legend()
    figure.tight_layout()
    PLOT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PLOT, dpi=120)
    print(f'written to {TABLE.relative_to(ROOT)} and {PLOT.relative_to(ROOT)}')


def main() -> None:
    """Measure and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_options(parser)
    parser.add_argument('--sparsities', default=','.join(map(str, SPARSITIES)))
    parser.add_argument('--methods', default=','.join(METHODS), help='comma-separated')
    parser.add_argument('--batch-size', type=int, default=4, help='of calibration')
    parser.add_argument(
        '--stepped', type=Path, help='history table of a stepped run, added as a line'
    )
    parser.add_argument(
        '--stepped-columns',
        default='sparsity,ppl/perplexity after training',
        help='its columns for the x and the y axis, comma-separated',
    )
    parser.add_argument('--afresh', action='store_true', help='measure every point again')
    parser.add_argument('--no-measure', action='store_true', help='draw what is there')
    args = parser.parse_args()
    for method in args.methods.split(','):
        if method not in METHODS:
            parser.error(f'--methods has {method!r}; valid are {", ".join(METHODS)}')
    points = {} if args.afresh else {**measured_with_weights(args), **read_points()}
    if args.stepped:
        points = {key: value for key, value in points.items() if key[0] != STEPPED}
        points.update(read_stepped(args.stepped, *args.stepped_columns.split(',')))
    if not args.no_measure:
        check_data(args.data)
        measure(points, args)
    if not points:
        parser.error(f'{TABLE.relative_to(ROOT)} has no points; leave out --no-measure')
    write_points(points)
    draw(points)


if __name__ == '__main__':
    main()
