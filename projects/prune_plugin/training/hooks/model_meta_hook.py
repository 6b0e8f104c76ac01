"""Lets a model write into checkpoints what its weights depend on, and check it when they come back."""

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from ...checkpoints.checkpoint_file import adapted, model_meta
from ...common.model_wrappers import unwrapped


@HOOKS.register_module()
class ModelMetaHook(Hook):
    """Calls the model's ``checkpoint_meta`` and ``adapt_checkpoint``, if it has them.

    See :func:`projects.prune_plugin.checkpoints.checkpoint_file.adapted`.
    """

    priority = 'VERY_LOW'

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add what the model says about its weights."""
        checkpoint['meta'].update(model_meta(unwrapped(runner)))

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Have the model check and adapt the checkpoint before it is loaded."""
        path = runner._load_from or 'to load'
        checkpoint.update(adapted(unwrapped(runner), checkpoint, path))
