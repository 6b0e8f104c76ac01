"""Batches that run layer by layer: what is visited with which inputs, and what is left behind."""

import gc
import weakref
from contextvars import ContextVar
from functools import partial

import pytest
import tiny_models as tiny
import torch
from torch import nn

from projects.prune_plugin import UserError
from projects.prune_plugin.calibration.sequential import group_by_input, run_layer_by_layer


class Chain(nn.Module):
    """Two layers on the input, one that runs twice, one on what was changed in place, a last one."""

    def __init__(self):
        super().__init__()
        for name in ('a', 'b', 'twice', 'after', 'last', 'idle'):
            self.add_module(name, nn.Linear(6, 6))
        self.tail, self.swapped, self.boom = 0, False, None

    def forward(self, x):
        first, second = (self.b, self.a) if self.swapped else (self.a, self.b)
        y = first(x) + second(x)
        y = self.twice(self.twice(y))
        z = self.after(y)
        y.mul_(0.5)
        if self.boom is not None:
            self.boom()
        z = z + self.last(input=y)
        self.tail += 1
        return z


RUNNING = ('a', 'b', 'twice', 'after', 'last')
STEPS = [('a', 'b'), ('twice',), ('after',), ('last',)]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Chain().eval()


def batches(number: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [torch.randn(2 + i, 6, generator=generator) for i in range(number)]


def calls_on(model, inputs):
    return [partial(model, x) for x in inputs]


def hooks_of(model) -> int:
    return sum(len(module._forward_pre_hooks) for module in model.modules())


def halve(model):
    """A visit that changes the layers and notes what they read."""
    seen = {}

    def visit(layers, inputs, dense):
        seen[layers] = [x.clone() for x in inputs]
        for name in layers:
            model.get_submodule(name).weight.mul_(0.5)

    return visit, seen


def test_steps_in_the_order_of_running(model):
    found = group_by_input(
        model, ['last', 'after', 'twice', 'b', 'a'], partial(model, batches()[0])
    )
    assert found == STEPS
    assert model.tail == 0 and hooks_of(model) == 0


def test_layers_changed_in_place_between_are_two_steps(model):
    assert group_by_input(model, ['after', 'last'], partial(model, batches()[0])) == [
        ('after',),
        ('last',),
    ]


def test_convolutions_of_other_shape_read_other_rows():
    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(2, 3, 3, padding=1)
            self.c = nn.Conv2d(2, 3, 1)

        def forward(self, x):
            return self.a(x) + self.b(x) + self.c(x)

    call = partial(Fork(), torch.randn(1, 2, 4, 4))
    assert group_by_input(call.func, ['a', 'b', 'c'], call) == [('a', 'b'), ('c',)]


def test_query_key_and_value_are_one_step():
    model = tiny.llama().eval()
    names = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and 'layers' in n]
    found = group_by_input(model, names[::-1], partial(model, *tiny.tokens()))
    expected = []
    for i in range(3):
        attention, mlp = f'model.layers.{i}.self_attn', f'model.layers.{i}.mlp'
        expected += [
            tuple(f'{attention}.{x}_proj' for x in 'qkv'), (f'{attention}.o_proj',),
            (f'{mlp}.gate_proj', f'{mlp}.up_proj'), (f'{mlp}.down_proj',),
        ]  # fmt: skip
    assert found == expected


def test_a_layer_that_never_runs(model):
    with pytest.raises(UserError, match='^idle does not run .* name it in prune_cfg.exclude'):
        group_by_input(model, ['a', 'idle'], partial(model, batches()[0]))
    assert hooks_of(model) == 0 and model.tail == 1


def test_each_step_once_with_all_inputs(model):
    visit, seen = halve(model)
    before = {name: model.get_submodule(name).weight.clone() for name in RUNNING}
    run_layer_by_layer(model, calls_on(model, batches()), STEPS, visit)
    assert list(seen) == STEPS
    assert [len(x) for x in seen['a', 'b']] == [2, 3, 4]
    assert all(torch.equal(model.get_submodule(n).weight, before[n] * 0.5) for n in RUNNING)
    assert model.tail == 0 and hooks_of(model) == 0


@pytest.mark.parametrize('number', [1, 3])
def test_inputs_are_those_of_a_plain_pass_with_changed_layers(model, number):
    """Bit for bit: what each layer first reads in a forward pass of the changed model."""
    visit, seen = halve(model)
    run_layer_by_layer(model, calls_on(model, batches(number)), STEPS, visit)
    read: dict[str, list] = {name: [] for name in RUNNING}
    for x in batches(number):
        first = {}

        def note(module, args, kwargs, name, first):
            first.setdefault(name, (args[0] if args else kwargs['input']).clone())

        handles = [
            model.get_submodule(name).register_forward_pre_hook(
                lambda m, a, k, name=name, first=first: note(m, a, k, name, first),
                with_kwargs=True,
            )
            for name in RUNNING
        ]
        with torch.no_grad():
            model(x)
        for handle in handles:
            handle.remove()
        for name in RUNNING:
            read[name].append(first[name])
    for layers, inputs in seen.items():
        for name in layers:
            assert all(torch.equal(a, b) for a, b in zip(inputs, read[name], strict=True))


def test_inputs_of_a_language_model():
    model, inputs = tiny.llama().eval(), [torch.randint(0, 96, (1, 5 + i)) for i in range(3)]
    names = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and 'layers' in n]
    steps = group_by_input(model, names, partial(model, inputs[0]))
    visit, seen = halve(model)
    run_layer_by_layer(model, calls_on(model, inputs), steps, visit)
    last = 'model.layers.2.mlp.down_proj'
    read = []
    handle = model.get_submodule(last).register_forward_pre_hook(lambda m, a: read.append(a[0]))
    with torch.no_grad():
        for x in inputs:
            model(x)
    handle.remove()
    assert all(torch.equal(a, b) for a, b in zip(read, seen[(last,)], strict=True))


