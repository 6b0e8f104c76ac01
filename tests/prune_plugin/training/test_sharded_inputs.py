"""Where the inputs of a sharded model go."""

import pytest
import torch
import torch.distributed as torch_dist
from mmengine.model import BaseDataPreprocessor, ImgDataPreprocessor
from torch import nn

from projects.prune_plugin.training.sharding.fully_shard import FullyShard


@pytest.fixture
def one_rank():
    """A process group of one, here."""
    torch_dist.init_process_group('gloo', store=torch_dist.HashStore(), rank=0, world_size=1)
    yield
    torch_dist.destroy_process_group()


class Classifier(nn.Module):
    """A layer behind a data preprocessor."""

    def __init__(self, preprocessor: BaseDataPreprocessor):
        super().__init__()
        self.data_preprocessor = preprocessor
        self.net = nn.Sequential(nn.Linear(4, 4))


@pytest.mark.parametrize(
    'preprocessor',
    [BaseDataPreprocessor, lambda: ImgDataPreprocessor(mean=[1.0] * 3, std=[2.0] * 3)],
    ids=['plain', 'images'],
)
def test_data_go_where_the_shards_are(one_rank, preprocessor):
    """Not where the model was before; another device stands for the CPU that a GPU's model leaves."""
    model = Classifier(preprocessor())
    model.data_preprocessor._device = torch.device('meta')
    FullyShard(model, [r'net\.0'], saved_whole=True)
    assert model.data_preprocessor.device.type == 'cpu'
    assert model.data_preprocessor.cast_data(torch.ones(1)).device.type == 'cpu'
