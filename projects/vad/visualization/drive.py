"""Frames to draw, from a config's data: truth alone, or with what a model finds."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DATASETS, init_default_scope
from torch import nn

from projects.prune_plugin.common.errors import UserError

from ..datasets.nuscenes_dataset import CLASSES, VADNuScenesDataset
from ..datasets.single_frame import load_frame
from ..datasets.vector_map import MAP_CLASSES
from .view import View, view_of

#: Hides objects that a single frame's pictures can show.
RANGE_FILTER = 'CustomObjectRangeFilter'


def build_dataset(cfg: Config, split: str) -> VADNuScenesDataset:
    """The config's test set; for 'train', the training set's frames one by one as in testing.

    Raises:
        UserError: The config has no such data, or it isn't VAD's; and see the data set.
    """
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    settings = deepcopy(dataset_settings(cfg, 'test_dataloader'))
    if split == 'train':
        train = dataset_settings(cfg, 'train_dataloader')
        settings.update({k: train[k] for k in ('ann_file', 'data_root') if k in train})
    dataset = DATASETS.build(settings)
    if not isinstance(dataset, VADNuScenesDataset):
        raise UserError(
            f'{cfg.filename}: test_dataloader.dataset is a {type(dataset).__name__}; '
            'VADNuScenesDataset would be valid'
        )
    return dataset


def dataset_settings(cfg: Config, loader: str) -> dict[str, Any]:
    """The settings of a loader's data set."""
    settings = (cfg.get(loader) or {}).get('dataset')
    if not settings:
        raise UserError(f'{cfg.filename} has no {loader}.dataset')
    return settings


def scene_frames(dataset: VADNuScenesDataset, scene: str) -> list[int]:
    """Positions of a scene's frames, in order of time.

    Args:
        dataset: The data set.
        scene: Number of the scene, from 0, or the beginning of its token. A whole number below the
            number of scenes is a number.

    Raises:
        UserError: No scene, or several, are called so.
    """
    scenes: dict[str, list[int]] = {}
    for index, token in enumerate(dataset.scene_tokens):
        scenes.setdefault(token, []).append(index)
    tokens = list(scenes)
    if scene.isdecimal() and int(scene) < len(tokens):
        return scenes[tokens[int(scene)]]
    matches = [token for token in tokens if scene and token.startswith(scene)]
    if len(matches) != 1:
        raise UserError(
            f'--scene {scene} fits {len(matches)} scenes; 0 to {len(tokens) - 1}, or the beginning '
            f'of a token such as {tokens[0]}, would be valid'
        )
    return scenes[matches[0]]


def chosen(count: int, frames: slice) -> range:
    """Which of a scene's ``count`` frames to draw.

    Raises:
        UserError: None of them.
    """
    numbers = range(*frames.indices(count))
    if not numbers:
        asked = ':'.join('' if x is None else str(x) for x in (frames.start, frames.stop))
        raise UserError(f'--frames {asked} holds none of the {count} frames of the scene')
    return numbers


def drive_views(
    dataset: VADNuScenesDataset,
    indices: Sequence[int],
    numbers: range,
    model: nn.Module | None = None,
    score: float = 0.3,
    map_score: float = 0.4,
) -> Iterator[View | None]:
    """Views of a scene's frames in order; None for those that are only looked at.

    A model remembers what it has seen, so that it is shown the scene from its first frame on, and
    a frame looks the same whichever are drawn.

    Args:
        dataset: The data set.
        indices: Positions of the scene's frames.
        numbers: Which of them to draw.
        model: Predicts, in evaluation mode; None draws the truth alone.
        score: Least score of predicted objects.
        map_score: Least score of predicted map lines.
    """
    classes, map_classes = dataset.metainfo['classes'], dataset.metainfo['map_classes']
    if model is not None and hasattr(model, 'reset'):
        model.reset()
    for number, index in enumerate(indices[: numbers.stop]):
        drawn = number in numbers
        if model is None and not drawn:
            yield None
            continue
        item = dataset[index]
        sample = item['data_samples'] if model is None else predict(model, item)
        title = f'scene {sample.scene_token}   frame {number}'
        yield view(sample, classes, map_classes, score, map_score, title) if drawn else None


def single_view(
    cfg: Config,
    path: str | Path,
    model: nn.Module | None = None,
    score: float = 0.3,
    map_score: float = 0.4,
) -> View:
    """The view of a frame from a YAML file (see ``load_frame``), with the config's transforms.

    Objects out of the config's range are kept, as cameras see them.
    """
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    settings = dataset_settings(cfg, 'test_dataloader')
    classes = tuple(settings.get('classes', CLASSES))
    map_classes = tuple(settings.get('map_classes', MAP_CLASSES))
    frame = load_frame(path, classes)
    steps = [step for step in settings['pipeline'] if step['type'] != RANGE_FILTER]
    item = Compose(steps)(frame)
    sample = item['data_samples'] if model is None else predict(model, item)
    return view(sample, classes, map_classes, score, map_score, 'single frame')


def predict(model: nn.Module, item: dict[str, Any]) -> Any:
    """The item's sample with what the model finds."""
    with torch.no_grad():
        return model.test_step(pseudo_collate([item]))[0]


def view(
    sample: Any,
    classes: Sequence[str],
    map_classes: Sequence[str],
    score: float,
    map_score: float,
    where: str,
) -> View:
    """A sample's view with its title."""
    shown = view_of(sample, classes, map_classes, score, map_score)
    parts = [where, f'sample {sample.sample_idx}']
    if shown.true_path is not None or shown.planned_path is not None:
        parts.append(f'command: {shown.command}')
    shown.title = '   '.join(parts)
    return shown
