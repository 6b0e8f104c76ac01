"""ViT in one go: train a small one on digits, prune half of it, fine-tune, evaluate."""

import json
import time
from pathlib import Path

from arguments import Parser, check_directory
from demo_steps import ROOT, call, once

DENSE = 'projects/configs/ViT/vit_tiny_digits.py'
PRUNED = 'projects/configs/ViT/vit_tiny_digits_prune50.py'


def main() -> None:
    """Run the demo."""
    parser = Parser(description=__doc__)
    parser.add_argument('--folder', default='work_dirs/demo_vit', help='where results go')
    parser.add_argument('--anew', action='store_true', help='train the dense model again')
    args = parser.parse_args()
    check_directory(parser, '--folder', str(ROOT / args.folder))
    start = time.perf_counter()
    dense = Path(args.folder) / 'dense'
    pruned = Path(args.folder) / 'pruned'

    once(dense, args.anew, 'tools/train.py', DENSE, '--work-dir', str(dense))
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
    print(f'                  {pruned}/kept_share.png, metrics_params.png')
    print(f'done in {time.perf_counter() - start:.0f} s')


if __name__ == '__main__':
    main()
