"""Sections of docs/benchmarks.md that set this plugin beside torch-pruning and plain choices."""

from collections.abc import Callable
from functools import partial
from statistics import mean, stdev

from tables import result, table

LABELS = dict(
    here='**here, default (L1)**',
    here_taylor='**here, Taylor**',
    here_flops='**here, L1, budget of FLOPs**',
    here_taylor_flops='**here, Taylor, budget of FLOPs**',
    here_taylor_coupled='**here, Taylor, all widths**',
    here_uniform='plain: L1, same share of each layer',
    here_random='plain: random, same share of each layer',
    peer='torch-pruning, L1, all widths',
    peer_inner='torch-pruning, L1, inner widths',
    peer_taylor='torch-pruning, Taylor, all widths',
    peer_taylor_inner='torch-pruning, Taylor, inner widths',
    peer_taylor_raw='torch-pruning, Taylor, inner widths, not normalized',
)
VAD_LABELS = {
    **LABELS,
    'peer': 'torch-pruning, L1, the whole model',
    'peer_images': 'torch-pruning, L1, backbone and neck',
    'peer_images_taylor': 'torch-pruning, Taylor, backbone and neck',
}
#: Of what a task measures: heading and format.
QUALITIES = dict(
    top1=('top-1, %', '.1f'), plan_l2=('planning L2, m', '.2f'), map_ap=('map mAP', '.3f')
)


def over_seeds(runs: list[dict], stage: str, key: str) -> str:
    """Mean and, of several seeds, standard deviation of a quality."""
    form = QUALITIES[key][1]
    values = [run[stage][key] for run in runs if key in run.get(stage, {})]
    if not values:
        return ''
    spread = f' ± {stdev(values):{form}}' if len(values) > 1 else ''
    return f'{mean(values):{form}}{spread}'


def measured(r: dict, labels: dict[str, str]) -> str:
    """The table of a task, the dense model first."""
    dense = r['dense']
    ran = [found['runs'] for found in r['methods'].values() if 'runs' in found]
    keys = [key for key in QUALITIES if key in dense['runs'][0]['pruned']]
    stages = [stage for stage in ('pruned', 'recovered') if any(stage in runs[0] for runs in ran)]
    columns = [(stage, key) for stage in stages for key in keys]
    rows = [
        [
            'dense',
            f'{dense["params"]:,}',
            '',
            '',
            *(over_seeds(dense['runs'], stage, key) for stage, key in columns),
            f'{dense["latency_ms"]:,.1f}',
            '',
            '',
        ]
    ]
    for method, found in r['methods'].items():
        if 'runs' not in found:
            continue
        runs = found['runs']
        rows.append(
            [
                labels[method],
                f'{runs[0]["params"]:,}{"" if all(run["matched"] for run in runs) else " (unequal)"}',
                f'{mean(run["seconds"] for run in runs):.2f}',
                f'{max(run["added_mb"] for run in runs):,.0f}',
                *(over_seeds(runs, stage, key) for stage, key in columns),
                f'{found["latency_ms"]:,.1f}',
                f'{dense["latency_ms"] / found["latency_ms"]:.2f}',
                f'{dense["flops"] / runs[0]["flops"]:.2f}',
            ]
        )
    words = dict(pruned='', recovered=' trained')
    heads = [f'{QUALITIES[key][0]}{words[stage]}' for stage, key in columns]
    return table(['', 'parameters', 's', 'MB', *heads, 'ms', 'latency ratio', 'FLOPs ratio'], rows)


def failures(r: dict, labels: dict[str, str]) -> str:
    """What didn't work, with the error's words."""
    lines = [
        f'- {labels[method]}: `{found["error"]}`'
        for method, found in r['methods'].items()
        if 'error' in found
    ]
    return '\n\nCould not be pruned, or not run afterwards:\n\n' + '\n'.join(lines) if lines else ''


def section(name: str, head: Callable[[dict], str], labels: dict[str, str]) -> str:
    """The section of a task."""
    r = result(f'side_by_side_{name}')
    return f'{head(r)}\n\n{measured(r, labels)}{failures(r, labels)}\n'


def vit_head(r: dict) -> str:
    """How all of it is measured, and the ViT."""
    own = r['settings']
    return f"""## Side by side with torch-pruning

All methods use the same dense models, calibration samples and fine-tuning, and leave the same number of
parameters (within half a percent). torch-pruning has no parameter budget: its ratio was found by bisection,
which isn't timed, and its group importance is used with the defaults, globally, in one step. "All widths"
is how its examples use it: the residual stream and the stage widths are pruned, too. "Inner widths" are the
default units of this plugin. "s" is the time for discovery, scoring, selection and slimming after a warm-up
in the same process; "MB" is the peak growth of the process. Each method runs in a fresh process; latency is
the median over all models timed in alternation on one thread, for the first seed. Ratios are dense over
pruned. For FLOPs budgets, this plugin's ratio was found by bisection, too.

### ViT on digits, {100 * own['ratio']:.0f} % removed

`vit_tiny_digits`, trained {own['dense_steps']} steps from scratch, then pruned, then trained
{own['tune_steps']} steps; 360 test images, means and standard deviations over {len(own['seeds'])}
seeds, each with a dense model of its own. Time of 8 images of 32 x 32. torch-pruning may leave a
layer without a head, and such a model doesn't run; then fewer heads and more of the other channels
were taken. Its Taylor scores are the same sums of |weight x gradient| as this plugin's, but by default
divided by the layer's mean, which removes the differences between layers."""


def resnet_head(r: dict) -> str:
    """The ResNet."""
    own = r['settings']
    return f"""### ResNet-50 on digits, {100 * own['ratio']:.0f} % removed

timm's, trained {own['dense_steps']} steps on digits of 32 x 32, then pruned, then trained
{own['tune_steps']} steps; seeds: {len(own['seeds'])}. Time and FLOPs of an image of 224 x 224
through the same models. All widths here are units of `CoupledChannels`, which torch-pruning's
tracer found when this was measured, and this plugin scored, selected and slimmed."""


def vad_head(r: dict) -> str:
    """VAD-tiny."""
    failed = 'error' in r['methods'].get('peer', {})
    tells = "but the pruned model doesn't run (error below)" if failed else 'and prunes it'
    return f"""### VAD-tiny, {100 * r['settings']['ratio']:.0f} % removed

Random weights, six images of 384 x 640. torch-pruning traces the whole model,
{tells}. In its other rows, the traced forward function ends after the neck, and only the image backbone
and the neck are pruned, which have most FLOPs. The default here is a parameter budget, which removes units
with many parameters; the row with a FLOPs budget leaves as many parameters, but removes units with many
FLOPs."""


def toy_head(r: dict) -> str:
    """The small VAD."""
    return f"""### VAD_nano_toy, {100 * r['settings']['ratio']:.0f} % removed

The model that `tools/benchmarks/vad_toy.py` trains, right after pruning, on the toy drive's 40
test frames; one seed. Planning L2 is the mean of the errors up to 1, 2 and 3 s."""


SECTIONS = dict(
    side_by_side_vit=partial(section, 'vit', vit_head, LABELS),
    side_by_side_resnet50=partial(section, 'resnet50', resnet_head, LABELS),
    side_by_side_vad=partial(section, 'vad', vad_head, VAD_LABELS),
    side_by_side_vad_toy=partial(section, 'vad_toy', toy_head, VAD_LABELS),
)
