"""How likely each predicted motion is: the head says it, the data samples don't."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mmdet3d.structures import Det3DDataSample
from torch import Tensor, nn

HEAD = 'pts_bbox_head'


@contextmanager
def listening(model: nn.Module) -> Iterator[list[dict[str, Tensor]]]:
    """A list to which the head, slim or dense, adds its raw output whenever it runs."""
    heard: list[dict[str, Tensor]] = []
    heads = [module for name, module in model.named_modules() if name.split('.')[-1] == HEAD]
    handles = [head.register_forward_hook(lambda *args: heard.append(args[-1])) for head in heads]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def add_mode_scores(samples: Sequence[Det3DDataSample], outs: dict[str, Tensor]) -> None:
    """Add ``mode_scores (k, modes)`` logits to the predicted objects of every sample.

    An object's query is the one whose motions, all of them, are the object's.
    """
    motions, scores = outs['all_traj_preds'][-1].float(), outs['all_traj_cls_scores'][-1].float()
    for i, sample in enumerate(samples):
        found = sample.pred_instances_3d
        same = (found.trajs_3d[:, None] == motions[i][None]).flatten(2).all(dim=-1)
        found.mode_scores = scores[i][same.int().argmax(dim=1)]
