"""What MMEngine's registries raise over a config becomes a sentence, and nothing else does."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, OPTIMIZERS, Registry
from mmengine.runner import Runner

from projects.prune_plugin.common.building import built_from
from projects.prune_plugin.common.config_errors import describe_config_error
from projects.prune_plugin.common.errors import UserError

THINGS = Registry('thing', scope='mmengine')


def inner(height: int) -> int:
    return height


@THINGS.register_module()
class Base:
    def __init__(self, width: int, depth: int = 1):
        self.width = width


@THINGS.register_module()
class HandsOn(Base):
    def __init__(self, colour: str = 'red', **kwargs):
        super().__init__(**kwargs)


@THINGS.register_module()
class CallsWrongly(Base):
    def __init__(self, width: int = 1):
        super().__init__(width, length=2)


@THINGS.register_module()
class CallsTooShortly(Base):
    def __init__(self):
        inner()


@THINGS.register_module()
class Holds:
    def __init__(self, part: dict):
        self.part = THINGS.build(part)


def raised(build, cfg: dict) -> Exception:
    with pytest.raises((TypeError, KeyError)) as caught:
        build(cfg)
    return caught.value


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        (dict(type='Base', wide=1), 'wide is not a key of Base; valid are width, depth'),
        (dict(type='HandsOn', width=1, wide=1),
         'wide is not a key of HandsOn; valid are colour, width, depth'),
        (dict(type='Base'), "Base lacks 'width' in the config"),
        (dict(type='Holds', part=dict(type='Base', width=1, wide=1)),
         'wide is not a key of Base; valid are width, depth'),
        (dict(type='Bas'), 'Bas is not in the mmengine::thing registry'),
        (dict(type='Holds', part=dict(type='Bas')), 'Bas is not in the mmengine::thing registry'),
    ],
)  # fmt: skip
def test_mistakes_of_the_config(cfg, message):
    assert describe_config_error(raised(THINGS.build, cfg)).startswith(message)


CFG = Config(
    dict(thing=dict(type='Bas'), more=[dict(type='Base', width=1), dict(part=dict(type='Holdz'))])
)


@pytest.mark.parametrize(
    ('build', 'said'),
    [
        (lambda cfg: THINGS.build(cfg.thing), 'thing.type in {}: Bas is not in the mmengine::thing registr'
         'y;'
         ' similar are Base; a module of your own'),
        (lambda cfg: THINGS.build(cfg.more[1].part), 'more[1].part.type in {}: Holdz is not in '),
        (lambda cfg: THINGS.build(dict(type='HOLDS')), 'HOLDS is not in the mmengine::thing registry; '
         'similar are Holds; '),
        (lambda cfg: THINGS.build(dict(type='Xyzzy')), 'Xyzzy is not in the mmengine::thing registry; a '),
    ],
)  # fmt: skip
def test_an_unknown_type_is_told_with_its_key_its_file_and_similar_names(build, said, tmp_path):
    (tmp_path / 'a.py').write_text(f'thing = {CFG.thing!r}\nmore = {CFG.more!r}\n')
    cfg = Config.fromfile(tmp_path / 'a.py')
    with pytest.raises(KeyError) as caught:
        build(cfg)  # as a tool does, whose config is a local variable
    told = describe_config_error(caught.value)
    assert told.startswith(said.format(tmp_path / 'a.py')) and 'http' not in told


def test_a_key_is_told_once():
    cfg = CFG
    with pytest.raises(UserError) as caught, built_from('thing'):
        THINGS.build(cfg.thing)
    assert str(caught.value).startswith('thing.type in ')


@pytest.mark.parametrize('name', ['CallsWrongly', 'CallsTooShortly'])
def test_mistakes_of_the_code_stay_errors(name):
    assert describe_config_error(raised(THINGS.build, dict(type=name))) is None


def test_errors_that_no_registry_raised():
    with pytest.raises(TypeError) as caught:
        inner(width=1)
    assert describe_config_error(caught.value) is None
    assert describe_config_error(KeyError('width')) is None
    assert describe_config_error(TypeError()) is None


def test_classes_of_others():
    wrong = dict(type='AdamW', params=[torch.nn.Parameter(torch.zeros(1))], rate=0.1)
    said = describe_config_error(raised(OPTIMIZERS.build, wrong))
    assert said.startswith('rate is not a key of AdamW; valid are params, lr, betas')
    said = describe_config_error(raised(MODELS.build, dict(type=torch.nn.ReLU, slope=1)))
    assert said == 'slope is not a key of ReLU; valid are inplace'


def test_data_loaders():
    cfg = dict(dataset=range(3), sampler=dict(type='DefaultSampler'), batch=2)
    said = describe_config_error(raised(Runner.build_dataloader, cfg))
    assert said.startswith('batch is not a key of DataLoader; valid are dataset, batch_size, ')


def test_messages_of_older_mmengine():
    error = TypeError(
        'class `Holds` in a/b.py: class `Base` in a/c.py: Base.__init__() got an unexpected keyword '
        "argument 'wide'"
    )
    assert (
        describe_config_error(error) == "Base.__init__() got an unexpected keyword argument 'wide'"
    )
