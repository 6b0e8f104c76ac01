"""Random convolutional nets whose widths are coupled in all the ways that such nets couple them."""

from collections.abc import Mapping

import torch
from hypothesis import strategies as st
from torch import nn

#: What a layer does with the stream x: ``x = f(x)``, ``x + f(x)``, ``cat([x, f(x)])``, a filter for each
#: channel, filters in groups, or one convolution of the stream's width twice.
KINDS = ('plain', 'residual', 'concat', 'depthwise', 'grouped', 'twice')


def layers() -> st.SearchStrategy[tuple]:
    """``(kind, width, norm, bias)`` of up to four layers."""
    layer = st.tuples(st.sampled_from(KINDS), st.integers(1, 6), st.booleans(), st.booleans())
    return st.lists(layer, min_size=1, max_size=4).map(tuple)


class ConvNet(nn.Module):
    """A stem, layers, and a linear layer on the mean or on every place."""

    def __init__(self, width: int, spec: tuple, places: bool, size: int):
        super().__init__()
        self.spec, self.places = spec, places
        self.stem = nn.Conv2d(3, width, 1)
        self.layers = nn.ModuleList()
        for kind, new, norm, bias in spec:
            out = new if kind in ('plain', 'concat') else width
            groups = {'depthwise': width, 'grouped': 2 if width % 2 == 0 else 1}.get(kind, 1)
            conv = nn.Conv2d(width, out, 3, padding=1, bias=bias, groups=groups)
            part = nn.Sequential(conv, nn.BatchNorm2d(out)) if norm else nn.Sequential(conv)
            self.layers.append(part)
            width = width + out if kind == 'concat' else out
        self.head = nn.Linear(width * size**2 if places else width, 3)

    def forward(self, x):
        x = self.stem(x)
        for (kind, *_), layer in zip(self.spec, self.layers, strict=True):
            new = layer(x)
            if kind == 'residual':
                x = x + new.relu()
            elif kind == 'concat':
                x = torch.cat([x, new], 1)
            else:
                x = layer(new).relu() if kind == 'twice' else new.relu()
        return self.head(x.flatten(1) if self.places else x.mean((2, 3)))


def convnet_count(kept: Mapping[str, int], width: int, spec: tuple, places: bool, size: int) -> int:
    """The stream is a list of segments; each is called after the first layer that wrote it.

    A layer that adds to the stream, or keeps its channels apart, goes with the stream's segments.
    """
    stream = [('stem', width)]

    def now() -> int:
        return sum(kept.get(name, dense) for name, dense in stream)

    total = 3 * now() + now()
    for number, (kind, new, norm, bias) in enumerate(spec):
        inputs, dense = now(), sum(full for _, full in stream)
        fresh = [(f'layers.{number}.0', new if kind in ('plain', 'concat') else dense)]
        if kind == 'depthwise' or (kind == 'grouped' and dense == 2):
            outputs, read = inputs, 1
        elif kind == 'grouped' and dense % 2 == 0:
            outputs, read = inputs, inputs / 2
            stream = fresh
        elif kind in ('residual', 'twice'):
            outputs, read = inputs, inputs
        else:
            stream = [*stream, *fresh] if kind == 'concat' else fresh  # of odd widths: one group
            outputs, read = kept.get(*fresh[0]), inputs
        total += outputs * read * 9 + outputs * bias + outputs * 2 * norm
    return int(total + now() * (size**2 if places else 1) * 3 + 3)
