"""Sections of docs/benchmarks.md on VAD."""

import statistics

from tables import result, table


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
            f'{run["metrics"]["pts_bbox_NuScenes/car_AP_dist_2.0"]:.3f}',
            f'{run["metrics"]["motion/EPA_car"]:.3f}',
            f'{run["metrics"]["pts_bbox_NuScenes/NDS"]:.3f}',
        ]
        for label, run in models.items()
    ]
    for label, key in (('constant velocity', 'const_vel'), ('standing still', 'still')):
        errors = (f'{dense[f"planning/baseline_{key}_L2_{t}s"]:.2f}' for t in (1, 2, 3))
        rows.append([label, '', '', '', *errors, '', '', '', '', ''])
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
        'car AP at 2 m',
        'EPA',
        'NDS',
    ]
    took = f' The whole demo took {r["seconds"] / 60:.1f} minutes.' if r['seconds'] else ''
    return f"""## VAD_nano_toy on the toy drive, pruned by 30 %

`make demo`: the dense model of `ckpts/`, retrained for two epochs on 200 frames of ten scenes that
it hasn't seen, tested on 40 frames of two others; one seed.{took} L2 is the error of the planned
trajectory in metres, mean over the steps up to 1, 2, 3 s.

{table(header, rows)}
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
of the errors up to 1, 2 and 3 s; map mAP {dense['map_ap']:.3f}), then retrained for {r['epochs']} epochs
at half the learning rate. Means over seeds of selection and training, each seed in brackets.

{table(['method', 'asked', 'parameters', 'stage', 'planning L2, m', 'map mAP'], rows)}
"""


SECTIONS = dict(
    vad_frame=vad_frame,
    vad_speed=vad_speed,
    vad_toy=vad_toy,
    vad_prune=vad_prune,
)
