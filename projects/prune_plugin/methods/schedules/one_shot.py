"""All pruning in one round."""

from ...common.registry import SCHEDULES
from .base import Schedule


@SCHEDULES.register_module()
class OneShot(Schedule):
    """One round that prunes directly to the target.

    Example:
        >>> prune_cfg = dict(schedule=dict(type='OneShot'))
    """

    def __init__(self):
        super().__init__()

    def ratios(self, target):
        """See :meth:`Schedule.ratios`."""
        return [target]
