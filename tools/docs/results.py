"""Write the table of results in README.md and README.zh.md from docs/benchmarks/*.json."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / 'docs' / 'benchmarks'
BEGIN, END = '<!-- results: written by make docs -->\n\n', '\n<!-- /results -->'
HEADS = {
    'README.md': ('what is measured', 'removed', 'dense', 'pruned', 'for comparison', 'file'),
    'README.zh.md': ('测量内容', '剪掉', '原模型', '剪枝后', '对照', '文件'),
}


def one(rows: list[dict], **wanted: Any) -> dict:
    """The only row with these values.

    Raises:
        ValueError: none or several.
    """
    found = [row for row in rows if all(row.get(k) == v for k, v in wanted.items())]
    if len(found) != 1:
        raise ValueError(f'{len(found)} rows with {wanted}')
    return found[0]


def planning(data: dict, method: str, stage: str) -> float:
    """Mean planning error over seeds, 30 % of the parameters removed."""
    wanted = dict(method=method, ratio=0.3, stage=stage)
    rows = [r for r in data['results'] if all(r[k] == v for k, v in wanted.items())]
    return fmean(row['plan_l2'] for row in rows)


def perplexity(data: dict, setting: str, method: str) -> float:
    """Of a weight-level method."""
    return one(data['results'], setting=setting, method=method)['perplexity']


def whole_units(data: dict, method: str) -> float:
    """Perplexity after a quarter of all parameters went as whole units."""
    return one(data['methods'][method]['pruned'], ratio=0.25)['perplexity']


def accuracy(data: dict, method: str) -> float:
    """Top-1 after 70 % of all parameters went."""
    return one(data['results'], method=method, ratio=0.7)['top1']


def beside(data: dict, stage: str) -> tuple[float, float, float]:
    """Top-1 of the dense model, by L1 here, and by torch-pruning's of the same units; means over seeds."""
    methods = {name: found['runs'] for name, found in data['methods'].items() if 'runs' in found}
    return (
        fmean(run['pruned']['top1'] for run in data['dense']['runs']),
        *(fmean(run[stage]['top1'] for run in methods[name]) for name in ('here', 'peer_inner')),
    )


