"""Queries that start on a grid over the BEV."""

import tiny_vad as tiny
import torch
from torch import nn

from projects.vad.models.query_init import aim, grid


def test_aim_meets_the_points():
    torch.manual_seed(0)
    linear, embeddings, points = (
        nn.Linear(16, 3),
        torch.randn(10, 16),
        torch.rand(10, 3) * 0.9 + 0.05,
    )
    aim(linear, embeddings, points)
    torch.testing.assert_close(linear(embeddings).sigmoid(), points)


def test_grid_is_even():
    """60 places over 30 x 60 m: no two nearer than 5 m, none nearer than 2.5 m to a border."""
    places = grid(60, (30.0, 60.0)) * torch.tensor([30.0, 60.0])
    apart = torch.cdist(places, places) + 1e3 * torch.eye(60)
    assert float(apart.min()) >= 5.0 - 1e-4
    assert float(places.min()) >= 2.4 and bool((places < torch.tensor([30.0, 60.0])).all())


def start_of(model):
    """Where object and map queries begin, in [0, 1]."""
    head = model.pts_bbox_head
    width = head.query_embedding.weight.shape[1] // 2
    lines = head.map_instance_embedding.weight[:, None] + head.map_pts_embedding.weight
    transformer = head.transformer
    objects = transformer.reference_points(head.query_embedding.weight[:, :width]).sigmoid()
    return objects, transformer.map_reference_points(lines[..., :width]).sigmoid()


@torch.no_grad()
def test_spread_queries_cover_the_bev():
    model = tiny.build(pts_bbox_head__spread_queries=True)
    model.init_weights()
    objects, lines = start_of(model)
    expected = grid(tiny.QUERIES, (30.0, 60.0))
    torch.testing.assert_close(objects[:, :2], expected, atol=1e-3, rtol=0)
    along, across = lines[..., 1], lines[..., 0]
    assert bool((along.diff(dim=1) > 0).all()) and float(across.std(1).max()) < 1e-2
