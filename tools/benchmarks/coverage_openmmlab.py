"""The first config of each folder of an OpenMMLab package that builds, for coverage_sweep.py."""

import importlib.util
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

#: Parts of names of small models, which are tried first.
SMALL = ('r50', 'tiny', '_s_', 'r18', '-s_', 'b0', 'mobilenet')
#: How many configs of a folder are tried.
TRIES = 3


def config_root(package: str) -> Path:
    """Where an installed package keeps its configs.

    Raises:
        SystemExit: it isn't installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f'{package} is not installed')
    return Path(spec.origin).parent / '.mim' / 'configs'


def folder_names(package: str) -> Iterator[str]:
    """Folders of configs."""
    folders = (path for path in config_root(package).iterdir() if path.is_dir())
    yield from sorted(path.name for path in folders if not path.name.startswith('_'))


def without_downloads(cfg: Any) -> None:
    """Take weights to download out of a model's config."""
    if isinstance(cfg, dict):
        if 'pretrained' in cfg:
            cfg['pretrained'] = None
        init = cfg.get('init_cfg')
        if isinstance(init, dict) and init.get('type') == 'Pretrained':
            cfg['init_cfg'] = None
        cfg = list(cfg.values())
    for value in cfg if isinstance(cfg, list | tuple) else ():
        without_downloads(value)


def folder_model(package: str, name: str) -> tuple[Any, Any]:
    """A folder's model and the call that is compared; None if it needs operators for GPUs.

    Raises:
        ValueError: no config of the folder builds.
    """
    from mmengine.config import Config
    from mmengine.logging import MMLogger
    from mmengine.registry import MODELS, init_default_scope

    from projects.prune_plugin.methods.pruners.image_models import image_calls
    from projects.prune_plugin.methods.pruners.point_clouds import point_cloud_calls
    from projects.prune_plugin.methods.pruners.unit_discovery import failure
    from projects.prune_plugin.structure.discovery.captures import of_features

    importlib.import_module(package)
    MMLogger.get_instance('mmengine', log_level='ERROR')
    files = [p for p in (config_root(package) / name).rglob('*.py') if not p.name.startswith('_')]
    files.sort(key=lambda p: (not any(part in p.name for part in SMALL), len(str(p)), str(p)))
    why = 'no config with a model'
    for file in files[:TRIES]:
        try:
            cfg = Config.fromfile(file)
            if 'model' not in cfg:
                continue
            init_default_scope(cfg.get('default_scope', package))
            without_downloads(cfg.model)
            model = MODELS.build(cfg.model).eval()
        except Exception as error:  # whatever the config or the model raises
            why = f'{type(error).__name__}: {str(error)[:100]}'
            continue
        calls = chain(point_cloud_calls(model), image_calls(model))
        call = next((call for call in calls if not failure(model, call)), None)
        # Heads pick the best of many boxes, where rounding decides between near ones.
        return model, call and of_features(model, call)
    raise ValueError(why)
