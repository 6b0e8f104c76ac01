"""A language model in one go: prune SmolLM2 as a whole and weight by weight, recover, compare."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from arguments import Parser, check_directory
from demo_steps import ROOT, call, once

DENSE = 'projects/configs/LLM/smollm2_135m.py'
GLOBAL = 'projects/configs/LLM/smollm2_135m_global25.py'
SPARSE = 'projects/configs/LLM/smollm2_135m_sparsegpt50.py'
#: So much that two cores do it in some ten minutes.
SMALL = ['prune_cfg.calibration.num_samples=16']
SHORT = ['prune_cfg.recovery.max_steps=12', 'prune_cfg.recovery.lr=5e-5']


def text_options() -> list[str]:
    """Options that name the text: WikiText-2 if it is there or can be had, else Python's docs."""
    root = os.environ.get('WIKITEXT2_ROOT', 'data/wikitext2')
    if (ROOT / root / 'wiki.test.raw').is_file():
        return []
    command = [sys.executable, 'tools/create_data.py', 'wikitext2']
    if subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0:
        return []
    print(f"no WikiText-2 in {root} and none from the hub: using Python's own documentation")
    loaders = ('train', 'val', 'test', 'calibration')
    return [f'{name}_dataloader.dataset.source=pydoc' for name in loaders]


def main() -> None:
    """Run the demo."""
    parser = Parser(description=__doc__)
    parser.add_argument('--folder', default='work_dirs/demo_llm', help='where results go')
    parser.add_argument('--anew', action='store_true', help='do again what was done')
    args = parser.parse_args()
    check_directory(parser, '--folder', str(ROOT / args.folder))
    start = time.perf_counter()
    whole, single = Path(args.folder) / 'global25', Path(args.folder) / 'sparsegpt50'
    text = text_options()

    for config, folder in ((GLOBAL, whole), (SPARSE, single)):
        tool = ('tools/analysis_struct.py', config, '--output-dir', str(folder), '--fine-tune')
        once(folder, args.anew, *tool, '--cfg-options', *SMALL, *SHORT, *text)

    # One dense config for all: a checkpoint says itself how slim it is.
    prune_files = [*(ROOT / whole).glob('*_pruned.pth'), *(ROOT / single).glob('*_pruned.pth')]
    trained = [folder / 'fine_tuned' / 'latest.pth' for folder in (whole, single)]
    checkpoints = [os.path.relpath(path, ROOT) for path in prune_files] + list(map(str, trained))
    call('tools/generate.py', DENSE)
    call('tools/generate.py', DENSE, *checkpoints)

    reports = [
        json.loads((ROOT / folder / 'report.json').read_text()) for folder in (whole, single)
    ]
    print('\nperplexity                          before   after  recovered   parameters      zeros')
    for name, report in zip(('25 % of all, by units', '50 %, SparseGPT'), reports, strict=True):
        stages = [report[s]['metrics']['ppl/perplexity'] for s in ('dense', 'pruned', 'recovered')]
        zeros = report['achieved']['zeros'] or 0
        print(
            f'{name:<32}'
            + ''.join(f'{value:10.2f}' for value in stages)
            + f'{report["pruned"]["params"]:13,} {zeros:10.1%}'
        )
    print('recovery trains on text like that of the test, which lowers perplexity by itself')
    print(f'reports, tables and plots: {whole}/ and {single}/')
    print(f'done in {time.perf_counter() - start:.0f} s')


if __name__ == '__main__':
    main()
