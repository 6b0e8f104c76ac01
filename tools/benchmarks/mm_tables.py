"""Section of docs/benchmarks.md on models of mmdet and mmdet3d."""

import re

from tables import result, table


def by_part(uncovered: dict[str, str]) -> dict[str, int]:
    """Parameters that no unit owns anything of, by part of the model, the largest first."""
    totals: dict[str, int] = {}
    for name, reason in uncovered.items():
        part = '.'.join(name.split('.')[:2])
        number = int(re.search(r'([\d,]+) parameters$', reason)[1].replace(',', ''))
        totals[part] = totals.get(part, 0) + number
    return dict(sorted(totals.items(), key=lambda item: -item[1]))


def mm_models() -> str:
    """Section on unchanged configs of mmdet and mmdet3d."""
    r = result('mm_models')
    rows, left = [], []
    for label, run in r['models'].items():
        training = run['training']
        rows.append(
            [
                label,
                ', '.join(f'{number} {kind}' for kind, number in run['groups'].items()),
                *(f'{run["params"][k]:,}' for k in ('dense', 'slim')),
                f'{100 * run["achieved"]:.3f} %',
                f'{run["mask_slim"]:.0e}',
                f'{run["reload"]:.0e}' if run['reload'] else 'equal',
                f'{training["loss"]:.2f}' if training['finite'] else 'not finite',
            ]
        )
        dense = run['params']['dense']
        parts = [
            f'{part} {100 * number / dense:.1f} %'
            for part, number in by_part(run['uncovered']).items()
            if number >= 0.005 * dense
        ]
        reasons = [f'{name}: {reason}' for name, reason in run['not_prunable'].items()]
        left.append([label, ', '.join(parts) or 'all below 0.5 %', '; '.join(reasons) or 'none'])
    header = [
        'model', 'unit groups', 'parameters', 'slim', 'removed', 'mask against slim', 'reloaded',
        'loss of a step',
    ]  # fmt: skip
    return f"""## Unchanged configs of mmdet and mmdet3d

Random weights, one random sample (images of {r['image'][0]} x {r['image'][1]}, or 4,000 points), on the
CPU; L1, Knapsack, all kinds of units, {100 * r['ratio']:.0f} % of all parameters asked. "Mask against slim"
is the largest difference of the outputs in tensor mode, relative to the largest number of each; "reloaded"
that of the slim checkpoint loaded with the unchanged config; then one step with the config's optimizer.

{table(header, rows)}

Not pruned: the width of the residual stream, shared by all blocks of a stage; widths shared by several
modules of a detector (outputs of a pyramid, the embedding of transformers, outputs of SECOND's stages);
queries and embeddings; and unsupported classes. The table lists modules without units as shares of the
model (from half a percent on; each module with its reason is in the JSON file), and modules of supported
classes with unsupported options:

{table(['model', 'no unit', 'not prunable'], left)}
"""


SECTIONS = dict(mm_models=mm_models)
