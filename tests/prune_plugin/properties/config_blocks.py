"""Valid blocks of ``prune_cfg``, and ways to spoil them."""

from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from mmengine.config import Config

from projects.prune_plugin.calibration.settings import CalibrationSettings
from projects.prune_plugin.common.registry import (
    ALLOCATORS,
    BUDGETS,
    COMPENSATIONS,
    CRITERIA,
    PENALTIES,
    PRUNERS,
    SCHEDULES,
    SPARSIFIERS,
    UNITS,
)
from projects.prune_plugin.evaluation.settings import ProfileSettings
from projects.prune_plugin.training.settings import RecoverySettings

REGISTRIES = (
    ALLOCATORS, BUDGETS, COMPENSATIONS, CRITERIA, PENALTIES, PRUNERS, SCHEDULES, SPARSIFIERS, UNITS,
)  # fmt: skip
FOLDER = Path(__file__).parents[3] / 'projects' / 'configs' / '_base_' / 'prune'
#: Blocks without a type.
SETTINGS = dict(calibration=CalibrationSettings, recovery=RecoverySettings, profile=ProfileSettings)
#: Units of the model of ``mixed_model.py``; shipped blocks are left with those.
HAS = ('AttentionHeads', 'FFNNeurons', 'BottleneckChannels', 'BranchNeurons')
ENTRY = dict(type='Magnitude')

#: Blocks that the model of ``mixed_model.py`` can be pruned with, every type among them.
OWN = [
    dict(type='StructuredPruner', budget=dict(type='params', ratio=0.2)),
    dict(
        type='StructuredPruner',
        units=[dict(type='FFNNeurons'), dict(type='AttentionHeads')],
        criterion=dict(type='L2', parts='in', normalize='mean'),
        allocator=dict(type='Uniform', exact=True),
        budget=dict(type='units', ratio=0.4),
        include=['.*'], exclude=[r'encoder\.layers\.1\.self_attn'], min_keep=1, round_to=2,
        calibration=dict(num_samples=4, seed=1, batch_size=2, recalibrate_bn=0),
        recovery=dict(mode='retrain', epochs=2, max_steps=3, lr_factor=0.1, warmup_iters=5,
                      lr_schedule='constant'),
        profile=dict(batch_size=2, num_threads=1, seconds=0.1, input_shape=(3, 8, 8)),
        name='vit',
    ),
    dict(
        units=[dict(type='CoupledChannels', input_shape=(3, 8, 8))],
        criterion=dict(type='Random', seed=3),
        allocator=dict(type='LayerWise', factors=dict(coupled=0.5)),
        budget=dict(type='flops', ratio=0.1),
        profile=dict(input_shape=(3, 8, 8)),
    ),
    dict(
        units=[dict(type='BottleneckChannels'), dict(type='BranchNeurons')],
        criterion=dict(
            type='ByKind', default=dict(type='L1'), kinds=dict(branch=dict(type='Random'))
        ),
        allocator=dict(type='Refill', fillback_rate=0.1),
        budget=dict(density=0.6),
        schedule=dict(type='Geometric', share=0.2, lr_decay=0.9, rewind='initial'),
        penalty=dict(type='RSST', strength=1.0, schedule='exp', exponents=2.0),
        fillback_rate=0.1, layer_start=0, layer_end=2,
    ),
    dict(
        criterion=dict(type='Taylor', order=2),
        allocator=dict(type='Global'),
        compensation=dict(type='LeastSquares', damping=0.01),
        min_keep=0, remove_empty_layers=False, weight_level=False,
        calibration=dict(gradient_memory=1.0, loss_weights=dict(loss_class=2.0)),
        recovery=dict(
            lora=dict(r=2, alpha=4, dropout=0.1, targets=['.*'], lr=1e-4),
            distill=dict(targets=[dict(module='', loss='kl', weight=1.0, temperature=2.0)]),
            sharding=dict(blocks=['.*'], mixed_precision='bf16'),
        ),
    ),
    dict(type='WeightPruner', sparsifier=ENTRY, budget=dict(ratio=0.5)),
    dict(
        type='WeightPruner', sparsifier=dict(type='Magnitude', scope='global'),
        layer_ratios={r'branch\.0': 0.3}, exclude=['stem'],
        schedule=dict(type='Steps', ratios=[0.2, 0.5], calibration=[{}, dict(num_samples=3)]),
    ),
    dict(
        type='WeightPruner', sparsifier=dict(type='SparseGPT', pattern='2:4', block_size=16),
        include=['branch', r'encoder.*linear']
    ),
    dict(type='WeightPruner', sparsifier=ENTRY, schedule=dict(type='Cubic', rounds=3)),
]  # fmt: skip


