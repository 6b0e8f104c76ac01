"""What ``tools/visualize.py`` does: choose frames, ask the model, draw, write."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, init_default_scope
from rich.progress import track
from torch import nn

from projects.prune_plugin.errors import UserError
from projects.prune_plugin.files import output_directory, whole_file
from projects.prune_plugin.loading import load_model

from ..datasets.nuscenes_dataset import CLASSES, VADNuScenesDataset
from ..datasets.single_frame import load_frame
from ..datasets.vector_map import MAP_CLASSES
from .content import Content, content_of
from .frame import draw_frame, png
from .motion_scores import add_mode_scores, listening
from .video import write_video

SCALE = 'RandomScaleImageMultiViewImage'


@dataclass
class Settings:
    """What to draw.

    Attributes:
        checkpoint: Whose predictions, dense or slim; None draws the truth alone.
        split: ``'test'`` or ``'train'``.
        scene: A scene's number in the split, from 0, or its token.
        frames: First frame of the scene and the one after the last; None stands for the ends.
        video: ``'mp4'``, ``'gif'`` or ``'none'``.
        score: Predicted objects scored lower aren't drawn.
        map_score: The same for predicted map lines.
    """

    checkpoint: str | None = None
    split: str = 'test'
    scene: str = '0'
    frames: tuple[int | None, int | None] = (None, None)
    video: str = 'none'
    score: float = 0.3
    map_score: float = 0.4


def visualize_scene(cfg: Config, out: str, settings: Settings) -> list[Path]:
    """Draw frames of one scene as ``frame_0000.png`` and so on, numbered as in the scene.

    Frames before the first wanted one go through the model too, as it remembers them.

    Returns:
        The files written.

    Raises:
        UserError: bad input; nothing has been written then.
    """
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    dataset = build_dataset(cfg, settings.split)
    number, indices = choose_scene(dataset, settings)
    wanted = choose_frames(len(indices), settings.frames)
    with output_directory(out, '--out') as folder:
        model = build_model(cfg, settings.checkpoint)
        first = 0 if model is not None else wanted.start
        title = f'{settings.split} scene {number}'
        steps = track(range(first, wanted.stop), f'drawing {title}')
        written: list[Path] = []
        try:
            for step in steps:
                item = dataset[indices[step]]
                content = look(model, item, dataset.metainfo, settings)
                if step in wanted:
                    path = folder / f'frame_{step:04d}.png'
                    written.append(path)
                    save(content, f'{title}, frame {step} of {len(indices)}', path)
            if settings.video != 'none':
                write_video(written, folder / f'scene.{settings.video}')
        except BaseException:
            for path in written:
                path.unlink(missing_ok=True)
            raise
    return written


def visualize_frame(cfg: Config, out: str, source: str, settings: Settings) -> list[Path]:
    """Draw one frame from a yaml file (see ``datasets.single_frame``) as ``frame_0000.png``.

    Raises:
        UserError: bad input; nothing has been written then.
    """
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    item = load_frame(source, scale=image_scale(cfg))
    data = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    meta = dict(classes=CLASSES, map_classes=tuple(data.get('map_classes') or MAP_CLASSES))
    with output_directory(out, '--out') as folder:
        model = build_model(cfg, settings.checkpoint)
        path = folder / 'frame_0000.png'
        save(look(model, item, meta, settings), Path(source).name, path)
        if settings.video != 'none':
            write_video([path], folder / f'scene.{settings.video}')
    return [path]


def build_dataset(cfg: Config, split: str) -> VADNuScenesDataset:
    """The data set of a split, in test mode: single frames in order, nothing random."""
    config = dataset_config(cfg, split)
    if split != 'test':
        config = {**config, 'pipeline': dataset_config(cfg, 'test')['pipeline'], 'test_mode': True}
    dataset = DATASETS.build(config)
    if not isinstance(dataset, VADNuScenesDataset):
        raise UserError(
            f'{split}_dataloader.dataset.type={config.get("type")!r} is not VADNuScenesDataset, '
            'the one whose frames can be drawn'
        )
    return dataset


def dataset_config(cfg: Config, split: str) -> dict:
    """The config of a split's data set."""
    config = (cfg.get(f'{split}_dataloader') or {}).get('dataset')
    if not config:
        raise UserError(f'config {cfg.filename} has no {split}_dataloader.dataset')
    return config


def image_scale(cfg: Config) -> float:
    """By what the config's test pipeline scales images."""
    pipeline = ((cfg.get('test_dataloader') or {}).get('dataset') or {}).get('pipeline') or []
    scales = [step['scales'][0] for step in pipeline if step['type'] == SCALE]
    return scales[0] if scales else 1.0


def choose_scene(dataset: VADNuScenesDataset, settings: Settings) -> tuple[int, list[int]]:
    """Number and frames of the scene that ``settings`` names."""
    scenes: dict[str, list[int]] = {}
    for index, token in enumerate(dataset.scene_tokens):
        scenes.setdefault(token, []).append(index)
    tokens, name = list(scenes), settings.scene
    if name not in scenes and name.isdecimal() and int(name) < len(tokens):
        name = tokens[int(name)]
    if name not in scenes:
        raise UserError(
            f'--scene {name}: the {settings.split} split has {len(tokens)} scenes; '
            f'0 to {len(tokens) - 1}, or a scene token, is valid'
        )
    return tokens.index(name), scenes[name]


def choose_frames(count: int, frames: tuple[int | None, int | None]) -> range:
    """The frames of ``START:STOP`` that a scene of ``count`` has; at least one."""
    start, stop, _ = slice(*frames).indices(count)
    if start >= stop:
        asked = ':'.join('' if n is None else str(n) for n in frames)
        raise UserError(f'--frames {asked} chooses nothing: the scene has {count} frames, from 0')
    return range(start, stop)


def build_model(cfg: Config, checkpoint: str | None) -> nn.Module | None:
    """The model to ask, on the GPU if there is one; None without a checkpoint."""
    if checkpoint is None:
        return None
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    return load_model(cfg, checkpoint, device).model


@torch.no_grad()
def look(model: nn.Module | None, item: dict, meta: dict, settings: Settings) -> Content:
    """What there is to draw of an item, predictions included if there is a model."""
    sample = item['data_samples']
    if model is not None:
        with listening(model) as heard:
            sample = model.test_step(pseudo_collate([item]))[0]
        for outs in heard[-1:]:
            add_mode_scores([sample], outs)
    return content_of(sample, meta, settings.score, settings.map_score)


def save(content: Content, title: str, path: Path) -> None:
    """Draw and write one picture."""
    data = png(draw_frame(content, title))
    with whole_file(path, 'wb') as file:
        file.write(data)


def paths_of(folder: Path) -> Iterator[Path]:
    """Pictures in a folder, in order."""
    yield from sorted(folder.glob('frame_*.png'))
