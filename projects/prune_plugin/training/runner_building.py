"""MMEngine's Runner, of whatever type a config names, around its own model or one at hand."""

from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import nn

from .hooks.atomic_checkpoint_hook import use_atomic_checkpoints


def build_runner(cfg: Config, model: nn.Module | None = None) -> Runner:
    """The Runner of a config, of whatever type it names; its checkpoints are whole at every moment.

    Args:
        cfg: The config.
        model: A model that has its weights: the Runner takes it instead of building ``cfg.model``, which
            then only stands in the log. None: it is built.
    """
    use_atomic_checkpoints(cfg)
    if model is not None:
        return runner_class(cfg, model).from_cfg(cfg)
    if 'runner_type' in cfg:
        return RUNNERS.build(cfg)
    return Runner.from_cfg(cfg)


def runner_class(cfg: Config, model: nn.Module) -> type[Runner]:
    """The class of a config's Runner, made to take ``model`` for the one that it would build."""
    kind = cfg.get('runner_type', 'Runner')
    base = RUNNERS.get(kind)
    if base is None:
        raise KeyError(f'{kind} is not in the runner registry')

    def build_model(self: Runner, _: object) -> nn.Module:
        return model

    return type(base.__name__, (base,), dict(build_model=build_model, model_has_weights=True))
