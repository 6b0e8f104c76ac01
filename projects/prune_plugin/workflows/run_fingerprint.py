"""What a run's results depend on: one fingerprint for resuming and for caches.

Two runs with equal fingerprints make the same. What is kept beside results to be used again:

- evaluations in ``search.json`` and ``sensitivity.json``: :func:`evaluation_fingerprint`;
- finished layers of a killed run: :func:`pruning_fingerprint`, and its rounds: :func:`rounds_fingerprint`.
  They have no version: a run that one version began may be ended by the next.

What older versions wrote for the same run is recognised, too.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mmengine import dist
from mmengine.config import Config

from ..common.json_csv import plain
from ..common.version import __version__
from ..methods.schedules import Round

#: Keys of a config that change no model, no evaluation and no choice of what is pruned.
WITHOUT_EFFECT = (
    'auto_scale_lr', 'custom_hooks', 'default_hooks', 'experiment_name', 'launcher', 'load_from',
    'log_level', 'log_processor', 'optim_wrapper', 'param_scheduler', 'prune_cfg', 'resume',
    'resume_path', 'train_cfg', 'vis_backends', 'visualizer', 'work_dir',
)  # fmt: skip
#: Keys of ``prune_cfg`` that don't change what is pruned; its budget counts by its ratio.
NOT_PRUNING = ('budget', 'execution', 'name', 'profile', 'recovery')


#: Settings of ``prune_cfg.calibration`` that version 0.1.0 didn't have, at their defaults.
CALIBRATION_ADDED = {'precision': 'float32'}


@dataclass(frozen=True)
class RunFingerprint:
    """What a run's results depend on.

    Attributes:
        parts: By name, as plain data: strings, numbers, lists and dicts, as they come back from JSON.
            Files written now hold these.
        older: What older versions wrote for the same run.
    """

    parts: Mapping[str, Any]
    older: tuple[Mapping[str, Any], ...] = ()

    def matches(self, written: Any) -> bool:
        """Whether ``written``, from a JSON file of any version, stands for this run."""
        return written == self.parts or any(written == plain(form) for form in self.older)

    def differing(self, written: Mapping[str, Any]) -> list[str]:
        """Names of the parts that ``written`` has otherwise; none if it stands for this run."""
        found = []
        for ours in (self.parts, *map(plain, self.older)):
            names = dict.fromkeys((*ours, *written))
            found.append([name for name in names if ours.get(name) != written.get(name)])
        return min(found, key=len)


def digest_of(data: Any) -> str:
    """SHA-256 of plain data."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()


def weights_of(checkpoint: str | os.PathLike | None) -> dict[str, Any] | None:
    """What identifies a checkpoint, wherever it lies; None for none.

    A file of ``torch.save`` holds checksums of its tensors, which are read without the tensors. Another
    file is identified by its time.
    """
    if checkpoint is None:
        return None
    file = os.stat(checkpoint)
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            sums = [(e.filename, e.file_size, e.CRC) for e in archive.infolist()]
    except zipfile.BadZipFile:
        return {'size': file.st_size, 'mtime': file.st_mtime_ns}
    return {'size': file.st_size, 'content': digest_of(sums)}


def pruning_settings(prune_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a ``prune_cfg`` that decides which units or weights are removed, without the ratio."""
    return {key: value for key, value in prune_cfg.items() if key not in NOT_PRUNING}


def config_of(cfg: Config) -> dict[str, Any]:
    """The part of a config that a model and its evaluation depend on."""
    return {key: value for key, value in cfg.to_dict().items() if key not in WITHOUT_EFFECT}


def evaluation_fingerprint(
    cfg: Config, checkpoint: str | None, samples: int | None, older: Sequence[Any] = (), **more: Any
) -> RunFingerprint:
    """What an evaluation depends on beside what is pruned: model, weights, data and metrics.

    Args:
        cfg: The config.
        checkpoint: The model's weights.
        samples: How many samples to evaluate on; None: all.
        older: What an older version counted too, see :func:`old_evaluation`.
        more: Plain data that counts too.
    """
    parts = {
        'config': digest_of(config_of(cfg)),
        'checkpoint': weights_of(checkpoint),
        'samples': samples,
        'ranks': dist.get_world_size(),
        'version': __version__,
        **more,
    }
    return RunFingerprint(plain(parts), (old_evaluation(cfg, checkpoint, samples, older),))


def pruning_fingerprint(
    cfg: Config,
    checkpoint: str | None,
    ratio: float | None,
    data: Mapping[str, Any] | None = None,
    **more: Any,
) -> RunFingerprint:
    """What a pruned model depends on: model, weights, calibration data and how it is pruned.

    Args:
        cfg: The config; of its ``prune_cfg`` only what decides which weights are removed counts.
        checkpoint: The weights to prune.
        ratio: The fraction removed.
        data: The dataloader of the calibration samples.
        more: Plain data that counts too.
    """
    parts = {
        'prune_cfg': pruning_settings(cfg.prune_cfg.to_dict()),
        'ratio': ratio,
        'checkpoint': weights_of(checkpoint),
        'model': cfg.model.to_dict(),
        'data': dict(data) if data else None,
        'ranks': dist.get_world_size(),
        **more,
    }
    return RunFingerprint(plain(parts), (old_pruning(cfg, checkpoint, ratio, data, more),))


def round_settings(round_: Round) -> dict[str, Any]:
    """What a round depends on, as in files of any version: settings added later count if they are set."""
    settings = asdict(round_)
    calibration = settings['calibration']
    settings['calibration'] = {
        key: value
        for key, value in calibration.items()
        if (key, value) not in CALIBRATION_ADDED.items()
    }
    return settings


def rounds_fingerprint(
    cfg: Config, checkpoint: str | None, rounds: Sequence[Mapping[str, Any]], training: bool
) -> RunFingerprint:
    """What must be the same for a run in rounds to be resumed.

    Args:
        cfg: The config.
        checkpoint: The weights that the first round prunes.
        rounds: Ratio, calibration and recovery of each round.
        training: Whether there is training between the rounds.
    """
    parts = {
        'prune_cfg': cfg.prune_cfg.to_dict(),
        'checkpoint': weights_of(checkpoint),
        'model': cfg.model.to_dict(),
        'rounds': list(rounds),
        'training': training,
    }
    return RunFingerprint(plain(parts), ({**parts, 'checkpoint': checkpoint},))


# What version 0.1.0 wrote for evaluations and finished layers


def old_evaluation(
    cfg: Config, checkpoint: str | None, samples: int | None, more: Sequence[Any]
) -> dict[str, Any]:
    """The ``settings`` of ``search.json`` and ``sensitivity.json``: the weights go by name and time."""
    model = {k: v for k, v in cfg.to_dict().items() if k not in ('prune_cfg', 'work_dir')}
    weights = None
    if checkpoint:
        file = os.stat(checkpoint)
        weights = [os.path.abspath(checkpoint), file.st_size, file.st_mtime_ns]
    config = digest_of([model, *more])
    return {'config': config, 'checkpoint': weights, 'samples': samples, 'version': __version__}


def old_pruning(
    cfg: Config,
    checkpoint: str | None,
    ratio: float | None,
    data: Mapping[str, Any] | None,
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """The key of finished layers: the weights go by name, and all of ``prune_cfg`` counts."""
    return {
        'prune_cfg': cfg.prune_cfg.to_dict(),
        'ratio': ratio,
        'checkpoint': checkpoint,
        'model': cfg.model.to_dict(),
        'data': dict(data) if data else None,
        'ranks': dist.get_world_size(),
        **more,
    }
