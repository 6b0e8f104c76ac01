"""Hidden features of the polyline encoder."""

from torch import nn

from projects.prune_plugin import BranchNeurons, UnitGroup, hidden_features, join


@BranchNeurons.layout('LaneNet')
def lane_net(name: str, module: nn.Module) -> list[UnitGroup]:
    """Each layer's features go on twice, by themselves and as the maximum over the line.

    The last layer's are the output, which the decoders read.
    """
    groups = []
    layers = [
        (join(name, f'layer_seq.{n}.mlp'), m.mlp) for n, m in module.layer_seq.named_children()
    ]
    for (path, first), (after, second) in zip(layers, layers[1:], strict=False):
        (number, producer), *between = first.named_children()
        groups.append(
            hidden_features(
                join(path, number),
                producer,
                [(join(path, n), m) for n, m in between],
                [(join(after, '0'), second[0])],
                name,
                (0, producer.out_features),
            )
        )
    return [group for group in groups if group is not None]
