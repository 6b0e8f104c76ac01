"""Everything at once."""

from ..registry import SCHEDULES


@SCHEDULES.register_module()
class OneShot:
    """One round that goes straight to the target.

    Example:
        >>> prune_cfg = dict(schedule=dict(type='OneShot'))
    """

    rounds = 1

    def ratio(self, target: float, round_index: int) -> float:
        """Fraction removed, of the dense model, after round ``round_index``."""
        return target
