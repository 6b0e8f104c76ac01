"""A VAD that is built and run in a moment, with samples for it, and slow ways to sample features."""

import math
from pathlib import Path

import numpy as np
import torch
from mmdet3d.structures import Det3DDataSample
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

import projects.vad  # noqa: F401

CONFIG = Path(__file__).parents[2] / 'projects' / 'configs' / 'VAD' / 'VAD_tiny_stage_2.py'
DIMS, BEV_H, BEV_W, LEVELS = 32, 8, 6, 2
QUERIES, LINES, CAMERAS, HEIGHT, WIDTH = 12, 5, 3, 64, 96
HEAD = 'pts_bbox_head'


def config(layers: int = 2, **options) -> Config:
    """The tiny model's config with small sizes; ``options`` are merged last, ``__`` for a dot."""
    attention = dict(num_heads=4, embed_dims=DIMS)
    encoder, look = f'{HEAD}.transformer.encoder', 'layer.cross_attn'
    sizes = {
        'img_backbone.depth': 18,
        'img_backbone.out_indices': (2, 3),
        'img_backbone.init_cfg': None,
        'img_neck.in_channels': [256, 512],
        'img_neck.out_channels': DIMS,
        'img_neck.num_outs': LEVELS,
        'input_shape': (CAMERAS, HEIGHT, WIDTH),
        f'{HEAD}.bev_h': BEV_H,
        f'{HEAD}.bev_w': BEV_W,
        f'{HEAD}.embed_dims': DIMS,
        f'{HEAD}.num_query': QUERIES,
        f'{HEAD}.map_num_vec': LINES,
        f'{HEAD}.positional_encoding': dict(
            num_feats=DIMS // 2, row_num_embed=BEV_H, col_num_embed=BEV_W
        ),
        f'{HEAD}.transformer': dict(embed_dims=DIMS, num_cams=CAMERAS),
        f'{encoder}': dict(num_layers=layers, layer=dict(embed_dims=DIMS)),
        f'{encoder}.layer.feedforward_channels': 48,
        f'{encoder}.layer.self_attn': attention,
        f'{encoder}.{look}.embed_dims': DIMS,
        f'{encoder}.{look}.deformable_attention': dict(attention, num_levels=LEVELS),
    }
    for name in ('decoder', 'map_decoder'):
        decoder = dict(num_layers=layers, layer=dict(attention, feedforward_channels=48))
        decoder['layer']['cross_attn'] = attention
        sizes[f'{HEAD}.transformer.{name}'] = decoder
    for name in ('motion', 'motion_map', 'ego_agent', 'ego_map'):
        sizes[f'{HEAD}.{name}_decoder'] = dict(attention, feedforward_channels=48)
    sizes |= {name.replace('__', '.'): value for name, value in options.items()}
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict({f'model.{name}': value for name, value in sizes.items()})
    return cfg


def build(seed: int = 0, **options) -> nn.Module:
    """The model with random weights, in evaluation mode."""
    init_default_scope('mmdet3d')
    torch.manual_seed(seed)
    return wake(MODELS.build(config(**options).model)).eval()


def wake(module: nn.Module) -> nn.Module:
    """Give parameters that start at a constant some noise, so that tests see what they do."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.requires_grad and 'backbone' not in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return module


def projection(yaw: float, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """``(4, 4)`` of a camera at the LiDAR that looks ``yaw`` radians to the left of +y."""
    right = np.array([math.cos(yaw), math.sin(yaw), 0])
    ahead = np.array([-math.sin(yaw), math.cos(yaw), 0])
    focal = 0.6 * width
    matrix = np.eye(4)
    matrix[0, :3] = focal * right + width / 2 * ahead
    matrix[1, :3] = focal * np.array([0, 0, -1.0]) + height / 2 * ahead
    matrix[2, :3] = ahead
    matrix[:3, 3] = 0.3, -0.2, 0.1
    return matrix


def rig(count: int = CAMERAS, first: float = 0.0) -> np.ndarray:
    """Cameras ``(count, 4, 4)``, one and a half radians apart."""
    return np.stack([projection(first + 1.5 * i) for i in range(count)])


def frame(number: int = 0, scene: str = 'a', **changes) -> dict:
    """A frame with an absolute pose, half a second after the one before."""
    can_bus = np.random.default_rng(number + 1).normal(size=18)
    yaw = 0.4 + 0.05 * number
    can_bus[:3] = 100.0 + 2.5 * number, -40.0 + 1.5 * number, 0.0
    can_bus[-2:] = yaw, math.degrees(yaw)
    entries = dict(
        can_bus=can_bus,
        lidar2img=rig(first=0.01 * number),
        img_shape=(HEIGHT, WIDTH),
        scene_token=scene,
        sample_idx=f'{scene}{number}',
        timestamp=1e9 + 0.5 * number,
    )
    return {**entries, **changes}


def relative(frames: list[dict]) -> list[dict]:
    """Frames of a training queue: displacement and turn since the frame before."""
    queue, before = [], None
    for item in frames:
        can_bus = item['can_bus'].copy()
        for place in (slice(0, 3), -1):
            can_bus[place] -= (before or item)['can_bus'][place]
        queue.append(dict(item, can_bus=can_bus))
        before = item
    return queue


def images(count: int = 1, length: int = 1, seed: int = 0) -> torch.Tensor:
    """``(count, length, cameras, 3, H, W)``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, length, CAMERAS, 3, HEIGHT, WIDTH, generator=generator)


def sample(frames: list[dict], truth: bool = False, **counts) -> Det3DDataSample:
    """A data sample, with truths (``agents`` and ``elements`` of them) if asked for."""
    data = Det3DDataSample()
    if truth:
        import losses_setup as setup  # beside the tests of models

        data = setup.formula_sample(**counts)
        data.gt_ego.his_trajs = setup.wave((2, 2), 7)
    data.set_metainfo(dict(frames=frames))
    return data


def bilinear(image: torch.Tensor, x: float, y: float) -> torch.Tensor:
    """The value of ``(h, w, C)`` at x, y in [0, 1], one corner at a time; zero outside."""
    height, width = image.shape[:2]
    column, row = x * width - 0.5, y * height - 0.5
    left, top = math.floor(column), math.floor(row)
    total = image.new_zeros(image.shape[2:])
    for i in (top, top + 1):
        for j in (left, left + 1):
            if 0 <= i < height and 0 <= j < width:
                total = total + image[i, j] * (1 - abs(row - i)) * (1 - abs(column - j))
    return total


def maps(values: torch.Tensor, shapes) -> list[torch.Tensor]:
    """Levels ``(h, w, C)`` of flattened ``(n, C)``."""
    parts = values.split([h * w for h, w in shapes])
    return [part.view(h, w, -1) for part, (h, w) in zip(parts, shapes, strict=True)]
