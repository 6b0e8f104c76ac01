"""``env_cfg.dist_cfg``: what it may hold, checked whether or not it is used."""

from datetime import timedelta

import pytest
from mmengine.config import Config

from projects.prune_plugin import UserError
from projects.prune_plugin.common import distributed
from projects.prune_plugin.common.group_settings import TIMEOUT, GroupSettings, dist_cfg_of


def test_what_is_not_said_is_as_by_default():
    assert GroupSettings.read(None) == GroupSettings.read({}) == GroupSettings()
    assert GroupSettings.read(dict(port=None, timeout=None)) == GroupSettings()
    assert GroupSettings().options == dict(timeout=TIMEOUT)


def test_values_are_read():
    given = dict(backend='gloo', timeout=60, port=1234, group_name='g', init_backend='torch')
    settings = GroupSettings.read(given)
    assert settings == GroupSettings('gloo', timedelta(seconds=60), 1234, 'g')
    assert settings.options == dict(timeout=timedelta(seconds=60), group_name='g')


@pytest.mark.parametrize('backend', ['nccl', 'NCCL', 'gloo', 'cpu:gloo,cuda:nccl', 'cuda:nccl'])
def test_backends_that_pytorch_knows(backend):
    assert GroupSettings.read(dict(backend=backend)).backend == backend


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        (3, r'env_cfg\.dist_cfg is 3; it must be a dict'),
        (dict(foo=1), r'foo is not a key of env_cfg\.dist_cfg; valid are backend, group_name, '),
        (dict(backend='xyz'), r"env_cfg\.dist_cfg\.backend is 'xyz'; valid are gloo, nccl"),
        (dict(backend='nccl,gloo'), "backend is 'nccl,gloo'; .* or 'cpu:gloo,cuda:nccl'"),
        (dict(backend='undefined'), "backend is 'undefined'; valid are"),
        (dict(backend=3), 'backend is 3; valid are'),
        (dict(port='abc'), r"env_cfg\.dist_cfg\.port is 'abc'; it must be a whole number"),
        (dict(port=99999), 'port is 99999; it must be a whole number from 1 to 65535'),
        (dict(timeout='abc'), r"env_cfg\.dist_cfg\.timeout is 'abc'; it must be a number > 0"),
        (dict(timeout=0), r'env_cfg\.dist_cfg\.timeout is 0; it must be a number > 0'),
        (dict(group_name=1), r'env_cfg\.dist_cfg\.group_name is 1; it must be a text'),
        (dict(init_backend='x'), r"env_cfg\.dist_cfg\.init_backend is 'x'; valid are torch"),
    ],
)
def test_mistakes_are_named_with_one_process_too(cfg, message):
    with pytest.raises(UserError, match=message):
        distributed.init('none', cfg)


def test_where_it_stands_in_a_config():
    assert dist_cfg_of(Config()) is None
    assert dist_cfg_of(Config(dict(env_cfg=dict(cudnn_benchmark=True)))) is None
    assert dist_cfg_of(Config(dict(env_cfg=dict(dist_cfg=dict(port=7))))) == dict(port=7)
    with pytest.raises(UserError, match='env_cfg is 3; it must be a dict'):
        dist_cfg_of(Config(dict(env_cfg=3)))
