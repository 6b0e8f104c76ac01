"""Every job on a pretended GPU: no devices are mixed, and the result is that of the CPU."""

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from emulator import DEVICE, Emulated, Gpu, pretended_gpu, values
from subjects import NAMES, Subject, subjects
from torch import Tensor, nn

from projects.prune_plugin import StructuredPruner, WeightPruner, mask
from projects.prune_plugin.common.random_state import seed_everything
from projects.prune_plugin.common.registry import PENALTIES, build
from projects.prune_plugin.evaluation.profiling import profile
from projects.prune_plugin.evaluation.settings import ProfileSettings
from projects.prune_plugin.training.hooks import distill_hook
from projects.prune_plugin.training.hooks.finite_gradients_hook import FiniteGradientsHook
from projects.prune_plugin.training.hooks.mask_hook import MaskHook
from projects.prune_plugin.training.hooks.penalty_hook import RegularizedUnits

CRITERIA = [
    dict(type='L1'), dict(type='L2'), dict(type='Taylor', order=2), dict(type='Fisher'),
    dict(type='Wanda'), dict(type='Activation'),
]  # fmt: skip


@pytest.fixture(params=NAMES)
def subject(request) -> Subject:
    return subjects()[request.param]()


@pytest.fixture
def gpu():
    with pretended_gpu() as gpu:
        yield gpu


def on_both(do, *args):
    """``do(gpu, ...)`` on the CPU, and on the pretended GPU, where it must end."""
    found = do(False, *args)
    with pretended_gpu():
        return found, values(do(True, *args))


def assert_near(found, expected, rtol: float = 1e-4) -> None:
    """Same names, and numbers that differ by rounding."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        scale = float(tensor.double().abs().max()) if tensor.numel() else 0.0
        assert torch.allclose(found[name].double(), tensor.double(), rtol, rtol * scale), name


def pruner_of(subject: Subject, criterion: dict, **kwargs) -> StructuredPruner:
    settings = dict(budget=dict(type='units', ratio=0.4), allocator=dict(type='Uniform'))
    return StructuredPruner(subject.units, criterion, **{**settings, **kwargs})


def plan_on(gpu: bool, subject: Subject, criterion: dict, **kwargs):
    pruner, model = pruner_of(subject, criterion, **kwargs), subject.model(gpu)
    data = subject.data(gpu)
    plan = pruner.plan(model, lambda settings: data, loss=subject.loss)
    return pruner, model, plan, lambda settings: data


# Scores, and models that are smaller, masked, refitted


@pytest.mark.parametrize('criterion', CRITERIA, ids=lambda c: c['type'])
def test_scores(subject, criterion):
    def scores(gpu: bool) -> dict[str, Tensor]:
        *_, plan, _ = plan_on(gpu, subject, criterion)
        return dict(zip([g.name for g in plan.groups], plan.importance, strict=True))

    expected, found = on_both(scores)
    # VAD looks up the nearest cells: where two are equally near, rounding decides.
    assert_near(found, expected, 0.05 if subject.name == 'vad' else 1e-4)


def outputs(subject: Subject, gpu: bool, model: nn.Module) -> dict[str, Tensor]:
    with torch.no_grad():
        loss = subject.loss(model, subject.on(gpu, subject.batch(5)))
    return {'loss': loss, **dict(model.named_parameters())}


def test_slim_models(subject):
    """Planned, cut and refitted where the model is."""

    def slim(gpu: bool) -> dict[str, Tensor]:
        criterion, least = dict(type='Fisher'), dict(type='LeastSquares')
        pruner, model, plan, data = plan_on(gpu, subject, criterion, compensation=least)
        pruned = pruner.apply(model, plan, data, loss=subject.loss)
        assert gpu == all(isinstance(p, Emulated) for p in pruned.model.parameters())
        return outputs(subject, gpu, pruned.model)

    expected, found = on_both(slim)
    assert_near(found, expected, 1e-3)


def test_masked_models(subject):
    def masked(gpu: bool) -> dict[str, Tensor]:
        _, model, plan, _ = plan_on(gpu, subject, dict(type='L1'))
        mask(model, plan.state)
        return outputs(subject, gpu, model)

    expected, found = on_both(masked)
    assert_near(found, expected)


SPARSIFIERS = [
    dict(type='Magnitude'), dict(type='Magnitude', scope='global'), dict(type='Wanda'),
    dict(type='SparseGPT'), dict(type='SparseGPT', pattern='2:4'),
]  # fmt: skip


@pytest.mark.parametrize('sparsifier', SPARSIFIERS, ids=lambda s: '-'.join(map(str, s.values())))
def test_sparse_models(subject, sparsifier):
    if subject.name == 'resnet' and 'pattern' in sparsifier:
        pytest.skip('rows of three inputs have no pattern')
    if subject.name == 'vad' and not sparsifier['type'] == 'Magnitude':
        kwargs = dict(include=[r'.*ffns.*'])
    else:
        kwargs = {}

    def sparse(gpu: bool) -> dict[str, Tensor]:
        model, data = subject.model(gpu), subject.data(gpu)
        pruner = WeightPruner(
            sparsifier=sparsifier, budget=dict(type='weights', ratio=0.5), **kwargs
        )
        plan = pruner.plan(model, lambda settings: data, loss=subject.loss)
        pruned = pruner.apply(model, plan, lambda settings: data, loss=subject.loss)
        kept = {f'{name} kept': keep for name, keep in pruned.masks.items()}
        return {**dict(pruned.model.named_parameters()), **kept}

    expected, found = on_both(sparse)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():  # rounding may decide between two equal weights of a row
        near = torch.isclose(found[name].double(), tensor.double(), 1e-3, 1e-4)
        assert near.double().mean() > 0.98, name


# Training


class Runner(SimpleNamespace):
    """What hooks ask of a Runner."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer):
        super().__init__(
            model=model,
            optim_wrapper=SimpleNamespace(optimizer=optimizer, step=optimizer.step),
            epoch=0,
        )


