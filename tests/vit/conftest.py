"""Small CIFAR look-alikes in every form that the data sets read."""

import hashlib
import io
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image


class TinyCifar:
    """Random 32x32 images with labels, and writers for the forms that CIFAR comes in."""

    def __init__(self, num_images: int, num_classes: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.images = rng.integers(0, 256, (num_images, 3, 32, 32), dtype=np.uint8)
        self.labels = [int(i * 7 % num_classes) for i in range(num_images)]

    def png(self, i: int) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(self.images[i].transpose(1, 2, 0)).save(buffer, format='PNG')
        return buffer.getvalue()

    def parquet(self, path: Path, image='image', label='label', struct=False, rows=None) -> Path:
        rows = range(len(self.labels)) if rows is None else rows
        encoded = [self.png(i) for i in rows]
        column = [{'bytes': e, 'path': None} for e in encoded] if struct else encoded
        labels = [self.labels[i] for i in rows]
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({image: column, label: labels}), path)
        return path

    def pickled(self, path: Path, label_key: str) -> str:
        """Write one file as in the original archives and return its MD5 sum."""
        path.parent.mkdir(parents=True, exist_ok=True)
        flat = self.images.reshape(len(self.labels), -1)
        path.write_bytes(pickle.dumps({'data': flat, label_key: self.labels}))
        return hashlib.md5(path.read_bytes()).hexdigest()

    def folder(self, root: Path, names, suffix: str = '.png') -> Path:
        for i, label in enumerate(self.labels):
            path = root / names[label] / f'{i:03d}{suffix}'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.png(i))
        return root


@pytest.fixture
def tiny10() -> TinyCifar:
    return TinyCifar(12, 10)


@pytest.fixture
def tiny100() -> TinyCifar:
    return TinyCifar(16, 100, seed=1)
