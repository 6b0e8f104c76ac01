"""Which process tests which frames."""

from collections.abc import Iterator, Sequence, Sized

from mmengine.dist import get_dist_info
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import Sampler

from projects.prune_plugin.common.errors import UserError


@DATA_SAMPLERS.register_module()
class SceneSampler(Sampler):
    """Deals whole scenes to the processes, so that a recurrent state never breaks off.

    Every index is given out once, to one process; nothing is padded, so that processes may have
    different numbers of frames. Within a scene the order is that of the data set, and a process
    finishes one scene before it begins the next. The result depends on the scenes and the number of
    processes alone.

    Args:
        dataset: A data set with ``scene_tokens``, the scene of each of its items.
        seed: Taken because MMEngine passes one; not used.

    Raises:
        UserError: The data set doesn't know its scenes.

    Example::

        test_dataloader=dict(sampler=dict(type='SceneSampler'), ...)
    """

    def __init__(self, dataset: Sized, seed: int | None = None) -> None:
        tokens = getattr(dataset, 'scene_tokens', None)
        if tokens is None:
            raise UserError(
                f"sampler type 'SceneSampler' needs a dataset with scene_tokens such as "
                f'VADNuScenesDataset; {type(dataset).__name__} has none'
            )
        rank, world_size = get_dist_info()
        self.indices = deal_scenes(tokens, world_size)[rank]

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        """Frames of this process."""
        return len(self.indices)

    def set_epoch(self, epoch: int) -> None:
        """Nothing depends on the epoch."""


def deal_scenes(scene_tokens: Sequence[str], num_shares: int) -> list[list[int]]:
    """Indices of every share: whole scenes, the longest dealt first, each to the smallest share."""
    scenes: dict[str, list[int]] = {}
    for index, token in enumerate(scene_tokens):
        scenes.setdefault(token, []).append(index)
    shares: list[list[list[int]]] = [[] for _ in range(num_shares)]
    sizes = [0] * num_shares
    for scene in sorted(scenes.values(), key=len, reverse=True):
        smallest = sizes.index(min(sizes))
        shares[smallest].append(scene)
        sizes[smallest] += len(scene)
    return [[index for scene in sorted(share) for index in scene] for share in shares]