#: What the removed fractions are of.
UNITS = ('of heads and neurons', '的注意力头和神经元')
PARAMS = ('of parameters', '的参数')
WEIGHTS = ('of weights', '的权重')
#: File, English and Chinese text, how much is removed of what, how numbers are written, (dense, pruned, the
#: other) from the file's content, and what the other is, in both languages.
Values = Callable[[dict], tuple[float, float, float | None]]
Row = tuple[str, str, str, str, tuple[str, str], str, Values, str, str]
ROWS: list[Row] = [
    ('vit_latency', 'ViT-Small, 8 images, ms', 'ViT-Small，8 张图像，毫秒', '70 %', UNITS, '.1f',
     lambda d: tuple(d['latency_ms'][k] for k in ('dense', 'slim', 'by_hand')),
     'the same model cut by hand', '手工裁剪的同一模型'),
    ('vad_speed', 'VAD-tiny, one frame on a CPU, ms', 'VAD-tiny，CPU 上一帧，毫秒', '50 %', PARAMS, ',.0f',
     lambda d: (d['dense']['ms'], d['pruned']['0.5']['ms'], None), '', ''),
    ('vad_prune', 'small VAD, planning error after retraining, m', '小型 VAD，再训练后的规划误差，米',
     '30 %', PARAMS, '.2f',
     lambda d: (planning(d, 'taylor-knapsack', 'dense'), planning(d, 'taylor-knapsack', 'recovered'),
                planning(d, 'l1-uniform', 'recovered')),
     'uniform magnitude', '均匀幅值剪枝'),
    ('criteria', 'small ViT on digits, top-1, not trained after', '数字识别小型 ViT，top-1，剪后不训练',
     '70 %', PARAMS, '.1f',
     lambda d: (d['dense'], accuracy(d, 'Taylor, order 1'), accuracy(d, 'Random')),
     'random units', '随机单元'),
    ('side_by_side_vit', 'small ViT on digits by L1, top-1, not trained after',
     '数字识别小型 ViT，按 L1，top-1，剪后不训练', '70 %', PARAMS, '.1f',
     lambda d: beside(d, 'pruned'), 'Torch-Pruning, the same units', 'Torch-Pruning，相同单元'),
    ('side_by_side_vit', 'the same, after a short fine-tuning', '同上，短暂微调后', '70 %', PARAMS, '.1f',
     lambda d: beside(d, 'recovered'), 'Torch-Pruning, the same units', 'Torch-Pruning，相同单元'),
    ('tickets', 'small ViT on CIFAR-10, top-1, soft pruning (RSST)',
     'CIFAR-10 小型 ViT，top-1，软剪枝（RSST）',
     '70 %', UNITS, '.1f',
     lambda d: tuple(d['summary'][k]['mean'] for k in ('dense', 'RSST', 'one-shot')),
     'one shot, as many epochs', '一次剪枝，轮数相同'),
    ('llm_global', 'SmolLM2, whole units, perplexity', 'SmolLM2，整个单元，困惑度', '25 %', PARAMS, '.1f',
     lambda d: (d['dense_perplexity'], whole_units(d, 'ours'), whole_units(d, 'plain_global')),
     'plain Taylor scores', '普通 Taylor 分数'),
    ('llm_weights', 'SmolLM2, single weights, perplexity', 'SmolLM2，单个权重，困惑度',
     '50 %', WEIGHTS, '.1f',
     lambda d: (d['dense_perplexity'], perplexity(d, '50%', 'ours_sparsegpt'),
                perplexity(d, '50%', 'reference_sparsegpt')),
     "the authors' SparseGPT class", 'SparseGPT 原作者的类'),
    ('llm_weights', 'the same', '同上', '90 %', WEIGHTS, ',.0f',
     lambda d: (d['dense_perplexity'], perplexity(d, '90%', 'ours_sparsegpt'),
                perplexity(d, '90%', 'reference_sparsegpt')),
     "the authors' SparseGPT class", 'SparseGPT 原作者的类'),
    ('mm_models', "mmdet's RetinaNet, unchanged, parameters", 'mmdet 的 RetinaNet（配置不变），参数量',
     '30 %', PARAMS, ',', lambda d: (*d['models']['RetinaNet']['params'].values(), None), '', ''),
    ('pruning_speed', 'time to prune a ViT-Small, s', '剪枝 ViT-Small 所需时间，秒', '70 %', UNITS, '.2f',
     lambda d: (None, d['seconds']['here']['median'], d['seconds']['torch_pruning']['median']),
     'Torch-Pruning', 'Torch-Pruning'),
]  # fmt: skip


def cells(row: Row, chinese: bool) -> list[str]:
    """A row of the table."""
    file, *texts, share, kinds, form, values, other, other_zh = row
    data = json.loads((BENCHMARKS / f'{file}.json').read_text(encoding='utf-8'))
    dense, pruned, compared = (
        '' if value is None else format(value, form) for value in values(data)
    )
    if compared:
        compared = f'{compared}（{other_zh}）' if chinese else f'{compared} ({other})'
    link = f'[{file}](docs/benchmarks/{file}.json)'
    return [texts[chinese], f'{share} {kinds[chinese]}', dense, pruned, compared, link]


def table(page: str) -> str:
    """The table of a page."""
    head = HEADS[page]
    lines = [head, ['---'] * len(head), *(cells(row, page != 'README.md') for row in ROWS)]
    return ''.join('| ' + ' | '.join(line) + ' |\n' for line in lines)


def written(page: str) -> str:
    """A page's text with the table as it is now.

    Raises:
        ValueError: the page lacks the marks between which it stands.
    """
    text = (ROOT / page).read_text(encoding='utf-8')
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f'{page} lacks {BEGIN.strip()} or {END}')
    return f'{before}{begin}{table(page)}{end}{after}'


def main() -> int:
    """Write both pages."""
    for page in HEADS:
        (ROOT / page).write_text(written(page), encoding='utf-8')
        print(f'{page}: {len(ROWS)} results')
    return 0


if __name__ == '__main__':
    sys.exit(main())
