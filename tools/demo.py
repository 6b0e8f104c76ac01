"""The main job in one go: train a small ViT on digits, prune half of it, fine-tune, evaluate."""

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DENSE = 'projects/configs/ViT/vit_tiny_digits.py'
PRUNED = 'projects/configs/ViT/vit_tiny_digits_prune50.py'


def call(*arguments: str) -> None:
    """Run a tool as a user would, showing the command; end the demo if it fails."""
    print(f'\n$ python {shlex.join(arguments)}', flush=True)
    code = subprocess.run([sys.executable, *arguments], cwd=ROOT).returncode
    if code:
        sys.exit(code)


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--folder', default='work_dirs/demo', help='where results go')
    parser.add_argument('--anew', action='store_true', help='train the dense model again')
    args = parser.parse_args()
    start = time.perf_counter()
    dense = Path(args.folder) / 'dense'
    pruned = Path(args.folder) / 'pruned'

    if args.anew or not (ROOT / dense / 'done').exists():
        call('tools/train.py', DENSE, '--work-dir', str(dense))
        (ROOT / dense / 'done').touch()
    else:
        print(f'using the dense model trained before in {dense} (--anew trains another)')
    checkpoint = str(dense / 'latest.pth')
    call('tools/analysis_struct.py', PRUNED, checkpoint, '--output-dir', str(pruned), '--fine-tune')
    slim = str(pruned / 'fine_tuned' / 'latest.pth')
    # The dense config: the checkpoint itself says how slim the model is.
    call('tools/test.py', DENSE, slim, '--eval', 'accuracy', '--work-dir', f'{args.folder}/test')

    report = json.loads((ROOT / pruned / 'report.json').read_text())
    stages = {name: report[name]['metrics']['accuracy/top1'] for name in ('dense', 'pruned')}
    stages['fine-tuned'] = report['recovered']['metrics']['accuracy/top1']
    print('\ntop-1 accuracy: ' + ', '.join(f'{k} {v:.2f} %' for k, v in stages.items()))
    print(f'report and plots: {pruned}/report.json, report.csv, units.csv,')
    print(f'                  {pruned}/kept_share.png, accuracy_params.png')
    print(f'done in {time.perf_counter() - start:.0f} s')


if __name__ == '__main__':
    main()
