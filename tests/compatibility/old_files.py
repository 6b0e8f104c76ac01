"""What the tests of old files and the script that made these share: formats as they were, formulas."""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FIXTURES = Path(__file__).parent / 'fixtures'
#: Runs in the middle: config, the command that goes on, and the checkpoints that it ends with.
RUNS = {
    'slim': dict(
        tool='train',
        go_on=('slim/fine_tuned/vit_slim.py', '--work-dir', 'slim/fine_tuned', '--resume'),
        ends=('slim/fine_tuned/latest.pth',),
    ),
    'masked': dict(
        tool='train',
        go_on=('digits.py', '--load-from', 'masked/vit_pruned.pth', '--work-dir',
               'masked/trained', '--resume'),
        ends=('masked/trained/epoch_2.pth',),
    ),
    'steps': dict(
        tool='analysis_struct',
        go_on=('vit_steps.py', 'dense.pth', '--output-dir', 'steps', '--fine-tune', '--resume'),
        ends=('steps/round_02/vit_pruned.pth', 'steps/latest.pth'),
    ),
    'geometric': dict(
        tool='train',
        go_on=('vit_geometric.py', '--work-dir', 'geometric', '--resume'),
        ends=('geometric/round_02/latest.pth', 'geometric/round_03/vit_pruned.pth',
              'geometric/latest.pth'),
    ),
    'sparsegpt': dict(
        tool='analysis_struct',
        go_on=('vit_sparsegpt.py', 'dense.pth', '--output-dir', 'sparsegpt', '--resume'),
        ends=('sparsegpt/vit_pruned.pth',),
    ),
    'rsst': dict(
        tool='train',
        go_on=('ticket_rsst.py', '--work-dir', 'rsst', '--resume'),
        ends=('rsst/state_01.pth', 'rsst/state_02.pth', 'rsst/epoch_6.pth'),
    ),
    'imp': dict(
        tool='train',
        go_on=('ticket_imp.py', '--work-dir', 'imp', '--resume'),
        ends=('imp/state_01.pth', 'imp/state_02.pth', 'imp/epoch_6.pth'),
    ),
}  # fmt: skip


def load(path) -> dict:
    """A file of ``torch.save``."""
    return torch.load(path, weights_only=False, map_location='cpu')


def unpacked(masks: dict) -> dict[str, Tensor]:
    """Masks of a checkpoint, by their format: ``{name: {'shape': [..], 'bits': uint8}}``."""
    found = {}
    for name, entry in (masks or {}).items():
        bits = np.unpackbits(entry['bits'].numpy(), count=math.prod(entry['shape']))
        found[name] = torch.from_numpy(bits).bool().view(entry['shape'])
    return found


def kept_units(checkpoint: dict) -> dict[str, list[int]] | None:
    """The units that a slim checkpoint keeps, by group."""
    state = checkpoint.get('meta', {}).get('prune_state')
    return state and {name: group['kept'] for name, group in state['groups'].items()}


def digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names and bytes, in the order of the names."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        sha.update(name.encode())
        sha.update(tensors[name].contiguous().numpy().tobytes())
    return sha.hexdigest()


def end_of(folder: Path, name: str) -> dict:
    """What counts at the end of a run: weights, masks, units, ticket, and the rows of its tables."""
    files = {}
    for path in RUNS[name]['ends']:
        content = load(folder / path)
        masks = unpacked(content.get('masks'))
        files[path] = dict(
            state_dict=content['state_dict'], digest=digest(content['state_dict']), masks=masks,
            masks_digest=digest(masks), kept=kept_units(content),
            ticket=plain_ticket(content), epoch=content['meta'].get('epoch'),
        )  # fmt: skip
    rows = {}
    for path in (folder / name / 'history.json', folder / name / 'states.json'):
        if path.is_file():
            found = json.loads(path.read_text())
            rows[path.name] = found['rows'] if isinstance(found, dict) else found
    return dict(files=files, rows=rows)


def plain_ticket(content: dict) -> dict | None:
    """What a checkpoint of an IterativePruneLoop says of units: state, ratios, which are kept and target.

    Version 0.1.0 wrote them under ``ticket``, as alive and chosen.
    """
    ticket, record = content.get('ticket'), content.get('iterative_pruning')
    if record is not None:
        selection = record['selection']
        units = {'alive': selection['kept']}
        if 'target' in selection:
            units['chosen'] = selection['target']
        rows, ratios = record['record']['rows'], record['record']['key']['ratios']
        ticket = dict(state=rows[-1]['round'], ratios=ratios, units=units)
    if ticket is None:
        return None
    units = {
        which: entries if isinstance(next(iter(entries.values())), list) else unpacked(entries)
        for which, entries in ticket['units'].items()
    }
    return dict(state=ticket['state'], ratios=ticket['ratios'], units=units)


def wave(*shape: int, step: float = 0.37) -> Tensor:
    """Numbers of a formula: the sine of equally spaced angles."""
    return torch.arange(math.prod(shape), dtype=torch.float64).mul(step).sin().float().view(shape)


def tokens(count: int = 3, length: int = 12, vocabulary: int = 96) -> Tensor:
    """Token ids of a formula."""
    return torch.arange(count * length).mul(29).add(7).remainder(vocabulary).view(count, length)


def frame(number: int, height: int, width: int, cameras: int) -> dict:
    """How cameras see the frame of that number, from a car that drives on."""
    lidar2img = []
    for camera in range(cameras):
        yaw = 1.5 * camera + 0.01 * number
        right = np.array([math.cos(yaw), math.sin(yaw), 0])
        ahead = np.array([-math.sin(yaw), math.cos(yaw), 0])
        matrix = np.eye(4)
        matrix[0, :3] = 0.6 * width * right + width / 2 * ahead
        matrix[1, :3] = 0.6 * width * np.array([0, 0, -1.0]) + height / 2 * ahead
        matrix[2, :3] = ahead
        matrix[:3, 3] = 0.3, -0.2, 0.1
        lidar2img.append(matrix)
    can_bus = np.sin(np.arange(18) * (number + 1.0))
    yaw = 0.4 + 0.05 * number
    can_bus[:3] = 100.0 + 2.5 * number, -40.0 + 1.5 * number, 0.0
    can_bus[-2:] = yaw, math.degrees(yaw)
    return dict(
        can_bus=can_bus, lidar2img=np.stack(lidar2img), img_shape=(height, width),
        scene_token='scene', sample_idx=str(number), timestamp=1e9 + 0.5 * number,
    )  # fmt: skip


@torch.no_grad()
def drive(model) -> dict[str, Tensor]:
    """What a VAD says of two frames, of which the second sees the first's BEV."""
    from mmdet3d.structures import Det3DDataSample
    from mmengine.structures import BaseDataElement

    cameras, height, width = model.input_shape
    outs = {}
    for number in range(2):
        sample = Det3DDataSample(metainfo=dict(frames=[frame(number, height, width, cameras)]))
        sample.gt_ego = BaseDataElement(his_trajs=wave(2, 2, step=0.7 + number))
        images = wave(1, 1, cameras, 3, height, width, step=0.37 + 0.11 * number)
        found = model(dict(img=images), [sample], mode='tensor')
        outs.update({f'{number}/{name}': tensor for name, tensor in found.items()})
    return outs
