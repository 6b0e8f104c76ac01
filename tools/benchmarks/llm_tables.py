"""Sections of docs/benchmarks.md on language models."""

from collections import Counter
from functools import partial
from statistics import median

from tables import DOCS, again, result, table

LABELS = dict(
    forward='two bare forward passes',
    magnitude='plain magnitude',
    plain_wanda='plain Wanda',
    reference_wanda="Wanda with the authors' class",
    ours_wanda='**Wanda here**',
    plain_sparsegpt='plain SparseGPT',
    reference_sparsegpt="SparseGPT with the authors' class",
    ours_sparsegpt='**SparseGPT here**',
    ours_sparsegpt_paper='SparseGPT here, dense_targets=0',
    ours_sparsegpt_full='SparseGPT here, dense_share=1',
    ours_magnitude='**magnitude here**',
)
PROTOCOL = (
    'SmolLM2-135M-Instruct (GGUF Q4_1 read into float32); WikiText-2 raw, {windows} windows of 512 '
    'tokens of the test split'
)


def short(value: float) -> str:
    """A perplexity, as precise as it deserves."""
    return f'{value:.2f}' if value < 1000 else f'{value:,.0f}' if value < 1e6 else f'{value:.1e}'


def rounds_of(rows: list[dict]) -> str:
    """How many times each setting was measured: "3 at 50%, 1 at 70%", or a number for all."""
    counts = Counter((row['setting'], row['method']) for row in rows)
    most: dict[str, int] = {}
    for (setting, _method), count in counts.items():
        most[setting] = max(count, most.get(setting, 0))
    if len(set(most.values())) == 1:
        return str(next(iter(most.values())))
    return ', '.join(f'{count} at {setting}' for setting, count in most.items())


def llm_weights(name: str = 'llm_weights') -> str:
    """Section on weight-level pruning."""
    r = result(name)
    rows = []
    for setting, method in dict.fromkeys((row['setting'], row['method']) for row in r['results']):
        own = [row for row in r['results'] if (row['setting'], row['method']) == (setting, method)]
        forwards = [
            row['seconds']
            for row in r['results']
            if (row['setting'], row['method']) == (setting, 'forward')
        ]
        seconds = median(row['seconds'] for row in own)
        rows.append(
            [
                setting,
                LABELS[method],
                short(own[0]['perplexity']) if 'perplexity' in own[0] else '',
                f'{seconds:.0f}',
                f'{seconds / median(forwards):.2f}' if forwards else '',
                f'{median(row["peak_mb"] for row in own):,.0f}',
            ]
        )
    ratio_rows = [
        [
            setting,
            LABELS[method].strip('*'),
            LABELS[base],
            f'{values["perplexity"]:.3f}',
            f'{values["seconds"]:.2f}',
            f'{values["peak_mb"]:.2f}',
        ]
        for setting, methods in r['ratios'].items()
        for method, bases in methods.items()
        for base, values in bases.items()
        if 'perplexity' in values
    ]
    quantities = ['perplexity', 's', 'of two forwards', 'peak memory, MB']
    curve = ''
    if name == 'llm_weights' and (DOCS / 'images' / 'llm_curve.png').is_file():
        curve = (
            '\n![Perplexity against sparsity](images/llm_curve.png)\n\n'
            'The points are in [benchmarks/llm_curve.csv](benchmarks/llm_curve.csv).\n'
        )
    return f"""## SmolLM2, single weights{again(name)}

{PROTOCOL.format(windows=r['windows'])}; dense {r['dense_perplexity']:.2f}. Calibrated on {r['samples']}
sequences of the valid split. Methods run in alternation, each in a fresh process; time is for
pruning only, and memory is the peak of the process including the model. Plain methods are direct
implementations of the papers (tools/benchmarks/plain): two forward passes per block, one Hessian per layer.
Medians of rounds: {rounds_of(r['results'])}.

{table(['', 'method', *quantities], rows)}

Ratios of the plugin's methods to the others:

{table(['', 'here', 'against', 'perplexity', 's', 'peak memory'], ratio_rows)}
{curve}"""


