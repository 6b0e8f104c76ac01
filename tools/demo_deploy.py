"""Slim models in other engines: a ViT in onnxruntime, in 8 bits, in OpenVINO; SmolLM2 in llama.cpp."""

import json
import time
from importlib.util import find_spec
from pathlib import Path

from arguments import Parser, check_directory
from demo_llm import DENSE as LLM
from demo_llm import GLOBAL, text_options
from demo_steps import ROOT, call, once
from demo_vit import DENSE as VIT
from demo_vit import PRUNED

#: So much that two cores do it in minutes: samples to score on, windows of text to evaluate.
SMALL = ('prune_cfg.calibration.num_samples=8', 'test_dataloader.dataset.max_windows=2')
#: What each part needs beside the language models' and ViT's own packages.
ONNX, OPENVINO, LLAMA = ('onnx', 'onnxscript', 'onnxruntime'), ('openvino',), ('xllamacpp', 'gguf')
COLUMNS = ('model', 'engine', 'parameters', 'file, MB', 'latency, ms', 'tokens/s', 'metric')
ENGINES = {'onnx': 'onnxruntime', 'openvino': 'OpenVINO', 'gguf': 'llama.cpp'}


def lacking(what: str, packages: tuple[str, ...]) -> bool:
    """Whether packages are missing; says what is left out then."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        print(f'\n{what} left out: {", ".join(missing)} not installed')
    return bool(missing)


def vit(folder: Path, anew: bool) -> list[dict]:
    """Train, prune and fine-tune a small ViT, write it for onnxruntime and OpenVINO, and compare."""
    if lacking('the ViT', ('timm', 'sklearn', *ONNX)):
        return []
    dense, pruned = folder / 'vit_dense', folder / 'vit_pruned'
    checkpoint, slim = str(dense / 'latest.pth'), str(pruned / 'fine_tuned' / 'latest.pth')
    anew = once(dense, anew, 'tools/train.py', VIT, '--work-dir', str(dense)) or anew
    prune = ('tools/analysis_struct.py', PRUNED, checkpoint, '--output-dir', str(pruned))
    once(pruned, anew, *prune, '--fine-tune')
    single, eight = str(folder / 'vit_slim.onnx'), str(folder / 'vit_slim.int8.onnx')
    test = ('tools/test.py', VIT, slim, '--work-dir', str(folder / 'test'), '--save-onnx')
    call(*test, single)
    call(*test, eight, '--int8')
    files = {'dense': checkpoint, 'slim': slim, 'slim, ONNX': single, 'slim, ONNX in 8 bits': eight}
    if not lacking('OpenVINO', OPENVINO):
        files['slim, OpenVINO'] = in_openvino(single)
    return compared(VIT, files, folder / 'vit_compare')


def in_openvino(path: str) -> str:
    """Write an ONNX file in OpenVINO's own format beside it; its path."""
    import openvino

    target = str(Path(path).with_suffix('.xml'))
    graph = openvino.Core().read_model(ROOT / path)
    openvino.save_model(graph, ROOT / target, compress_to_fp16=False)
    print(f'\n{target}: {path} as OpenVINO has it')
    return target


def llm(folder: Path, anew: bool) -> list[dict]:
    """Prune SmolLM2, write it for llama.cpp, compare, and have it write a sentence there."""
    if lacking('SmolLM2', ('transformers', *LLAMA)):
        return []
    options = ['--cfg-options', *SMALL, *text_options()]
    pruned = folder / 'smollm2'
    prune = ('tools/analysis_struct.py', GLOBAL, '--output-dir', str(pruned), *options)
    once(pruned, anew, *prune, 'prune_cfg.weight_level=False')
    slim = str(pruned / next((ROOT / pruned).glob('*_structured_pruned.pth')).name)
    dense_file, slim_file = str(folder / 'smollm2.gguf'), str(folder / 'smollm2_slim.gguf')
    test = ('--work-dir', str(folder / 'test'), *options)
    call('tools/test.py', LLM, '--save-gguf', dense_file, *test)
    call('tools/test.py', LLM, slim, '--save-gguf', slim_file, *test)
    files = {'dense, GGUF': dense_file, 'slim': slim, 'slim, GGUF': slim_file}
    rows = compared(LLM, files, folder / 'smollm2_compare', *options)
    call('tools/generate.py', LLM, dense_file, slim_file)
    return rows


def compared(config: str, files: dict[str, str], out: Path, *options: str) -> list[dict]:
    """What ``tools/compare.py`` finds of these files: a row for each, with its metric as text."""
    call(
        'tools/compare.py', config, *files.values(), '--labels', *files, '--out', str(out), *options
    )
    report = json.loads((ROOT / out / 'compare.json').read_text())
    name = next(iter(report['headline']), None)
    for row in report['models']:
        value = (row['metrics'] or {}).get(name)
        row['shown'] = '-' if value is None else f'{name.rpartition("/")[2]} {value:.2f}'
    return report['models']


def table(rows: list[dict]) -> str:
    """All rows as text, one column beneath the other."""

    def cells(row: dict) -> tuple[str, ...]:
        latency, speed = row['latency_ms'], row['tokens_per_s']
        return (
            row['label'], ENGINES.get(row['structure'], 'PyTorch'), f'{row["params"]:,}',
            f'{row["file_bytes"] / 1e6:.1f}', '-' if latency is None else f'{latency:.1f}',
            '-' if speed is None else f'{speed:.1f}', row['shown'],
        )  # fmt: skip

    lines = [COLUMNS, *map(cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return '\n'.join(
        '  '.join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def main() -> None:
    """Run the demo."""
    parser = Parser(description=__doc__)
    parser.add_argument('--folder', default='work_dirs/demo_deploy', help='where results go')
    parser.add_argument('--anew', action='store_true', help='do everything again')
    args = parser.parse_args()
    check_directory(parser, '--folder', str(ROOT / args.folder))
    start = time.perf_counter()
    folder = Path(args.folder)
    (ROOT / folder).mkdir(parents=True, exist_ok=True)
    rows = [
        {**row, 'label': f'{name}, {row["label"]}'}
        for name, part in (('ViT', vit), ('SmolLM2', llm))
        for row in part(folder, args.anew)
    ]
    print(f'\n{table(rows)}\n')
    print(f'files and tables: {folder}')
    print(f'done in {time.perf_counter() - start:.0f} s')


if __name__ == '__main__':
    main()
