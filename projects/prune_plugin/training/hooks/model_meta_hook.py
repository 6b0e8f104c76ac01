"""Lets models add to checkpoints what their weights depend on, and check it on loading."""

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from ...checkpoints.checkpoint_file import adapted, model_meta
from ...common.model_wrappers import unwrapped


@HOOKS.register_module()
class ModelMetaHook(Hook):
    """Calls the model's methods ``checkpoint_meta`` on saving and ``adapt_checkpoint`` on loading, if any.

    See :func:`projects.prune_plugin.checkpoints.checkpoint_file.adapted`.
    """

    priority = 'VERY_LOW'

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add the model's ``checkpoint_meta`` to the checkpoint's ``meta``."""
        checkpoint['meta'].update(model_meta(unwrapped(runner)))

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Let the model check and adapt the checkpoint before its weights are loaded."""
        path = runner._load_from or 'to load'
        checkpoint.update(adapted(unwrapped(runner), checkpoint, path))
