"""Prune a large Llama of random weights block by block, under a hard limit on memory.

The model is made here, in bfloat16 and in shards, and deleted afterwards. Each method runs in a process of
its own with RLIMIT_DATA set: the system then refuses writable private memory beyond the limit, that is
all tensors, heaps and buffers; only the mapped code of libraries doesn't count. What is measured: peak
resident and peak anonymous memory as the system counts them, bytes of weights read and written, bytes that
the process has read and written in all, and seconds of each block, against a bare pass that reads the same
blocks and runs the same windows through them.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from common import ROOT, write

WORKER = Path(__file__).resolve().parent / 'streamed_worker.py'
METHODS = ('forward', 'sparsegpt', 'magnitude', '2of4')
GIB = 2**30


def shape_of(params: float, mlp: float) -> dict:
    """The numbers of a Llama of about so many parameters: wider first, then deeper.

    Args:
        params: Parameters.
        mlp: Width of an MLP by that of the model.
    """
    wide = [w for w in (4096, 2048, 1024, 512, 256) if 16 * per_block(w, mlp) <= params]
    width = wide[0] if wide else 256
    layers = max(round((params - 2 * 32000 * width) / per_block(width, mlp)), 2)
    return dict(
        model_type='llama', vocab_size=32000, hidden_size=width, intermediate_size=int(mlp * width),
        num_hidden_layers=layers, num_attention_heads=width // 128 if width >= 512 else 4,
        num_key_value_heads=max(width // 512, 2), max_position_embeddings=4096,
        tie_word_embeddings=False, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip


def per_block(width: int, mlp: float) -> int:
    """Parameters of a block: attention with a quarter of the key and value heads, and an MLP."""
    return width * width * 5 // 2 + 3 * width * int(mlp * width)


def run(arguments: list[str]) -> dict:
    """Run the worker; what it has measured."""
    done = subprocess.run(
        [sys.executable, str(WORKER), *arguments], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    if done.returncode:
        raise SystemExit(f'{" ".join(arguments)} ended with {done.returncode}')
    return json.loads(done.stdout.splitlines()[-1])


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--params', type=float, default=6e9, help='parameters; default: 6e9')
    parser.add_argument(
        '--mlp', type=float, default=2.0, help="an MLP's width by the model's; default: 2"
    )
    parser.add_argument('--methods', nargs='+', choices=METHODS, default=METHODS)
    parser.add_argument(
        '--blocks', default='0:3', help='blocks to prune by SparseGPT, and to compare; default: 0:3'
    )
    parser.add_argument('--limit', type=float, default=4.0, help='GiB of memory; default: 4')
    parser.add_argument('--samples', type=int, default=8, help='windows of 128 tokens; default: 8')
    parser.add_argument('--offload', choices=('cpu', 'disk'), default='cpu')
    parser.add_argument('--folder', type=Path, help='where to work; default: a temporary folder')
    parser.add_argument(
        '--output', default='streamed', help='name of the result in docs/benchmarks'
    )
    return parser.parse_args()


def main() -> None:
    """Run the benchmark."""
    args = parse()
    folder = Path(tempfile.mkdtemp(dir=args.folder, prefix='streamed-'))
    shape = shape_of(args.params, args.mlp)
    common = [
        '--folder', str(folder), '--shape', json.dumps(shape), '--samples', str(args.samples),
        '--offload', args.offload, '--limit', str(round(args.limit * GIB)),
    ]  # fmt: skip
    try:
        made = run(['make', *common])
        print(f'made: {made}', flush=True)
        results = {}
        for method in args.methods:
            some = ['--blocks', args.blocks] if method in ('forward', 'sparsegpt') else []
            results[method] = run([method, *common, *some])
            shutil.rmtree(folder / 'out', ignore_errors=True)  # as large as the model
            print(f'{method}: {results[method]}', flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    summary = dict(
        shape=shape, params=made['params'], bytes=made['bytes'], samples=args.samples, window=128,
        limit_gib=args.limit, limited_by='RLIMIT_DATA', offload=args.offload, blocks=args.blocks,
        methods=results,
    )  # fmt: skip
    if {'forward', 'sparsegpt'} <= results.keys():
        mean = {name: results[name]['block_seconds_mean'] for name in ('forward', 'sparsegpt')}
        summary['sparsegpt_over_forward'] = mean['sparsegpt'] / mean['forward']
    print(f'written to {write(args.output, summary).relative_to(ROOT)}')


if __name__ == '__main__':
    main()
