"""An evaluation reads its file once and builds one model."""

from copy import deepcopy

import pytest
import torch
import toy
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS, MODELS, RUNNERS
from mmengine.runner import Runner
from recovering import on_two_ranks

from projects.prune_plugin import UserError, build_pruner, evaluate, slim
from projects.prune_plugin.checkpoints.export import formats
from projects.prune_plugin.workflows.evaluate import evaluated


@METRICS.register_module(force=True)
class SumOfLogits(BaseMetric):
    """Tells models apart."""

    def process(self, data_batch, data_samples):
        self.results += [float(logits.sum()) for logits in data_samples]

    def compute_metrics(self, results):
        return dict(total=sum(results))


@MODELS.register_module(force=True)
class ScaledToy(toy.ToyModel):
    """Its preprocessor, which stands beside the model in some configs, counts; initialised, it is 0."""

    def __init__(self, data_preprocessor=None, **kwargs):
        super().__init__(**kwargs)
        self.scale = (data_preprocessor or {}).get('scale', 1.0)

    def forward(self, inputs, labels=None, mode='tensor'):
        return super().forward(inputs * self.scale, labels, mode)

    def init_weights(self):
        for parameter in self.parameters():
            parameter.data.zero_()


def config(work_dir, **more) -> Config:
    settings = dict(
        model=dict(type='ToyModel', hidden=16),
        test_dataloader=dict(toy.LOADER, sampler=dict(type='DefaultSampler', shuffle=False)),
        test_evaluator=dict(type='SumOfLogits'),
        test_cfg=dict(),
        work_dir=str(work_dir),
    )
    return Config({**settings, **more})


@pytest.fixture
def slim_file(tmp_path) -> tuple[str, float]:
    """A slim checkpoint, and the sum of its logits."""
    torch.manual_seed(2)
    model = toy.ToyModel(hidden=16).eval()
    state = build_pruner(dict(budget=dict(type='units', ratio=0.5))).plan(model).state
    slimmed = slim(deepcopy(model), state)
    path = tmp_path / 'slim.pth'
    torch.save(dict(meta=dict(prune_state=state.to_dict()), state_dict=slimmed.state_dict()), path)
    with torch.no_grad():
        return str(path), float(slimmed(toy.ToyData().inputs).sum())


@pytest.fixture
def counts(monkeypatch) -> dict[str, int]:
    """How often a file was read and a model was built."""
    found = dict(read=0, built=0)
    load, init = torch.load, toy.ToyModel.__init__

    def counting_load(*args, **kwargs):
        found['read'] += 1
        return load(*args, **kwargs)

    def counting_init(self, *args, **kwargs):
        found['built'] += 1
        init(self, *args, **kwargs)

    monkeypatch.setattr(torch, 'load', counting_load)
    monkeypatch.setattr(toy.ToyModel, '__init__', counting_init)
    return found


def test_a_slim_file_is_read_once_and_one_model_is_built(slim_file, counts, tmp_path):
    path, total = slim_file
    cfg = config(tmp_path / 'work')
    before = deepcopy(cfg.to_dict())
    assert evaluate(cfg, path, None, 'none')['total'] == pytest.approx(total, rel=1e-5)
    assert counts == dict(read=1, built=1)
    assert cfg.to_dict() == before
    (saved,) = (tmp_path / 'work').glob('*/vis_data/config.py')
    assert Config.fromfile(saved).model.prune_state == path  # the log says what ran


def test_the_configs_own_runner_takes_the_model_too(slim_file, counts, tmp_path):
    path, total = slim_file
    seen = []

    @RUNNERS.register_module(force=True)
    class OwnRunner(Runner):
        def test(self):
            seen.append(type(self).__name__)
            return super().test()

    cfg = config(tmp_path / 'work', runner_type='OwnRunner')
    assert evaluate(cfg, path, None, 'none')['total'] == pytest.approx(total, rel=1e-5)
    assert counts == dict(read=1, built=1) and seen == ['OwnRunner']


def test_a_preprocessor_beside_the_model_counts(slim_file, tmp_path):
    path, total = slim_file
    model = dict(type='ScaledToy', hidden=16)
    plain = evaluate(config(tmp_path / 'a', model=model), path, None, 'none')['total']
    beside = config(tmp_path / 'b', model=model, data_preprocessor=dict(scale=0.5))
    assert plain == pytest.approx(total, rel=1e-5)
    assert abs(evaluate(beside, path, None, 'none')['total'] - plain) > 1e-3


def test_nothing_is_written_where_something_is_wrong(slim_file, tmp_path):
    path, _ = slim_file
    cfg = config(tmp_path / 'work')
    for checkpoint, names, message in (
        (path, ['nope'], 'nope'),
        (path, ['thing:1'], "no evaluator 'thing'"),
        (None, None, 'checkpoint is missing'),
        (str(tmp_path / 'no.pth'), None, 'does not exist'),
    ):
        with pytest.raises(UserError, match=message):
            evaluate(cfg, checkpoint, names, 'none')
    assert not (tmp_path / 'work').exists()


def test_the_model_at_hand_is_exported(slim_file, counts, tmp_path, monkeypatch):
    path, total = slim_file
    cfg, found = config(tmp_path / 'work'), []
    _, model = evaluated(cfg, path, None, 'none')
    for name in ('save_onnx', 'save_exported'):
        monkeypatch.setattr(formats, name, lambda model, **_: found.append(model))
    exports = formats.Exports(save_onnx='a.onnx', save_exported='a.pt2')
    formats.save(cfg, path, exports, model)
    assert counts == dict(read=1, built=1) and found[1] is model and found[0] is not model
    with torch.no_grad():
        inputs = toy.ToyData().inputs
        assert all(float(m(inputs).sum()) == pytest.approx(total, rel=1e-5) for m in found)
    formats.save(cfg, path, exports)
    assert counts == dict(read=2, built=2)


def evaluate_on_a_rank(folder: str, path: str, sharded: bool) -> None:
    """What one of two processes does."""
    wrapper = dict(
        runner_type='ShardedRunner', model_wrapper_cfg=dict(type='FullyShard', blocks=['mlp'])
    )
    model = dict(type='ScaledToy', hidden=16)
    cfg = config(f'{folder}/work', model=model, **(wrapper if sharded else {}))
    found = evaluate(cfg, path, None, 'pytorch')
    if torch.distributed.get_rank() == 0:
        torch.save(found, f'{folder}/found.pth')


@pytest.mark.parametrize('sharded', [False, True])
def test_two_processes(slim_file, tmp_path, sharded):
    """Initialising, which a sharded model begins with, would lose the weights."""
    path, total = slim_file
    on_two_ranks(evaluate_on_a_rank, str(tmp_path), path, sharded)
    assert torch.load(tmp_path / 'found.pth')['total'] == pytest.approx(total, rel=1e-5)
