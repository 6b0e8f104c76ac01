"""MMEngine hooks. None of them ever changes a shape: builders slim, hooks mask."""

from .carry_over_hook import CarryOverHook
from .latest_checkpoint_hook import LatestCheckpointHook
from .mask_hook import MaskHook
from .prune_state_hook import PruneStateHook

__all__ = ['CarryOverHook', 'LatestCheckpointHook', 'MaskHook', 'PruneStateHook']
