"""Queries of VAD's head: of objects, of map elements, of the ways an agent may go on.

None of them is among the default units: what a query is worth shows in what it finds, not in its
weights. Score them with ``Usage``, or with ``Taylor``.
"""

from torch import nn

from projects.prune_plugin import Attr, Cut, UnitFinder, UnitGroup, join
from projects.prune_plugin.common.registry import UNITS


@UNITS.register_module()
class ObjectQueries(UnitFinder):
    """Object queries of the detection decoder; everything about an agent goes with its query.

    Example:
        >>> prune_cfg = dict(units=[dict(type='ObjectQueries')], criterion=dict(type='Usage'))
    """

    default = False


@UNITS.register_module()
class MapQueries(UnitFinder):
    """Map queries, each with all the points of its element.

    Example:
        >>> prune_cfg = dict(units=[dict(type='MapQueries')], criterion=dict(type='Usage'))
    """

    default = False


@UNITS.register_module()
class MotionModes(UnitFinder):
    """Motion queries: the alternative trajectories predicted for every agent.

    Example:
        >>> prune_cfg = dict(units=[dict(type='MotionModes')], criterion=dict(type='Usage'))
    """

    default = False


def query_group(
    name: str,
    kind: str,
    embedding: nn.Embedding,
    flags: str,
    repeated: tuple[str, ...],
    attrs: tuple[Attr, ...] = (),
    extra: tuple[Cut, ...] = (),
) -> UnitGroup:
    """The rows of an embedding, below a head.

    Args:
        name: The embedding's.
        kind: What a unit is.
        embedding: The embedding.
        flags: Name of the head's buffer by which a masked model hides queries.
        repeated: Modules of the head that run once per query.
        attrs: See :class:`UnitGroup`.
        extra: Further cuts.
    """
    head = name.rpartition('.')[0]
    cuts = (Cut(f'{name}.weight', 0), Cut(join(head, flags), 0, side='flag'), *extra)
    patterns = tuple(join(head, pattern) for pattern in repeated)
    size = embedding.num_embeddings
    return UnitGroup(name, kind, size, cuts, head, attrs, least=1, repeated=patterns)


#: Modules of a decoder that run on queries; the values come from the BEV.
DECODER = r'layers\.\d+\.(attentions\.0|attentions\.1\.(?!value_proj)|ffns)'
AGENTS = (r'motion_decoder\.', r'motion_map_decoder\.', r'traj_branches\.', r'traj_cls_branches\.')


@ObjectQueries.layout('VADHead')
def object_queries(name: str, head: nn.Module) -> list[UnitGroup]:
    """Rows of ``query_embedding``: position and content."""
    repeated = (
        rf'transformer\.decoder\.{DECODER}',
        r'transformer\.reference_points',
        r'cls_branches\.',
        r'reg_branches\.',
        *AGENTS,
        r'agent_fus_mlp\.',
        r'ego_agent_pos_mlp',
    )
    label = join(name, 'query_embedding')
    return [query_group(label, 'object_query', head.query_embedding, 'object_flags', repeated)]


@MapQueries.layout('VADHead')
def map_queries(name: str, head: nn.Module) -> list[UnitGroup]:
    """Rows of ``map_instance_embedding``: one per element."""
    repeated = (
        rf'transformer\.map_decoder\.{DECODER}',
        r'transformer\.map_reference_points',
        r'map_cls_branches\.',
        r'map_reg_branches\.',
        r'lane_encoder\.',
        r'ego_map_pos_mlp',
    )
    label, attrs = join(name, 'map_instance_embedding'), (Attr(name, 'map_num_vec'),)
    embedding = head.map_instance_embedding
    return [query_group(label, 'map_query', embedding, 'map_flags', repeated, attrs)]


@MotionModes.layout('VADHead')
def motion_modes(name: str, head: nn.Module) -> list[UnitGroup]:
    """Rows of ``motion_mode_query``, and what the ego reads of each mode."""
    label, attrs = join(name, 'motion_mode_query'), (Attr(name, 'fut_mode'),)
    embedding = head.motion_mode_query
    width = head.agent_fus_mlp[0].in_features // embedding.num_embeddings
    read = Cut(join(name, 'agent_fus_mlp.0.weight'), 1, width, side='out')
    return [query_group(label, 'motion_mode', embedding, 'mode_flags', AGENTS, attrs, (read,))]
