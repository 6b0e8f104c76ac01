"""Models that keep something from call to call, left as they were."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

#: Types of attributes that are put back.
PLAIN = (int, float, bool, str, tuple, type(None))


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Put buffers and plain attributes (counters, flags) of all modules back on exit."""
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    attributes = [
        (module, {k: v for k, v in vars(module).items() if type(v) in PLAIN and k != 'training'})
        for module in model.modules()
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                if not buffer.is_meta and buffer.shape == before.shape:
                    buffer.copy_(before)
        for module, values in attributes:
            for name, value in values.items():
                if vars(module).get(name) is not value and type(vars(module).get(name)) in PLAIN:
                    vars(module)[name] = value
