"""The small ViT that is broken, how a tool ended, and what two runs must have in common."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CONFIG = ROOT / 'projects/configs/ViT/vit_tiny_digits.py'
ONE_THREAD = {'OMP_NUM_THREADS': '1', 'GOMP_SPINCOUNT': '0', 'MPLBACKEND': 'Agg'}
#: One layer of 4 heads, two batches an epoch.
SMALL = (
    'model.model_kwargs.depth=1',
    'model.model_kwargs.embed_dim=32',
    'model.model_kwargs.num_heads=4',
    'train_dataloader.dataset.indices=64',
    'val_dataloader.dataset.indices=32',
    'test_dataloader.dataset.indices=32',
    'default_hooks.logger.interval=1',
)
PROFILE = 'profile=dict(seconds=0.01, batch_size=1), calibration=dict(num_samples=32, batch_size=8)'


@dataclass
class Ended:
    """How a tool ended: exit code, negative for a signal, and all that it printed."""

    code: int
    out: str

    def refused(self, *words: str) -> str:
        """Check for exit code 2 and, at the end, one sentence with these words; return it."""
        assert self.code == 2, self.out[-3000:]
        assert 'Traceback' not in self.out, self.out[-3000:]
        said = [line for line in self.out.splitlines() if line.startswith('error: ')]
        assert len(said) == 1 and self.out.rstrip().endswith(said[0]), self.out[-3000:]
        for word in words:
            assert word in said[0], said[0]
        return said[0]


def load(path: Path) -> dict:
    """A checkpoint of our own."""
    return torch.load(path, weights_only=False)


def half_written(folder: Path) -> list[str]:
    """Files under their final names that aren't whole, of all that should be."""
    bad = []
    for path in folder.rglob('*'):
        try:
            if path.suffix == '.pth':
                load(path)
            elif path.name in ('report.json', 'history.json'):
                json.loads(path.read_text())
        except (RuntimeError, OSError, ValueError, EOFError) as error:
            bad.append(f'{path}: {error}')
    return bad


def files(folder: Path) -> set[str]:
    """What lies there, without logs, whose names are times."""
    stamp = re.compile(r'(^|/)\d{8}_\d{6}')
    names = (str(path.relative_to(folder)) for path in folder.rglob('*'))
    return {name for name in names if not stamp.search(name)}


def plain(value):
    """Tensors as lists and numbers as they are, so that ``==`` compares everything."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), value.tolist()
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value


def content(path: Path):
    """What counts in a file: not the time that anything took."""
    if path.suffix == '.pth':
        checkpoint = load(path)
        meta = checkpoint.get('meta', {})
        kept = {key: meta.get(key) for key in ('epoch', 'iter')}
        kept['units'] = (meta.get('prune_state') or {}).get('groups')
        parts = ('state_dict', 'masks', 'optimizer', 'param_schedulers', 'iterative_pruning')
        return plain({**kept, **{key: checkpoint.get(key) for key in parts}})
    if path.name == 'report.json':
        report = json.loads(path.read_text())
        names = ('dense', 'pruned', 'recovered')
        stages = {name: (report.get(name) or {}).get('metrics') for name in names}
        achieved = {k: v for k, v in report['achieved'].items() if 'latency' not in k}
        return (
            stages | {'achieved': achieved} | {key: report.get(key) for key in ('groups', 'rounds')}
        )
    if path.name == 'summary.csv':  # times vary
        return [line for line in path.read_text().splitlines() if not line.startswith('latency')]
    return path.read_bytes() if path.suffix == '.csv' else None


def assert_same_end(ours: Path, theirs: Path, more: str = r'epoch_\d+\.pth$') -> None:
    """Everything of ``theirs`` is there with the same content; beside it only what ``more`` fits."""
    assert not half_written(ours)
    own, expected = files(ours), files(theirs)
    assert expected <= own, expected - own
    extra = [name for name in own - expected if not re.search(more, name)]
    assert not extra, extra
    for name in sorted(expected):
        if (theirs / name).is_file():
            assert content(ours / name) == content(theirs / name), name
