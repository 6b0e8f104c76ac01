"""Whole scenes, every frame once, as even as it goes."""

import pytest
from mmengine.registry import DATA_SAMPLERS

from projects.prune_plugin.common.errors import UserError
from projects.vad.datasets import samplers
from projects.vad.datasets.samplers import SceneSampler, deal_scenes

LENGTHS = dict(a=40, b=3, c=39, d=20, e=41, f=1)
TOKENS = [token for token, length in LENGTHS.items() for _ in range(length)]


class Scenes:
    """Stands for a data set: its scenes and nothing that could load an image."""

    scene_tokens = TOKENS

    def __len__(self):
        return len(TOKENS)


@pytest.mark.parametrize('num_shares', [1, 2, 3, 4, 8])
def test_every_frame_once_and_scenes_whole(num_shares):
    shares = deal_scenes(TOKENS, num_shares)
    assert len(shares) == num_shares
    assert sorted(index for share in shares for index in share) == list(range(len(TOKENS)))
    for share in shares:
        assert share == sorted(share)
        for token in LENGTHS:
            assert sum(TOKENS[i] == token for i in share) in (0, LENGTHS[token])


def test_shares_are_balanced():
    assert sorted(map(len, deal_scenes(TOKENS, 2))) == [65, 79]
    assert sorted(map(len, deal_scenes(TOKENS, 4))) == [24, 39, 40, 41]


def test_more_shares_than_scenes_leave_some_empty():
    assert sorted(map(len, deal_scenes(['a', 'a', 'b'], 4))) == [0, 0, 1, 2]


def test_scenes_recorded_at_the_same_time_are_untangled():
    assert deal_scenes(['a', 'b', 'a', 'b', 'b'], 1) == [[0, 2, 1, 3, 4]]
    assert deal_scenes(['a', 'b', 'a', 'b', 'b'], 2) == [[1, 3, 4], [0, 2]]


def test_each_process_takes_its_share(monkeypatch):
    taken = []
    for rank in range(2):
        monkeypatch.setattr(samplers, 'get_dist_info', lambda rank=rank: (rank, 2))
        cfg = dict(type='SceneSampler')
        sampler = DATA_SAMPLERS.build(cfg, default_args=dict(dataset=Scenes(), seed=rank))
        sampler.set_epoch(1)
        assert len(sampler) == len(list(sampler))
        taken += list(sampler)
    assert sorted(taken) == list(range(len(TOKENS)))


def test_a_data_set_without_scenes_is_refused():
    with pytest.raises(UserError, match='scene_tokens'):
        SceneSampler([1, 2, 3])
