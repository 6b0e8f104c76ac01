"""Refitting by definition: dense least squares in float64, one reader after the other."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Batches:
    """Calibration batches as they are, one sample each."""

    seed = 0

    def __init__(self, batches: Sequence):
        self.batches = list(batches)

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return ((number, 1, batch) for number, batch in enumerate(self.batches))

    def first_sample(self):
        return self.batches[0]


def rows_of(layer: nn.Module, x: Tensor) -> np.ndarray:
    """What each output is a weighted sum of, (rows, inputs); convolutions by their windows."""
    if isinstance(layer, nn.Linear):
        return x.reshape(-1, x.shape[-1]).double().numpy()
    (top, left), (height, width), (down, right) = layer.padding, layer.kernel_size, layer.stride
    x = F.pad(x.double(), (left, left, top, top))
    windows = x.unfold(2, height, down).unfold(3, width, right)  # (n, c, y, x, height, width)
    return windows.permute(0, 2, 3, 1, 4, 5).flatten(0, 2).flatten(1).numpy()


def solved(
    layer: nn.Module, rows: np.ndarray, gone: Sequence[int], damping: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weights and biases by ``numpy.linalg.lstsq`` on the damped system, stacked."""
    weight = layer.weight.detach().double().flatten(1).numpy()
    bias = np.zeros(len(weight)) if layer.bias is None else layer.bias.detach().double().numpy()
    taps = layer.weight[0, 0].numel()
    lost = [i * taps + t for i in gone for t in range(taps)]
    stay = [i for i in range(weight.shape[1]) if i not in set(lost)]
    seen = rows[:, stay]
    constant = layer.bias is not None
    spread = seen - seen.mean(0) if constant else seen
    held = np.sqrt(damping * np.square(spread).sum(0).mean()) * np.eye(len(stay))
    if constant:
        seen = np.concatenate([seen, np.ones((len(seen), 1))], 1)
        held = np.concatenate([held, np.zeros((len(stay), 1))], 1)
    target = rows @ weight.T + bias
    left = np.concatenate([seen, held])
    right = np.concatenate([target, held[:, : len(stay)] @ weight[:, stay].T])
    found = np.linalg.lstsq(left, right, rcond=None)[0].T
    new = np.zeros_like(weight)
    new[:, stay] = found[:, : len(stay)]
    return new, found[:, -1] if constant else bias


def first_input(model: nn.Module, path: str, run: Callable[[], object]) -> Tensor:
    """What a layer reads when it first runs."""
    read = []
    layer = model.get_submodule(path)
    handle = layer.register_forward_pre_hook(lambda module, args: read.append(args[0].clone()))
    with torch.no_grad():
        run()
    handle.remove()
    return read[0]


def refit_in_order(
    model: nn.Module, gone: dict[str, Sequence[int]], runs: Sequence[Callable], damping: float
) -> None:
    """Refit readers (``{path: inputs that go}``, in the order they run), a pass of all data for each."""
    for path, lost in gone.items():
        layer = model.get_submodule(path)
        inputs = [first_input(model, path, lambda run=run: run(model)) for run in runs]
        rows = np.concatenate([rows_of(layer, x) for x in inputs])
        weight, bias = solved(layer, rows, lost, damping)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight).view(layer.weight.shape))
            if layer.bias is not None:
                layer.bias.copy_(torch.from_numpy(bias))