def test_another_order_in_one_batch(model):
    inputs = batches()

    def swapped():
        model.swapped = True
        try:
            return model(inputs[1])
        finally:
            model.swapped = False

    calls = calls_on(model, inputs)
    calls[1] = swapped
    steps = [('a',), ('b',), ('last',)]
    visited = []
    with pytest.raises(UserError, match='^a is not called in the same order .* prune_cfg.exclude'):
        run_layer_by_layer(
            model, calls, steps, lambda layers, inputs, dense: visited.append(layers)
        )
    assert visited == [] and hooks_of(model) == 0 and not model.swapped


def test_another_order_in_all_batches(model):
    """Ranks must not add up what different layers read."""
    with pytest.raises(UserError, match='^b is not called in the same order'):
        run_layer_by_layer(model, calls_on(model, batches()), [('b',), ('a',)], lambda *_: None)


def test_a_batch_that_ends_early(model):
    calls = calls_on(model, batches())
    calls[2] = lambda: model.a(batches()[2])
    visited = []
    with pytest.raises(UserError, match='^twice is not called in the same order'):
        run_layer_by_layer(
            model, calls, STEPS, lambda layers, inputs, dense: visited.append(layers)
        )
    assert visited == [('a', 'b')] and hooks_of(model) == 0


class Tracker:
    """Something a forward pass holds on to."""


@pytest.mark.parametrize('where', ['call', 'first call', 'visit'])
def test_an_exception_leaves_nothing_behind(model, where):
    alive, left = weakref.WeakSet(), []

    def held(x, fails=False):
        mine = Tracker()
        alive.add(mine)
        try:
            if fails:
                model.a(x)
                raise ZeroDivisionError('in a call')
            return model(x)
        finally:
            left.append(mine is not None)

    calls = [partial(held, x, where == 'call' and i == 1) for i, x in enumerate(batches())]
    if where == 'first call':
        calls[0] = lambda: 1 / 0

    def visit(layers, inputs, dense):
        if where == 'visit' and layers == ('after',):
            raise ZeroDivisionError('in a visit')

    with pytest.raises(ZeroDivisionError):
        run_layer_by_layer(model, calls, STEPS, visit)
    gc.collect()
    assert not alive and hooks_of(model) == 0
    assert len(left) == (0 if where == 'first call' else 3)  # every pass ran its ``finally``
    assert torch.equal(model(batches()[0]), model(batches()[0]))  # runs as ever


def test_models_that_catch_exceptions_end_too(model):
    def stubborn(x):
        try:
            return model(x)
        except Exception:
            return model(x)

    calls = [partial(stubborn, x) for x in batches()]
    assert group_by_input(model, RUNNING, calls[0]) == STEPS
    run_layer_by_layer(model, calls, STEPS, lambda *_: None)
    assert model.tail == 0


def test_inputs_are_let_go_after_a_visit(model):
    """Only what is in flight stays in memory."""
    alive = []

    def visit(layers, inputs, dense):
        gc.collect()
        assert all(ref() is None for ref in alive)
        alive[:] = [weakref.ref(x) for x in inputs]

    # Each batch's very first input is held by its caller.
    chain = nn.Sequential(nn.Identity(), *(nn.Linear(6, 6) for _ in range(4)), nn.Identity())
    steps = [(str(i),) for i in range(2, 5)]
    run_layer_by_layer(chain, calls_on(chain, batches()), steps, visit)
    assert len(alive) == 3


NAME = ContextVar('NAME', default='unset')


def test_state_of_the_thread_is_each_call_own(model):
    """Autocast, gradients, random numbers and context variables, though the calls take turns."""
    names, read = [], {}
    NAME.set('outside')

    def call(number):
        torch.manual_seed(number)
        names.append(NAME.get())
        NAME.set(str(number))
        with torch.enable_grad(), torch.autocast('cpu', torch.bfloat16, enabled=number != 1):
            y = model.a(torch.rand(1, 6))
            assert torch.is_grad_enabled() and NAME.get() == str(number)
            assert y.dtype == (torch.float32 if number == 1 else torch.bfloat16)
            model.last(torch.rand(1, 6))

    def visit(layers, inputs, dense):
        assert not torch.is_grad_enabled() and not torch.is_autocast_enabled('cpu')
        assert NAME.get() == 'outside'
        torch.rand(7)
        read[layers] = list(inputs)

    run_layer_by_layer(
        model, [partial(call, number) for number in range(3)], [('a',), ('last',)], visit
    )
    assert torch.is_grad_enabled() and not torch.is_autocast_enabled('cpu')
    assert NAME.get() == 'outside' and names == ['outside'] * 3
    for number in range(3):
        torch.manual_seed(number)
        assert torch.equal(read[('a',)][number], torch.rand(1, 6))
        assert torch.equal(read[('last',)][number], torch.rand(1, 6))


def test_autocast_sees_the_changed_weights(model):
    """It keeps copies of weights in half precision for as long as one block is open."""
    model.requires_grad_()
    read = []

    def visit(layers, inputs, dense):
        read.append(inputs[0])
        for name in layers:
            model.get_submodule(name).weight.zero_()
            model.get_submodule(name).bias.zero_()

    with torch.autocast('cpu', torch.bfloat16):
        call = partial(model, batches()[0])
        steps = group_by_input(model, ['a', 'b', 'twice'], call)
        run_layer_by_layer(model, [call], steps, visit)
        assert torch.is_autocast_enabled('cpu')
    assert (read[1] == 0).all()
