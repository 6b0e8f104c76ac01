"""Names on an axis."""

import pytest

from projects.prune_plugin.workflows.reports.short_names import short_names, starts_of_stages


@pytest.mark.parametrize(
    ('names', 'short', 'pattern'),
    [
        (['a.blocks.0.attn', 'a.blocks.1.attn'], ['0', '1'], 'a.blocks.*.attn'),
        (['layer1.0.conv1', 'layer2.0.conv1'], ['layer1', 'layer2'], '*.0.conv1'),
        (['layer1.0.conv1', 'layer1.1.conv2'], ['0.conv1', '1.conv2'], 'layer1.*'),
        (['neck', 'backbone.stem'], ['neck', 'backbone.stem'], '*'),
        (['a.b', 'a.b.c'], ['b', 'b.c'], 'a.*'),
        (['only.one'], ['one'], 'only.one'),
    ],
)
def test_what_is_shared_goes_to_the_pattern(names, short, pattern):
    assert short_names(names) == (short, pattern)


def test_stages():
    assert starts_of_stages(['layer1.0', 'layer1.1', 'layer2.0', 'layer3.0', 'layer3.1']) == [2, 3]
    assert starts_of_stages(['0', '1', '2']) == [] == starts_of_stages(['a.0', 'a.1'])
