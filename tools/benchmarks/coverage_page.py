"""docs/models.md: which models can be pruned, from what coverage_sweep.py has measured."""

import math
import statistics
from typing import Any

from tables import DOCS, has_result, result, wrapped

LIBRARIES = {
    'timm': 'timm, the smallest model of each file',
    'torchvision': 'torchvision, all classifiers',
    'transformers': 'transformers, a tiny model of each causal-LM type',
    'encoders': 'transformers, a tiny model of encoder, vision and speech types',
    'mmdet': 'mmdet, a model of each folder of configs',
    'mmdet3d': 'mmdet3d, a model of each folder of configs',
    'mmseg': 'mmseg, a model of each folder of configs',
}


def tried(library: str) -> list[dict[str, Any]]:
    """The rows of models that can be built and run."""
    return [row for row in result(f'coverage_{library}')['rows'] if 'skipped' not in row]


def summary(library: str) -> str:
    """A library's row."""
    data, rows = result(f'coverage_{library}'), tried(library)
    right = [row for row in rows if row['ok']]
    wrong = [row for row in rows if row.get('crashed') or row.get('difference', 0) >= 1e-3]
    peers = [row['torch_pruning'] for row in rows if 'torch_pruning' in row]
    peer = f'{sum(p["ok"] for p in peers)}' if peers else 'not run'
    reach = statistics.median(row['reach'] for row in right)
    return (
        f'| {LIBRARIES[library]} | {len(data["rows"])} | {len(rows)} | {100 * data["ratio"]:.0f} % '
        f'| {len(right)} | {reach:.2f} | {len(rows) - len(right) - len(wrong)} | {len(wrong)} | {peer} |'
    )


def listed(library: str) -> str:
    """All models of a library: those pruned with their reach, then the others with the reason."""
    rows = tried(library)
    right = ', '.join(
        f'{row["name"]}{"" if row.get("compared", True) else "*"} {row["reach"]:.2f}'
        for row in rows
        if row['ok']
    )
    lines = [f'## {LIBRARIES[library]}', '', f'Pruned, with reach: {right}.', '']
    rest = [row for row in rows if not row['ok']]
    if rest:
        lines += ['| not pruned as asked | reason |', '|---|---|']
        lines += [f'| {row["name"]} | {reason(row)} |' for row in rest]
        lines.append('')
    return '\n'.join(lines)


def reason(row: dict[str, Any]) -> str:
    """Why a model isn't pruned as asked."""
    if 'why' in row:
        if row['why'] in ('TimeoutError', 'BrokenProcessPool'):
            return 'took too long'
        text = row['why'].replace('|', '\\|').replace('\n', ' ')
        return f'`{text[:300]}`'
    if 'generates' in row:
        return 'the slim model does not generate'
    if math.isnan(row.get('difference', 0.0)):
        return 'nothing to compare: with these random weights the dense model gives NaN'
    return f'{100 * row["removed"]:.0f} % removed'


def write_page() -> None:
    """Write docs/models.md from the results that there are."""
    libraries = [library for library in LIBRARIES if has_result(f'coverage_{library}')]
    head = """# Which models can be pruned

Written by `make coverage` (an hour or more) from `coverage_*.json` in benchmarks/;
don't edit it. Random weights with noise on every parameter; L1, the default settings, an example
input (OpenMMLab's without one: an image or a cloud of points is made, and what their backbones and
necks give is compared; those with a star need operators for GPUs and weren't run). **Right** means:
what was asked for is removed within two points, and the slim model computes what the masked one
does; a language model also generates afterwards, if the dense one does. **Reach** is the share of
the weights that lie in tensors which units cut, embeddings and language models' heads aside.
**Refused** models end with a sentence that says why. torch-pruning: its magnitude pruner with
default settings, half the ratio in channels; right means that it runs, keeps the outputs' shape and
removes anything to speak of.

| models | listed | run here | asked | right | median reach | refused | wrong, crashed | torch-pruning |
|---|---|---|---|---|---|---|---|---|
"""
    rows = [summary(library) for library in libraries]
    page = head + '\n'.join([*rows, '', *(listed(library) for library in libraries)])
    (DOCS / 'models.md').write_text(wrapped(page))
    print(f'written to {DOCS / "models.md"}')


if __name__ == '__main__':
    write_page()
