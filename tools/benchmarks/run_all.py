"""Run every benchmark, one after another, and write docs/benchmarks.md from their results."""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

import llm_tables
import mm_tables
import ticket_tables
from tables import DOCS, has_result, result, table

HERE = Path(__file__).resolve().parent
WIKITEXT = HERE.parents[1] / 'data' / 'wikitext2'
SCRIPTS = (
    'vit_latency',
    'pruning_speed',
    'llama_plan',
    'criteria',
    'vad_frame',
    'vad_speed',
    'vad_toy',
    'vad_prune',
    'ticket_cost',
)

#: Sections of results that not every run of this script makes.
MORE = {**ticket_tables.SECTIONS, **llm_tables.SECTIONS, **mm_tables.SECTIONS}


def vit_latency() -> str:
    """Section on latency."""
    r = result('vit_latency')
    ms = r['latency_ms']
    rows = [
        ['dense', f'{r["params"]["dense"]:,}', f'{r["flops"]["dense"]:,}', f'{ms["dense"]:.1f}'],
        ['slim', f'{r["params"]["slim"]:,}', f'{r["flops"]["slim"]:,}', f'{ms["slim"]:.1f}'],
        ['cut by hand', '', '', f'{ms["by_hand"]:.1f}'],
        ['by formula, dense', *(f'{r["formula"][k]["dense"]:,}' for k in ('params', 'flops')), ''],
        ['by formula, slim', *(f'{r["formula"][k]["slim"]:,}' for k in ('params', 'flops')), ''],
    ]
    return f"""## ViT-Small, {100 * r['ratio']:.0f} % of heads and neurons removed

Batch {r['batch_size']}, one thread, the three models in turn; medians.

{table(['model', 'parameters', 'FLOPs (one image)', 'ms'], rows)}

Speed-up {r['speedup']:.2f} at a FLOPs ratio of {r['flops_ratio']:.2f}
({r['speedup_per_flops_ratio']:.2f} of it); slim against cut by hand
{r['slim_against_by_hand']:.3f}.
"""


def pruning_speed() -> str:
    """Section on the time that pruning takes."""
    r = result('pruning_speed')
    rows = [
        [
            label,
            *(f'{r["seconds"][key][k]:.3f}' for k in ('min', 'median', 'max')),
            f'{r["params"][key]:,}',
        ]
        for label, key in (('this plugin', 'here'), ('torch-pruning', 'torch_pruning'))
    ]
    return f"""## Time to prune a ViT-Small

Find, score (L1), choose {100 * r['ratio']:.0f} % of heads and neurons, cut; {r['rounds']} rounds in
turn in one process; the time to copy the model is taken off.

{table(['', 's, min', 's, median', 's, max', 'parameters left'], rows)}

The median here is {r['here_per_torch_pruning']:.3f} of torch-pruning's.
"""


def llama_plan() -> str:
    """Section on planning for large models."""
    r = result('llama_plan')
    rows = [
        [
            name,
            f'{m["units"]:,}',
            f'{m["params"]["dense"]:,}',
            f'{100 * m["removed"]:.4f} %',
            *(f'{m[key]["median"]:.1f}' for key in ('planned_seconds', 'cpu_seconds')),
            f'{m["process_seconds"]["median"]:.1f}',
            f'{m["peak_mb"]:,.0f}',
        ]
        for name, m in r['models'].items()
    ]
    header = ['model', 'units', 'parameters', 'removed', 'planning', 'processor', 'process', 'MB']
    return f"""## Planning Llama-3-8B and 70B without weights

`tools/analysis_struct.py --meta`: shapes alone, random scores, {100 * r['ratio']:.0f} % of all parameters
asked. Fresh processes, imports, FLOPs and the table of units included; seconds, medians of three
runs in turn. "Planning" is the tool's own steps, "processor" and "process" the
whole process. Imports alone take {r['imports']['process_seconds']['median']:.1f} s
({r['imports']['cpu_seconds']['median']:.1f} s of processor) and
{r['imports']['peak_mb']:,.0f} MB.

{table(header, rows)}
"""


def criteria() -> str:
    """Section on what criteria are worth."""
    r = result('criteria')
    ratios = list(dict.fromkeys(row['ratio'] for row in r['results']))
    rows = []
    for method in dict.fromkeys(row['method'] for row in r['results']):
        own = [row for row in r['results'] if row['method'] == method]
        rows.append([method, *(f'{row["top1"]:.2f} ({100 * row["removed"]:.1f} %)' for row in own)])
    return f"""## Criteria on digits, without training afterwards

Top-1 accuracy in percent of `vit_tiny_digits` right after pruning a fraction of all parameters, and
in brackets the fraction really removed; dense {r['dense']:.2f}. One model, one seed, 360 test
images: differences below a point mean nothing. Knapsack allocation unless said.

{table(['criterion', *(f'{100 * ratio:.0f} % asked' for ratio in ratios)], rows)}
"""


def vad_frame() -> str:
    """Section on VAD's cost."""
    r = result('vad_frame')
    rows = [
        [
            case,
            f'{run["params"]:,}',
            f'{run["cpu_seconds"]:.1f}',
            f'{run["wall_seconds"]:.1f}',
            f'{run["peak_gb"]:.1f}',
        ]
        for case, run in r.items()
        if case != 'environment'
    ]
    return f"""## A frame of VAD on the CPU

Six images in test mode, with a previous frame; random weights; {r['environment']['threads']} threads;
the median of three processes.

{table(['model', 'parameters', 'CPU s', 'wall s', 'peak memory, GB'], rows)}
"""


