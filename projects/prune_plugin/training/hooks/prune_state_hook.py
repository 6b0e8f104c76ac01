"""Keeps the prune state with every checkpoint of a slim model."""

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from torch.distributed.tensor import DTensor

from ...checkpoints.checkpoint_file import prune_state_of
from ...common.distributed import assert_ranks_agree, weights_digest
from ...common.errors import UserError
from ...common.model_interface import prune_state_on
from ...common.model_wrappers import unwrapped


@HOOKS.register_module()
class PruneStateHook(Hook):
    """Writes ``meta.prune_state`` into checkpoints, and refuses checkpoints of another structure.

    After training it checks that all ranks hold the same weights, where each holds all.
    """

    priority = 'VERY_LOW'

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add the state."""
        state = prune_state_on(unwrapped(runner))
        if state is not None:
            checkpoint['meta']['prune_state'] = state.to_dict()

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Compare the checkpoint's state with the model's."""
        ours, theirs = prune_state_on(unwrapped(runner)), prune_state_of(checkpoint)
        if (ours and ours.digest()) != (theirs and theirs.digest()):
            raise UserError(
                'the checkpoint to load was pruned otherwise than the model: load it through '
                "tools/train.py or tools/test.py, or set model=dict(type='SlimModel', ...)"
            )

    def after_train(self, runner) -> None:
        """Compare weights over ranks."""
        model = unwrapped(runner)
        assert_ranks_agree(weights_digest(model), 'the weights after training')
        if runner.distributed:
            divided = any(isinstance(p, DTensor) for p in model.parameters())
            how = 'divided among' if divided else 'identical on all'
            print_log(f'weights are {how} {runner.world_size} ranks', 'current')
