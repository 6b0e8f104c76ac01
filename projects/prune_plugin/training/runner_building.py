"""MMEngine's Runner, of whatever type a config names, around its own model or one at hand."""

from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import nn

from ..common.terminal import watch
from .hooks.atomic_checkpoint_hook import use_atomic_checkpoints


def build_runner(cfg: Config, model: nn.Module | None = None) -> Runner:
    """The Runner of a config, of whatever type it names; its checkpoints are whole at every moment.

    Args:
        cfg: The config.
        model: A model that has its weights: the Runner takes it instead of building ``cfg.model``, which
            then only stands in the log. None: it is built.
    """
    use_atomic_checkpoints(cfg)
    return runner_class(cfg, model).from_cfg(cfg)


def runner_class(cfg: Config, model: nn.Module | None) -> type[Runner]:
    """The class of a config's Runner, made to take ``model`` for the one that it would build.

    Its terminal shows what was chosen for the tool.
    """
    kind = cfg.get('runner_type', 'Runner')
    base = RUNNERS.get(kind)
    if base is None:
        raise KeyError(f'{kind} is not in the runner registry')

    def build_logger(self: Runner, *args: Any, **kwargs: Any) -> MMLogger:
        return watch(base.build_logger(self, *args, **kwargs))

    def build_model(self: Runner, _: object) -> nn.Module:
        return model

    members: dict[str, Any] = dict(build_logger=build_logger)
    if model is not None:
        members.update(build_model=build_model, model_has_weights=True)
    return type(base.__name__, (base,), members)
