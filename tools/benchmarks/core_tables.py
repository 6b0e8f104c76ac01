"""Sections of docs/benchmarks.md on latency, the time to prune, planning and criteria."""

from tables import result, table


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

Discovery, L1 scoring, selection of {100 * r['ratio']:.0f} % of heads and neurons, slimming;
{r['rounds']} alternating rounds in one process; the time to copy the model is subtracted.

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

`tools/analysis_struct.py --meta`: only shapes, random scores, {100 * r['ratio']:.0f} % of all parameters
requested. Fresh processes, including imports, FLOPs and the table of units; seconds, medians of three
alternating runs. "Planning" is the tool's own steps, "processor" and "process" the
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
in brackets the achieved fraction; dense {r['dense']:.2f}. One model, one seed, 360 test
images: differences below one point aren't significant. Knapsack allocation unless noted.

{table(['criterion', *(f'{100 * ratio:.0f} % asked' for ratio in ratios)], rows)}
"""


SECTIONS = dict(
    vit_latency=vit_latency,
    pruning_speed=pruning_speed,
    llama_plan=llama_plan,
    criteria=criteria,
)
