"""What MMEngine's registries raise over a config becomes a sentence, and nothing else does."""

import pytest
import torch
from mmengine.registry import MODELS, OPTIMIZERS, Registry
from mmengine.runner import Runner

from projects.prune_plugin.common.config_errors import describe_config_error

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
