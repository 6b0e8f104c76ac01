"""A training goes on with its own model, or not at all."""

import pytest
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import nn

from projects.prune_plugin import UserError
from projects.prune_plugin.workflows import resumed_model
from projects.prune_plugin.workflows.resumed_model import (
    built,
    check_resumed_model,
    differences,
    model_in,
)


@MODELS.register_module(force=True)
class ResumedNet(BaseModel):
    """Two layers; ``heads`` changes no shape."""

    def __init__(self, width=8, heads=2, asks=False):
        super().__init__()
        self.first, self.last = nn.Linear(4, width), nn.Linear(width, 4)
        if asks:
            self.number = self.first.weight.sum().item()

    def forward(self, x, mode='tensor'):
        return self.last(self.first(x))


def config(**model) -> Config:
    return Config(dict(model=dict(type='ResumedNet', **model)))


def checkpoint(cfg: Config) -> dict:
    return dict(
        state_dict=MODELS.build(dict(cfg.model)).state_dict(), meta=dict(cfg=cfg.pretty_text)
    )


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """What is logged."""
    lines: list[str] = []
    monkeypatch.setattr(resumed_model, 'print_log', lambda text, *_: lines.append(text))
    return lines


def test_the_same_model_goes_on_without_a_word(said):
    cfg = config(width=12)
    check_resumed_model(cfg, checkpoint(cfg), 'a.pth')
    assert said == []


@pytest.mark.parametrize('asks', [False, True])
def test_other_shapes_are_refused(asks):
    with pytest.raises(
        UserError, match=r'--resume: checkpoint a\.pth belongs to another .*\(12, 4\)'
    ):
        check_resumed_model(config(asks=asks), checkpoint(config(width=12)), 'a.pth')


def test_missing_tensors_are_refused():
    content = checkpoint(config())
    del content['state_dict']['last.weight']
    with pytest.raises(
        UserError, match=r'1 missing \(last\.weight\); use the config of that training'
    ):
        check_resumed_model(config(), content, 'a.pth')


def test_another_model_of_equal_shapes_is_named(said):
    check_resumed_model(config(heads=4), checkpoint(config(heads=2)), 'a.pth')
    assert said[0].endswith('began: model.heads 2 -> 4')


def test_built_without_weights_where_that_can_be():
    assert built(config(), 'meta').first.weight.is_meta
    check_resumed_model(config(asks=True), checkpoint(config(asks=True)), 'a.pth')


def test_models_that_read_their_own_numbers(monkeypatch):
    """As the driving model does, which compares its images' normalisation with the checkpoint's."""

    def adapt(self, checkpoint, path):
        self.first.weight.sum().item()
        return dict(checkpoint)

    monkeypatch.setattr(ResumedNet, 'adapt_checkpoint', adapt, raising=False)
    check_resumed_model(config(), checkpoint(config()), 'a.pth')
    with pytest.raises(UserError, match='belongs to another model'):
        check_resumed_model(config(), checkpoint(config(width=12)), 'a.pth')


@pytest.mark.parametrize(
    'text',
    ['', 'model = build()', 'model = dict(a=open("x"))', 'model = (', 'modell = dict()', '\0'],
)
def test_only_literals_are_read(text):
    assert model_in(text) is None


def test_literals_of_all_kinds():
    text = "x = 1\nmodel = dict(a=[1, dict(b=(2, -3))], c={'d e': None}, f='g')\n"
    assert model_in(text) == {'a': [1, {'b': [2, -3]}], 'c': {'d e': None}, 'f': 'g'}


def test_differences_name_what_only_one_has():
    found = list(differences(dict(a=1, b=dict(c=2)), dict(b=dict(c=3, d=4)), 'model'))
    assert found == ["model.a 1 -> 'not set'", 'model.b.c 2 -> 3', "model.b.d 'not set' -> 4"]


def test_the_file_of_a_slim_model_is_no_difference():
    before = dict(type='SlimModel', model=dict(heads=2), prune_state='a.pth')
    now = dict(type='SlimModel', model=dict(heads=4), prune_state='epoch_1.pth')
    assert list(differences(before, now, 'model')) == ['model.model.heads 2 -> 4']