def masked_training(gpu: bool, subject: Subject, counter: Gpu | None = None) -> dict[str, Tensor]:
    """Weights after three steps with masks, a penalty, clipped gradients and the check of them.

    What the last step waits for is left in ``counter``.
    """
    model, batches = subject.model(gpu), subject.data(gpu).batches
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, foreach=True)
    runner = Runner(model, optimizer)
    masks, finite = MaskHook(), FiniteGradientsHook()
    masks.masks = {
        name: torch.arange(p.numel()).view(p.shape) % 3 > 0
        for name, p in model.named_parameters()
        if p.dim() == 2
    }
    masks.before_train(runner)
    penalty = build(PENALTIES, dict(type='RSST', strength=0.1), 'penalty')
    parameter = next(p for p in model.parameters() if p.dim() > 1 and len(p) > 1)
    regularized = RegularizedUnits([(parameter, 0, torch.arange(2)[:, None])], penalty)
    optimizer.register_step_pre_hook(lambda *_: regularized.add(0.1))
    torch.manual_seed(0)
    for batch in batches:
        if counter is not None:
            counter.clear()
        finite.before_train_iter(runner, 0)
        subject.loss(model, batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 35.0, foreach=True)
        runner.optim_wrapper.step()
        optimizer.zero_grad()
        masks.after_train_iter(runner, 0)
    for name, keep in masks.masks.items():
        assert not values(dict(model.named_parameters())[name])[~keep].any()
    return dict(model.named_parameters())


def test_training_with_masks(subject):
    expected, found = on_both(masked_training, subject)
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, 1e-3, 1e-4), name


#: What the CPU may wait for in a training step: the check of the gradients, and VAD's matching.
STEP = {'vit': 1, 'resnet': 1, 'llama': 1, 'vad': 2}


def waits(gpu: Gpu) -> dict:
    """What was waited for, but for transformers' look whether sequences are packed."""
    counted = {**gpu.syncs, **gpu.copies}
    return {what: n for what, n in counted.items() if 'transformers/masking_utils' not in what[1]}


def test_a_training_step_waits_once(subject, gpu):
    masked_training(True, subject, gpu)
    assert sum(waits(gpu).values()) == STEP[subject.name], waits(gpu)


