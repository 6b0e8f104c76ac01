"""Saves the prune state in every checkpoint of a slim model, and checks it on loading."""

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from torch.distributed.tensor import DTensor

from ...checkpoints.checkpoint_file import prune_state_of
from ...checkpoints.seal import seal
from ...common.distributed import assert_ranks_agree, weights_digest
from ...common.errors import UserError
from ...common.model_interface import prune_state_on
from ...common.model_wrappers import unwrapped


@HOOKS.register_module()
class PruneStateHook(Hook):
    """Writes ``meta.prune_state`` into checkpoints and rejects checkpoints with another prune state.

    After training it checks that all ranks have equal weights, unless these are sharded.

    Raises:
        UserError: the prune state of the checkpoint to load isn't the model's.
    """

    priority = 'VERY_LOW'

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add the prune state."""
        state = prune_state_on(unwrapped(runner))
        if state is not None:
            checkpoint['meta']['prune_state'] = state.to_dict()
        seal(checkpoint)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Compare the checkpoint's prune state with the model's."""
        expected = prune_state_on(unwrapped(runner))
        loaded = prune_state_of(checkpoint)
        if (expected and expected.digest()) != (loaded and loaded.digest()):
            raise UserError(
                'the checkpoint to load was pruned differently from the model: load it through '
                "tools/train.py or tools/test.py, or set model=dict(type='SlimModel', ...)"
            )

    def after_train(self, runner) -> None:
        """Compare the weights of all ranks."""
        model = unwrapped(runner)
        assert_ranks_agree(weights_digest(model), 'the weights after training')
        if runner.distributed:
            sharded = any(isinstance(p, DTensor) for p in model.parameters())
            how = 'sharded among' if sharded else 'identical on all'
            print_log(f'weights are {how} {runner.world_size} ranks', 'current')