def shipped() -> list[dict]:
    """The blocks that the configs of the project are made of."""
    blocks = [Config.fromfile(path).prune_cfg.to_dict() for path in sorted(FOLDER.glob('*.py'))]
    for block in blocks:
        if 'units' in block:
            units = [unit for unit in block['units'] if unit['type'] in HAS]
            block['units'] = units or [dict(type=name) for name in HAS]
        if block.get('budget', {}).get('type') == 'latency':
            block['budget']['seconds'] = 0.01
            block['profile'] = dict(input_shape=[3, 4, 4])
    return blocks


TYPES = sorted(name for registry in REGISTRIES for name in registry.module_dict)
#: What a key may be set to: out of range, of another type, of another place, or right by chance.
NUMBERS = st.one_of(
    st.sampled_from((0, 1, 2, 3, -1, 7, 50, 2**31, 2**63, 10**30, -(10**30), 10**400)),
    st.sampled_from((0.0, -0.0, 0.3, 1.0, 1.5, -0.1, 1e-12, 1e-300, 1 - 1e-12, 1e300)),
    st.sampled_from((float('nan'), float('inf'), float('-inf'))),
    st.floats(0, 1),
    st.integers(-3, 40),
)
WORDS = st.one_of(
    st.sampled_from(('', '.*', '(', '[', '0.3', '1', 'None', '2:4', '4:2', '1:99', 'a\nb', '..')),
    st.sampled_from(
        ('initial', 'mean', 'l1', 'exp', 'kl', 'in', 'global', 'retrain', '.*1', 'x^2')
    ),
    st.sampled_from(TYPES),
    st.text(max_size=5),
)
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, WORDS, st.binary(max_size=3))
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(WORDS, st.integers(0, 3), st.none()), inner, max_size=3),
        st.sampled_from(TYPES).map(lambda name: dict(type=name)),
    ),
    max_leaves=4,
)
#: What is drawn instead of a value of some type, most of the time; the first may well be valid.
ALIKE = {
    int: st.one_of(st.integers(1, 6), NUMBERS),
    float: st.one_of(st.floats(0.05, 0.5), NUMBERS),
    str: WORDS,
    bool: st.one_of(st.booleans(), NUMBERS),
    dict: st.sampled_from(TYPES).map(lambda name: dict(type=name)),
    type(None): st.one_of(st.none(), st.integers(1, 6), LEAVES),
}


def places(block: Any, path: tuple = ()) -> list[tuple]:
    """Paths of everything in a block, and of every key that its types take and that isn't there."""
    found = [path] if path else []
    items = dict(enumerate(block)) if isinstance(block, list) else {}
    if isinstance(block, dict):
        items = {**known_keys(block, path), **block}
    for key, value in items.items():
        given = isinstance(block, list) or key in block
        found += places(value, (*path, key)) if given else [(*path, key)]
    return found


def known_keys(block: dict, path: tuple) -> dict[str, Any]:
    """Keys that a block takes by its type or its place, with their defaults."""
    if path and path[-1] in SETTINGS:
        return {field.name: field.default for field in fields(SETTINGS[path[-1]])}
    name = block.get('type', None if path else 'StructuredPruner')
    for registry in REGISTRIES:
        if isinstance(name, str) and name in registry.module_dict:
            given = signature(registry.module_dict[name]).parameters
            return {key: parameter.default for key, parameter in given.items()}
    return {}


def inner(block: Any, path: tuple) -> Any:
    for key in path:
        block = block[key]
    return block


@st.composite
def spoilt(draw: st.DrawFn, blocks: list[dict]) -> tuple[dict, list[tuple]]:
    """A valid block with one to three changes, and the paths of those."""
    block = draw(st.sampled_from(blocks))
    changed = []
    for _ in range(draw(st.sampled_from((1, 1, 1, 2, 3)))):
        block = listed(block)
        *where, key = draw(st.sampled_from(places(block)))
        holder = inner(block, where)
        if isinstance(holder, dict):
            key = draw(st.sampled_from((*[key] * 9, f'{key}_')))
        known = {**known_keys(holder, where), **holder} if isinstance(holder, dict) else {}
        old = known.get(key) if isinstance(holder, dict) else holder[key]
        alike = ALIKE.get(type(old), LEAVES)
        holder[key] = draw(st.one_of(alike, alike, LEAVES, VALUES))
        changed.append((*where, key))
    return block, changed


def listed(block: Any) -> Any:
    """A copy of the block with lists for tuples, so that it can be changed."""
    if isinstance(block, dict):
        return {key: listed(value) for key, value in block.items()}
    return list(map(listed, block)) if isinstance(block, list | tuple) else block
