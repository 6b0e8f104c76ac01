"""Distillation through real Runners: what is added to the loss, and what stays as it was."""

import json
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
import toy  # noqa: E402  beside this folder
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import nn

from projects.prune_plugin import PruneState, StructuredPruner, UserError, slim
from projects.prune_plugin.checkpoints.checkpoint_file import load_file, use_safe_loader
from projects.prune_plugin.structure.unit_group import UnitGroup
from projects.prune_plugin.training.distillation import bce, mse
from projects.prune_plugin.training.hooks.distill_hook import DistillHook

TARGETS = [dict(module='mlp', loss='mse', weight=0.5)]


@pytest.fixture(autouse=True)
def safe_loader():
    """As the tools do."""
    from mmengine.runner.checkpoint import CheckpointLoader

    schemes = dict(CheckpointLoader._schemes)
    use_safe_loader()
    yield
    CheckpointLoader._schemes = schemes


class Record(Hook):
    """Keeps the losses, the batches, and the weights before each step."""

    def __init__(self):
        self.losses, self.batches, self.weights = [], [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.weights.append(deepcopy(runner.model.state_dict()))
        self.batches.append(data_batch)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append({k: float(v.detach()) for k, v in outputs.items()})


@MODELS.register_module(force=True)
class Twice(BaseModel):
    """Calls a module on the history first, and masks its input at random while training."""

    distill_targets = (dict(module='body'),)

    def __init__(self, queries: int = 5):
        super().__init__()
        self.augment = RandomMask()
        self.body = nn.Linear(toy.FEATURES, 4)
        self.queries = nn.Parameter(torch.randn(queries, 4))
        self.scores = Scores()

    def forward(self, inputs, labels=None, mode='tensor'):
        with torch.no_grad():
            self.body(2 * inputs)
        features = self.body(self.augment(inputs))
        logits = self.scores(features, self.queries)['logits']
        return dict(loss=F.cross_entropy(logits, labels)) if mode == 'loss' else logits


class RandomMask(nn.Module):
    def forward(self, x):
        return x * (torch.rand_like(x) > 0.5) if self.training else x


class Scores(nn.Module):
    def forward(self, features, queries):
        return dict(logits=features @ queries.T, shape='not a tensor')


@pytest.fixture
def dense(tmp_path):
    """A trained dense checkpoint."""
    toy.runner(tmp_path / 'dense', epochs=1).train()
    return str(tmp_path / 'dense' / 'epoch_1.pth')


@pytest.fixture
def pruned(tmp_path, dense):
    """It with half of its neurons."""
    model = MODELS.build(dict(toy.MODEL))
    model.load_state_dict(load_file(dense)['state_dict'])
    pruner = StructuredPruner([dict(type='FFNNeurons')], budget=dict(type='units', ratio=0.5))
    state = pruner.plan(model).state
    slim(model, state)
    path = tmp_path / 'toy_structured_pruned.pth'
    meta = dict(prune_state=state.to_dict())
    torch.save(dict(meta=meta, state_dict=model.state_dict()), path)
    return str(path)


def distill(dense: str, model=toy.MODEL, targets=TARGETS) -> dict:
    return dict(type='DistillHook', checkpoint=dense, model=dict(model), targets=targets)


def student(path: str, **kwargs) -> dict:
    return dict(type='SlimModel', model=dict(toy.MODEL, **kwargs), prune_state=path)


def train(folder, hooks, path, model=None, **kwargs):
    """A Runner that has trained ``path``, and what happened."""
    run = toy.runner(folder, hooks=hooks, model=model or student(path), load_from=path, **kwargs)
    record = Record()
    run.register_hook(record, 'LOWEST')
    run.train()
    return run, record


def test_the_loss_is_the_distance_to_the_teacher(tmp_path, dense, pruned):
    sgd = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
    _, record = train(tmp_path / 'work', [distill(dense)], pruned, optim_wrapper=sgd)
    ours, theirs = MODELS.build(student(pruned)), MODELS.build(dict(toy.MODEL))
    theirs.load_state_dict(load_file(dense)['state_dict'])
    for i, (losses, batch) in enumerate(zip(record.losses, record.batches, strict=True)):
        ours.load_state_dict(record.weights[i])
        with torch.no_grad():
            expected = theirs(batch['inputs'])
        logits = ours(batch['inputs'])
        distance = (logits - expected).square().mean() / expected.var(correction=0)
        task = F.cross_entropy(logits, batch['labels'])
        assert losses['loss_distill_mlp'] == pytest.approx(0.5 * distance.item(), rel=1e-5)
        if i + 1 < len(record.weights):
            weight = ours.mlp.fc1.weight
            (slope,) = torch.autograd.grad(task + 0.5 * distance, weight)
            after = record.weights[i + 1]['mlp.fc1.weight']
            torch.testing.assert_close(after, weight.detach() - 0.1 * slope)
    assert record.losses[0]['loss_distill_mlp'] > 0.01


def test_the_teacher_is_no_part_of_the_student(tmp_path, dense, pruned):
    teachers = []

    class Look(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            (hook,) = [h for h in runner.hooks if isinstance(h, DistillHook)]
            teachers.append(hook.teacher)

    path = tmp_path / 'work'
    run = toy.runner(path, hooks=[distill(dense), toy.EMA], model=student(pruned), load_from=pruned)
    run.register_hook(Look())
    run.train()
    teacher = teachers[-1]
    expected = load_file(dense)['state_dict']
    assert all(torch.equal(teacher.state_dict()[name], w) for name, w in expected.items())
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
    assert not {id(m) for m in teacher.modules()} & {id(m) for m in run.model.modules()}
    trained = {id(p) for group in run.optim_wrapper.param_groups for p in group['params']}
    assert trained == {id(p) for p in run.model.parameters()}
    saved = load_file(path / 'epoch_2.pth')
    assert saved['state_dict'].keys() == expected.keys()
    for module in run.model.modules():  # nothing listens any more
        assert not module._forward_hooks and not module._forward_pre_hooks


def test_the_students_random_numbers_do_not_depend_on_it(tmp_path, dense, pruned):
    """A weight so small that it is lost in rounding: bit by bit the same training."""
    targets = [dict(module='mlp', weight=1e-30)]
    model = student(pruned, dropout=0.3)
    hook = distill(dense, dict(toy.MODEL, dropout=0.3), targets)
    _, ours = train(tmp_path / 'with', [hook], pruned, deepcopy(model))
    _, theirs = train(tmp_path / 'without', [], pruned, deepcopy(model))
    assert 0 < ours.losses[0]['loss_distill_mlp'] < 1e-28
    for name, weight in theirs.weights[-1].items():
        assert torch.equal(ours.weights[-1][name], weight), name


def test_in_mixed_precision_losses_are_float32(tmp_path, dense, pruned):
    seen = []

    class Look(Hook):
        def before_train(self, runner):
            runner.model.register_forward_hook(lambda m, a, out: seen.append(out))

    run = toy.runner(
        tmp_path / 'work', hooks=[distill(dense)], model=student(pruned), load_from=pruned,
        optim_wrapper=dict(toy.ADAMW, type='Bf16OptimWrapper'),
    )  # fmt: skip
    run.register_hook(Look(), 'LOWEST')
    run.train()
    assert {out['loss_distill_mlp'].dtype for out in seen} == {torch.float32}
    assert all(out['loss_distill_mlp'].isfinite() for out in seen)
    logits = [out['loss_distill_mlp'].grad_fn for out in seen]
    assert None not in logits


def test_a_resumed_run_ends_like_a_whole_one(tmp_path, dense, pruned):
    train(tmp_path / 'whole', [distill(dense)], pruned, epochs=3)
    toy.runner(
        tmp_path / 'part', 1, [distill(dense)], model=student(pruned), load_from=pruned
    ).train()
    toy.runner(tmp_path / 'part', 3, [distill(dense)], model=student(pruned), resume=True).train()
    ours, theirs = (
        load_file(tmp_path / n / 'epoch_3.pth')['state_dict'] for n in ('part', 'whole')
    )
    assert all(torch.equal(ours[name], weight) for name, weight in theirs.items())


def save(path, model: nn.Module, **meta) -> str:
    torch.save(dict(meta=meta, state_dict=model.state_dict()), path)
    return str(path)


class Runs:
    """The part of a Runner that the hook reads."""

    def __init__(self, model):
        self.model = model


def losses_of(hook: DistillHook, model: nn.Module, inputs: torch.Tensor) -> dict:
    hook.before_train(Runs(model))
    model.train()
    labels = torch.zeros(len(inputs), dtype=torch.long)
    found = model(inputs=inputs, labels=labels, mode='loss')
    hook.after_train(Runs(model))
    return {name: value.detach() for name, value in found.items()}


@pytest.fixture
def twice(tmp_path):
    """A teacher's checkpoint, its model and a student."""
    torch.manual_seed(1)
    teacher, model = Twice(), Twice()
    return save(tmp_path / 'twice.pth', teacher), teacher.eval(), model


def test_the_last_call_counts(twice):
    """Of the student as of the teacher: the first call has other inputs, and no gradients."""
    path, teacher, model = twice
    model.augment = teacher.augment = nn.Identity()
    inputs = torch.randn(7, toy.FEATURES)
    found = losses_of(DistillHook(path, dict(type='Twice')), model, inputs)
    with torch.no_grad():
        expected = mse(model.body(inputs), teacher.body(inputs))
    assert float(found['loss_distill_body']) == pytest.approx(float(expected), rel=1e-5)


def test_shared_modules_give_the_teacher_what_the_student_saw(twice, monkeypatch):
    path, teacher, model = twice
    model.load_state_dict(teacher.state_dict())
    inputs = torch.randn(7, toy.FEATURES)
    hook = DistillHook(path, dict(type='Twice'))
    assert losses_of(hook, model, inputs)['loss_distill_body'] > 0.01
    monkeypatch.setattr(Twice, 'distill_shared', ('augment', 'not there'), raising=False)
    assert losses_of(hook, model, inputs)['loss_distill_body'] == 0


def test_pruned_queries_are_compared_with_those_they_were(tmp_path, twice):
    path, teacher, model = twice
    kept, group = torch.tensor([0, 2, 3]), UnitGroup('queries', 'query', 5, (), '')
    model.queries = nn.Parameter(torch.randn(3, 4))
    align = dict(dim=1, group='queries')
    targets = [dict(module='scores', key='logits', loss='bce', align=align)]
    model.augment = nn.Identity()
    inputs = torch.randn(7, toy.FEATURES)
    hook = DistillHook(path, dict(type='Twice'), targets)
    with pytest.raises(
        UserError, match=r"scores\['logits'\] is \(7, 3\) in the student and \(7, 5\)"
    ):
        losses_of(hook, deepcopy(model), inputs)
    model.prune_state = PruneState({'queries': group}, {'queries': kept})
    found = losses_of(DistillHook(path, dict(type='Twice'), targets), model, inputs)
    with torch.no_grad():
        expected = bce(model(inputs), teacher(inputs)[:, kept])
    assert float(found['loss_distill_logits']) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    ('target', 'message'),
    [
        (dict(module='neck'), "the model has no module 'neck'"),
        (
            dict(module='scores', key='boxes'),
            "'scores' returns no 'boxes'; valid are logits, shape",
        ),
        (dict(module='scores'), 'distill: scores is a dict; key must name a tensor'),
        (dict(module='scores', key='shape'), 'is a str; key must name a tensor'),
        (
            dict(module='data_preprocessor'),
            "'data_preprocessor' is never called in training of the",
        ),
    ],
)
def test_what_is_not_there_is_named(twice, target, message):
    path, _, model = twice
    with pytest.raises(UserError, match=message):
        losses_of(
            DistillHook(path, dict(type='Twice'), [target]), model, torch.randn(2, toy.FEATURES)
        )


def test_evaluation_is_left_alone(twice):
    path, _, model = twice
    hook = DistillHook(path, dict(type='Twice'))
    hook.before_train(Runs(model))
    inputs, labels = torch.randn(2, toy.FEATURES), torch.zeros(2, dtype=torch.long)
    assert model.train()(inputs, mode='tensor').shape == (2, 5)
    assert model.eval()(inputs, labels, mode='loss').keys() == {'loss'}
    assert model.train()(inputs, labels, mode='loss').keys() == {'loss', 'loss_distill_body'}


def test_the_log_names_the_losses(tmp_path, dense, pruned):
    logger = dict(default_hooks=dict(logger=dict(type='LoggerHook', interval=1)))
    train(tmp_path / 'work', [distill(dense)], pruned, epochs=1, **logger)
    (log,) = (tmp_path / 'work').glob('*/vis_data/scalars.json')
    assert all('loss_distill_mlp' in json.loads(line) for line in log.read_text().splitlines())