def warm_forward(gpu: bool, subject: Subject, counter: Gpu | None = None) -> None:
    """Four forward passes; what the last one waits for is left in ``counter``."""
    model = subject.model(gpu)
    with torch.no_grad():
        for batch in subject.data(gpu, 4).batches:
            if subject.name.startswith('vad'):
                batch = model.data_preprocessor(batch)
                batch = dict(batch['inputs']), batch['data_samples']
            if counter is not None:
                counter.clear()
            model(*batch)


def test_a_warm_forward_pass_waits_for_nothing(subject, gpu):
    warm_forward(True, subject, gpu)
    assert not waits(gpu)


def test_nor_does_one_of_vad_nano(gpu):
    warm_forward(True, subjects()['vad_nano'](), gpu)
    assert not waits(gpu)


def test_distillation(monkeypatch):
    """VAD's own targets, with a teacher on the same device."""

    def losses(gpu: bool) -> dict[str, Tensor]:
        subject = subjects()['vad']()
        student, teacher = subject.model(gpu), subject.model(gpu)
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.mul_(1.1)
        monkeypatch.setattr(distill_hook, 'load_model', lambda *_: SimpleNamespace(model=teacher))
        hook = distill_hook.DistillHook('dense.pth', dict(type='VAD'))
        hook.before_train(SimpleNamespace(model=student))
        for module in student.modules():
            module.training = True
        seed_everything(0)  # of the mask on the images
        data = student.data_preprocessor(subject.on(gpu, subject.batch(0)), True)
        found = student(**data, mode='loss')
        return {name: x.detach() for name, x in found.items() if 'distill' in name}

    expected, found = on_both(losses)
    assert expected
    assert_near(found, expected, 1e-3)


def test_profile():
    """Parameters and FLOPs of a model that is on the device."""

    def measured(gpu: bool) -> dict:
        model = subjects()['vad']().model(gpu)
        (found,) = profile([model], ProfileSettings(), latency=False)
        return found

    expected, found = on_both(measured)
    assert found == expected and found['flops'] > 1e6


# The emulator itself


def test_devices_do_not_mix(gpu):
    on_gpu, on_cpu = torch.ones(2, device=DEVICE), torch.ones(2)
    for wrong in (
        lambda: on_gpu + on_cpu,
        lambda: on_cpu.add_(on_gpu),
        lambda: torch.nn.functional.linear(on_gpu, torch.ones(3, 2)),
        lambda: on_cpu[torch.zeros(1, dtype=torch.long, device=DEVICE)],
    ):
        with pytest.raises(RuntimeError, match='Expected all tensors to be on the same device'):
            wrong()
    with pytest.raises(TypeError, match="can't convert"):
        on_gpu.numpy()
    assert values(on_gpu + torch.tensor(1.0)).tolist() == [2, 2]
    assert values(deepcopy(on_gpu)).tolist() == [1, 1]


@pytest.mark.parametrize(
    ('do', 'syncs', 'copies', 'sent'),
    [
        (lambda x: x.item(), 1, 0, 0),
        (lambda x: bool(x > 0), 1, 0, 0),
        (lambda x: x.cpu(), 1, 0, 0),
        (lambda x: x[None].tolist(), 1, 0, 0),
        (lambda x: x[None].nonzero(), 1, 0, 0),
        (lambda x: x[None][x[None] > 0], 1, 0, 0),
        (lambda x: x.new_tensor([1.0, 2.0]), 0, 1, 0),
        (lambda x: torch.ones(2).to(DEVICE), 0, 1, 0),
        (lambda x: torch.ones(2).to(DEVICE, non_blocking=True), 0, 0, 1),
        (lambda x: x[None][torch.tensor([0])], 0, 1, 0),
        (lambda x: torch.ones(2, device=DEVICE) * 2 + x, 0, 0, 0),
    ],
)
def test_what_is_waited_for_is_counted(gpu, do, syncs, copies, sent):
    x = torch.tensor(3.0, device=DEVICE)
    gpu.clear()
    do(x)
    assert (sum(gpu.syncs.values()), sum(gpu.copies.values()), gpu.sent) == (syncs, copies, sent)
