"""What the original computes on small cases: numbers in the suite, and the files they came from."""

import importlib.util
import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
SHARED = Path(os.environ.get('VAD_REFERENCE') or HERE.parents[3] / 'shared' / 'vad')
CLASSES = [
    'car', 'truck', 'construction_vehicle', 'bus', 'trailer', 'barrier', 'motorcycle', 'bicycle',
    'pedestrian', 'traffic_cone',
]  # fmt: skip
MAP_CLASSES = ['divider', 'ped_crossing', 'boundary']


def reference(name: str) -> Path:
    """A file of the reference, or a skipped test."""
    if not (SHARED / name).is_file():
        pytest.skip(f'no {name} in {SHARED}; set VAD_REFERENCE')
    return SHARED / name


def det_input():
    """The reference's module that makes inputs and ground truth."""
    spec = importlib.util.spec_from_file_location('det_input', reference('det_input.py'))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def load(source: str) -> dict:
    """The cases: those of the suite ('fixture'), or the reference's own ('reference')."""
    if source == 'fixture':
        return json.loads((HERE / 'data' / 'metrics.json').read_text())
    cases = json.loads(reference('metrics_cases.json').read_text())
    boxes, labels, attributes = (t.tolist() for t in det_input().gt_agents())
    return dict(cases, gt=dict(boxes=boxes, labels=labels, attributes=attributes))


def f32(values) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def ground_truth(cases: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes ``(7, 9)``, labels ``(7,)`` and attributes ``(7, 34)``."""
    true = cases['gt']
    return f32(true['boxes']), np.array(true['labels']), f32(true['attributes'])
