"""What MMEngine's wrappers of data sets ask of the data sets in them."""

from collections.abc import Mapping
from typing import Any


class Wrappable:
    """Makes a data set that is read when it is made fit into RepeatDataset and the like of MMEngine.

    A class that ``ClassBalancedDataset`` may balance has ``get_cat_ids`` as well.
    """

    _metainfo: Mapping[str, Any] = {}
    _fully_initialized = True

    @property
    def metainfo(self) -> dict[str, Any]:
        """A copy of the meta information."""
        return dict(self._metainfo)

    def full_init(self) -> None:
        """Nothing is left to be read."""

    def get_data_info(self, index: int) -> Any:
        """An item without an image loaded, as wrappers ask for it: the item itself."""
        return self[index]  # type: ignore[index]