def vad_toy() -> str:
    """Section on what the small VAD reaches, dense and pruned."""
    r = result('vad_toy')
    models = r['models']
    dense = models['dense']['metrics']
    rows = [
        [
            label,
            f'{run["params"]:,}',
            f'{run["flops"] / 1e9:.2f}',
            f'{run["latency_ms"]:.0f}',
            *(f'{run["metrics"][f"planning/plan_L2_{t}s"]:.2f}' for t in (1, 2, 3)),
            f'{100 * run["metrics"]["planning/plan_obj_box_col_3s"]:.1f}',
            f'{run["metrics"]["NuscMap_chamfer/mAP"]:.3f}',
            f'{run["metrics"]["pts_bbox_NuScenes/mAP"]:.4f}',
        ]
        for label, run in models.items()
    ]
    for label, key in (('constant velocity', 'const_vel'), ('keeping still', 'still')):
        errors = (f'{dense[f"planning/baseline_{key}_L2_{t}s"]:.2f}' for t in (1, 2, 3))
        rows.append([label, '', '', '', *errors, '', '', ''])
    header = [
        '',
        'parameters',
        'GFLOPs',
        'ms',
        'L2 1 s',
        '2 s',
        '3 s',
        'collisions 3 s, %',
        'map mAP',
    ]
    took = f' The whole demo took {r["seconds"] / 60:.1f} minutes.' if r['seconds'] else ''
    return f"""## VAD_nano_toy on the toy drive, pruned by 30 %

`make demo`: 80 frames of four scenes to train on, 40 of two other scenes to test on; one seed.{took}
L2 is the planned path's distance in metres, mean over the steps up to 1, 2, 3 s.

{table([*header, 'detection mAP'], rows)}

A few minutes on two cores teach it to drive by what it sees, not yet to detect (cars
{dense['pts_bbox_NuScenes/car_AP_dist_4.0']:.3f} at 4 m).
"""


def vad_prune() -> str:
    """Section on criteria and allocators on VAD."""
    r = result('vad_prune')
    rows = []
    own = [row for row in r['results'] if row['stage'] != 'dense']
    for method, ratio, stage in dict.fromkeys(
        (row['method'], row['ratio'], row['stage']) for row in own
    ):
        runs = [
            row
            for row in own
            if (row['method'], row['ratio'], row['stage']) == (method, ratio, stage)
        ]
        cells = [
            f'{statistics.mean(run[key] for run in runs):.3f} '
            f'({", ".join(f"{run[key]:.3f}" for run in runs)})'
            for key in ('plan_l2', 'map_ap')
        ]
        params = statistics.mean(run['params'] for run in runs)
        rows.append([method, f'{100 * ratio:.0f} %', f'{params:,.0f}', stage, *cells])
    dense = next(row for row in r['results'] if row['stage'] == 'dense')
    return f"""## Criteria and allocators on VAD_nano_toy

A fraction of all parameters removed from one dense model (planning L2 {dense['plan_l2']:.3f} m, the mean
of the readings up to 1, 2 and 3 s; map mAP {dense['map_ap']:.3f}), then retrained for {r['epochs']} epochs
at half the learning rate. Means over seeds of choosing and training, each seed in brackets.

{table(['method', 'asked', 'parameters', 'stage', 'planning L2, m', 'map mAP'], rows)}
"""


def vad_speed() -> str:
    """Section on what removing does to time."""
    r = result('vad_speed')
    rows = [
        [
            f'{100 * float(ratio):.0f} %',
            f'{run["params"]:,}',
            f'{run["flops"] / 1e9:.1f}',
            f'{run["ms"]:.0f}',
            f'{run["flops_ratio"]:.3f}',
            f'{run["latency_ratio"]:.3f}',
            f'{run["latency_per_flops_ratio"]:.2f}',
        ]
        for ratio, run in r['pruned'].items()
    ]
    header = ['removed', 'parameters', 'GFLOPs', 'ms', 'FLOPs ratio', 'latency ratio', 'of it']
    return f"""## VAD-tiny, structured, on the CPU

{r['units']}. Random weights, six images of 384 x 640, threads: {r['environment']['threads']}; all models in
turn, medians of {r['rounds']} rounds. Dense: {r['dense']['params']:,} parameters,
{r['dense']['flops'] / 1e9:.1f} GFLOPs, {r['dense']['ms']:.0f} ms. Ratios are dense over pruned.

{table(header, rows)}
"""


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--only-docs', action='store_true', help='write the page from saved results'
    )
    args = parser.parse_args()
    if not args.only_docs:
        language = (*llm_tables.SECTIONS, 'llm_curve') if WIKITEXT.is_dir() else ()
        for name in (*SCRIPTS, *language):
            print(f'\n$ python tools/benchmarks/{name}.py', flush=True)
            subprocess.run([sys.executable, str(HERE / f'{name}.py')], check=True)
    environment = result('vit_latency')['environment']
    head = f"""# Benchmarks

Written by `make bench` from the JSON files in [benchmarks/](benchmarks/); don't edit it. Machine:
{environment['cores']} {environment['machine']} cores, no GPU; Python {environment['python']}, PyTorch
{environment['torch']}. Absolute times vary with the machine and its load; ratios are of one run.
"""
    sections = [
        head,
        vit_latency(),
        pruning_speed(),
        llama_plan(),
        criteria(),
        vad_frame(),
        vad_speed(),
        vad_toy(),
        vad_prune(),
        *(section() for name, section in MORE.items() if has_result(name)),
    ]
    (DOCS / 'benchmarks.md').write_text('\n'.join(sections))
    print(f'written to {DOCS / "benchmarks.md"}')


if __name__ == '__main__':
    main()
