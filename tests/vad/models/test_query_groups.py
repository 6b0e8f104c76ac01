"""More groups of object queries in training: matched by themselves, and not part of the model."""

import pytest
import tiny_vad as tiny
import torch


def a_batch(size=2):
    queues = [tiny.relative([tiny.frame(0), tiny.frame(1)]) for _ in range(size)]
    return dict(img=tiny.images(size, length=2)), [tiny.sample(q, truth=True) for q in queues]


def losses_of(**config):
    torch.manual_seed(3)
    model = tiny.build(auxiliary=[dict(type='QueryGroups', **config)])
    inputs, samples = a_batch()
    return model, model.eval().losses(inputs['img'], samples)


def test_without_jitter_a_group_is_the_heads_own_queries():
    """The same queries, matched with the same truth: the same losses, averaged over groups."""
    _, losses = losses_of(groups=3, jitter=0.0)
    for name in ('loss_cls', 'loss_bbox', 'd0.loss_cls', 'd0.loss_bbox'):
        torch.testing.assert_close(losses[name.replace('loss_', 'loss_group_')], losses[name])


def test_groups_start_elsewhere_and_weigh_as_asked():
    model, losses = losses_of(groups=2, jitter=5.0)
    assert not torch.allclose(losses['loss_group_bbox'], losses['loss_bbox'])
    _, half = losses_of(groups=2, jitter=0.0, loss_weight=0.5)
    torch.testing.assert_close(half['loss_group_cls'], 0.5 * half['loss_cls'])
    assert model.loss_task('d0.loss_group_bbox') == 'auxiliary'


@pytest.mark.parametrize('name', ['loss_group_cls', 'd0.loss_group_bbox'])
def test_they_train_the_decoder_and_have_no_parameters(name):
    model, losses = losses_of(groups=2)
    assert model.state_dict().keys() == tiny.build().state_dict().keys()
    losses[name].backward()
    touched = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert 'pts_bbox_head.query_embedding.weight' in touched
    assert any(n.startswith('img_backbone') for n in touched)
    assert not any('traj' in n or 'map_decoder' in n for n in touched)
