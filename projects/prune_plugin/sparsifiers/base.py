"""What a sparsifier is: a weight-level method."""

from collections.abc import Mapping

from torch import Tensor


class Sparsifier:
    """Base of the sparsifiers: decides which single weights become zero."""

    def keep_masks(self, weights: Mapping[str, Tensor], ratio: float) -> dict[str, Tensor]:
        """Decide which weights stay.

        Args:
            weights: Weights by name.
            ratio: Fraction of them to remove, in (0, 1).

        Returns:
            For each name a bool tensor of the weight's shape, True where it stays.
        """
        raise NotImplementedError