def llm_global(name: str = 'llm_global') -> str:
    """Section on global structured pruning."""
    r = result(name)
    labels = dict(
        plain_global='plain Taylor, global',
        plain_uniform='plain Taylor, uniform per layer, MLP only',
        ours='**here: Fisher, refitted**',
        ours_without_refit='here: Fisher',
        ours_normalised='here: Fisher by group mean, refitted',
        ours_taylor='here: Taylor, refitted',
        ours_taylor2='here: Taylor of order 2, refitted',
        ours_wanda='here: Wanda by group mean, refitted',
        ours_uniform='here: Fisher, uniform, MLP only, refitted',
    )
    rows = [
        [
            f'{100 * run["ratio"]:.0f} %',
            labels[method],
            f'{100 * run["removed"]:.3f} %',
            short(run['perplexity']),
            f'{found["seconds"]:.0f}',
            f'{run["seconds_after"]:.1f}',
            f'{run["seconds_refit"]:.0f}' if run.get('seconds_refit') else '',
            f'{found["peak_mb"]:,.0f}',
        ]
        for index in range(max(len(found.get('pruned', [])) for found in r['methods'].values()))
        for method, found in r['methods'].items()
        for run in found.get('pruned', [])[index : index + 1]
    ]
    header = [
        'asked',
        'method',
        'removed',
        'perplexity',
        'importance, s',
        'after it, s',
        'refit, s',
    ]
    bare = r['methods'].get('bare')
    pace = ''
    if bare and 'importance_seconds_per_bare' in r['ratios']:
        pace = (
            f'Bare forward and backward passes over the same sequences take {bare["seconds"]:.0f} s; '
            f"the plugin's importance pass {r['ratios']['importance_seconds_per_bare']:.2f} of that.\n"
        )
    return f"""## SmolLM2, GQA groups and MLP channels{again(name)}

{PROTOCOL.format(windows=r['windows'])}; dense {r['dense_perplexity']:.2f}. Importance from
{r['samples']} sequences of the valid split; a fraction of all parameters is removed, and nothing is
trained afterwards. After the importance pass come choosing, cutting and saving; refitting by least
squares is one more forward pass over the same sequences. {r.get('note', '')}

{table([*header, 'peak memory, MB'], rows)}

{pace}"""


def llm_iterative(name: str = 'llm_iterative') -> str:
    """Section on iterative magnitude pruning."""
    r = result(name)
    labels = dict(
        dense='dense',
        one_shot='one shot',
        iterative='plain, iterative',
        ours_one_shot='this plugin, one shot',
        ours='**this plugin, iterative**',
    )
    rows = []
    for method, found in r['methods'].items():
        first = found['runs'][0]['history']
        path = ', '.join(short(step['perplexity']) for step in first)
        spread = f' ± {found["spread"]:.2f}' if found['spread'] else ''
        rows.append([labels[method], path, f'{short(found["perplexity"])}{spread}'])
    plan = [part.split(':') for part in r['plan'].split(',')]
    rounds = ', '.join(f'{100 * float(ratio):g} % and {steps} steps' for ratio, steps in plan)
    steps = sum(int(number) for _ratio, number in plan)
    seeds = max(len(found['runs']) for found in r['methods'].values())
    return f"""## SmolLM2, magnitude pruning to {100 * float(plan[-1][0]):.0f} % with training

{PROTOCOL.format(windows=r['windows'])}. Rounds: {rounds}; {steps} AdamW steps in all, of
{r['batch']} sequences of {r['window']} tokens of the valid split. One shot and the dense model get as many
steps, all at a learning rate of {r['rate']:g}. Training on the valid
split adapts to the text, so compare with the dense model trained the same way
where it is there. The plain methods get the same batches; the plugin's, which also has a warm-up and
clips gradients, orders its batches itself, so compare it with itself. The
last column is the mean, and the standard deviation where there are several runs, which differ in the
order of their batches; runs: {seeds}. A few percent between two single runs say little.

{table(['', 'after each pruning and training, first seed', 'in the end'], rows)}
"""


SECTIONS = dict(
    llm_weights=llm_weights,
    llm_weights_short=partial(llm_weights, 'llm_weights_short'),
    llm_global=llm_global,
    llm_global_short=partial(llm_global, 'llm_global_short'),
    llm_iterative=llm_iterative,
    llm_iterative_70=partial(llm_iterative, 'llm_iterative_70'),
)
