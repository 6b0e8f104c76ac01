"""VAD under distillation: the teacher sees the student's frames, history and masks."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from projects.prune_plugin import PruneState
from projects.prune_plugin.structure.unit_group import UnitGroup
from projects.prune_plugin.training.hooks.distill_hook import DistillHook
from projects.vad.models import VAD

sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny_vad as tiny  # noqa: E402  beside this folder

HEAD = 'pts_bbox_head'
NAMES = ['bev', 'all_cls_scores', 'map_all_cls_scores', 'ego_fut_preds']


class Runs:
    """The part of a Runner that the hook reads."""

    def __init__(self, model):
        self.model = model


@pytest.fixture
def twins(tmp_path):
    """A model without dropout in training mode, and a hook with a teacher of the same weights."""
    model = tiny.build()
    path = tmp_path / 'dense.pth'
    meta = model.checkpoint_meta()
    torch.save(dict(meta=meta, state_dict=model.state_dict()), path)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, 'dropout', None), float):
            module.dropout = 0.0
    return model.train(), DistillHook(str(path), tiny.config().model.to_dict())


def distances(model: nn.Module, hook: DistillHook, length: int = 2) -> dict[str, torch.Tensor]:
    """The distillation losses of a queue of ``length`` frames."""
    frames = tiny.relative([tiny.frame(i) for i in range(length)])
    data = [tiny.sample(frames, truth=True)]
    hook.before_train(Runs(model))
    losses = model(inputs=dict(img=tiny.images(1, length)), data_samples=data, mode='loss')
    hook.after_train(Runs(model))
    return {name: losses[f'loss_distill_{name}'] for name in NAMES}


@pytest.mark.parametrize('length', [1, 3])
def test_a_twin_is_at_no_distance_under_masks_too(twins, length, monkeypatch):
    model, hook = twins
    model.grid_mask.prob = 1.0
    found = distances(model, hook, length)
    # The teacher, without gradients, computes in another memory layout: sums round otherwise.
    assert all(value.abs() < 1e-4 for value in found.values()), found
    monkeypatch.setattr(type(model), 'distill_shared', ())
    assert distances(model, hook, length)['bev'] > 1e-3  # the teacher saw other images


def test_every_target_reaches_the_student(twins):
    model, hook = twins
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn_like(parameter))
    found = distances(model, hook)
    parts = dict(
        bev='transformer.encoder.layers.0.ffn',
        all_cls_scores='cls_branches.0',
        map_all_cls_scores='map_cls_branches.0',
        ego_fut_preds='ego_fut_decoder',
    )
    for name, part in parts.items():
        assert found[name] > 0, name
        names = [n for n, _ in model.named_parameters() if n.startswith(f'pts_bbox_head.{part}')]
        weight = model.get_parameter(next(n for n in names if n.endswith('weight')))
        (slope,) = torch.autograd.grad(found[name], weight, retain_graph=True)
        assert slope.abs().max() > 0, name


def test_pruned_queries_are_compared_with_the_dense_models(twins):
    """Against the divergence by hand, of a student with every second query."""
    model, hook = twins
    kept = {}
    for name, size in (('query_embedding', tiny.QUERIES), ('map_instance_embedding', tiny.LINES)):
        keep = torch.arange(size)[1::2]
        embedding = getattr(model.pts_bbox_head, name)
        embedding.weight = nn.Parameter(embedding.weight.detach()[keep])
        kept[f'{HEAD}.{name}'] = keep
    model.pts_bbox_head.map_num_vec = len(keep)
    groups = {name: UnitGroup(name, 'query', 99, (), '') for name in kept}
    model.prune_state = PruneState(groups, kept)
    dense = tiny.build().train()
    dense.grid_mask = model.grid_mask = None
    for module in dense.modules():
        module.training = False
    outs = []
    for part in (model, dense):
        part.pts_bbox_head.register_forward_hook(lambda m, args, out: outs.append(out))
    found = distances(model, hook)
    frames = tiny.relative([tiny.frame(i) for i in range(2)])
    data = [tiny.sample(frames, truth=True)]
    dense(dict(img=tiny.images(1, 2)), data, mode='loss')
    student, teacher = outs
    weights = {target['key']: target['weight'] for target in VAD.distill_targets[1:3]}
    for key, name in (
        ('all_cls_scores', 'query_embedding'),
        ('map_all_cls_scores', 'map_instance_embedding'),
    ):
        assert student[key].shape[2] == len(kept[f'{HEAD}.{name}']) < teacher[key].shape[2]
        p = teacher[key][:, :, kept[f'{HEAD}.{name}']].sigmoid()
        q = student[key].sigmoid()
        divergence = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
        expected = weights[key] * divergence.mean()
        torch.testing.assert_close(found[key], expected, rtol=1e-3, atol=1e-6)
