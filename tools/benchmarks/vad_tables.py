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


#: Columns of :func:`vad_prune`: key, heading, digits.
PRUNE_COLUMNS = (
    ('plan_l2_3s', 'L2 3 s', 2),
    ('collisions_3s', 'collisions 3 s', 3),
    ('map_ap', 'map mAP', 3),
    ('car_ap', 'car AP at 2 m', 3),
    ('epa_car', 'EPA', 3),
    ('nds', 'NDS', 3),
)


def vad_prune() -> str:
    """Section on criteria and allocators on VAD."""
    r = result('vad_prune')
    dense = next(row for row in r['results'] if row['stage'] == 'dense')
    cells = [f'{dense[key]:.{digits}f}' for key, _, digits in PRUNE_COLUMNS]
    rows = [['dense', '', f'{dense["params"]:,}', '', '', *cells]]
    groups: dict[tuple, list[dict]] = {}
    for row in r['results']:
        if row['stage'] != 'dense':
            groups.setdefault((row['ratio'], row['method'], row['stage']), []).append(row)
    for (ratio, method, stage), runs in groups.items():
        cells = []
        for key, _, digits in PRUNE_COLUMNS:
            values = [run[key] for run in runs]
            spread = f' ± {statistics.stdev(values):.{digits}f}' if len(values) > 1 else ''
            cells.append(f'{statistics.mean(values):.{digits}f}{spread}')
        params = statistics.mean(run['params'] for run in runs)
        rows.append(
            [method, f'{100 * ratio:.0f} %', f'{params:,.0f}', stage, str(len(runs)), *cells]
        )
    header = ['method', 'asked', 'parameters', 'stage', 'seeds']
    return f"""## Criteria and allocators on the trained VAD_nano

A fraction of all parameters removed from `ckpts/vad_nano_toy.pth`, then retrained for {r['epochs']} epochs
on 200 frames of ten scenes that it hasn't seen, and tested on 40 frames of two others. Means and standard
deviations over seeds of selection and training. L2 is the error of the planned trajectory in metres.

{table([*header, *(heading for _, heading, _ in PRUNE_COLUMNS)], rows)}
"""


SECTIONS = dict(
    vad_frame=vad_frame,
    vad_speed=vad_speed,
    vad_toy=vad_toy,
    vad_prune=vad_prune,
)
