"""MMEngine hooks. None of them changes the shape of a tensor: builders slim, hooks mask."""

from .atomic_checkpoint_hook import AtomicCheckpointHook
from .carry_over_hook import CarryOverHook
from .distill_hook import DistillHook
from .epoch_seed_hook import EpochSeedHook
from .finished_training_hook import FinishedTrainingHook
from .finite_gradients_hook import FiniteGradientsHook
from .latest_checkpoint_hook import LatestCheckpointHook
from .lora_hook import LoraHook
from .mask_hook import MaskHook
from .model_meta_hook import ModelMetaHook
from .penalty_hook import PenaltyHook
from .prune_state_hook import PruneStateHook
from .pruning_scalars_hook import PruningScalarsHook

__all__ = [
    'CarryOverHook',
    'DistillHook',
    'EpochSeedHook',
    'FiniteGradientsHook',
    'FinishedTrainingHook',
    'LatestCheckpointHook',
    'LoraHook',
    'MaskHook',
    'ModelMetaHook',
    'PenaltyHook',
    'PruneStateHook',
    'PruningScalarsHook',
    'AtomicCheckpointHook',
]
