"""Optimizer state follows the parameters through the cut."""

import pytest
import torch
from cases import BY_NAME, flat

from projects.prune_plugin import slim
from projects.prune_plugin.checkpoints.optimizer_state import parameter_order, slim_optimizer_state

ADAMW = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05))
SGD = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1e-2, momentum=0.9))
NO_DECAY = dict(ADAMW, paramwise_cfg=dict(norm_decay_mult=0.0, bypass_duplicate=True))


def trained(case, cfg):
    """A dense model after two steps, and its optimizer wrapper."""
    from mmengine.optim import build_optim_wrapper

    model = case.dense()
    wrapper = build_optim_wrapper(model, dict(cfg))
    for _ in range(2):
        wrapper.update_params(flat(model(*case.inputs())).square().mean())
    return model, wrapper


@pytest.mark.parametrize('cfg', [ADAMW, SGD, NO_DECAY], ids=['adamw', 'sgd', 'groups'])
@pytest.mark.parametrize('name', ['vit', 'vit-layers', 'resnet18-channel', 'torch_encoder', 'opt'])
def test_state_is_cut_like_the_parameters(name, cfg):
    case = BY_NAME[name]
    dense, wrapper = trained(case, cfg)
    before = parameter_order(dense, cfg)
    saved = wrapper.optimizer.state_dict()
    by_name = {before[i]: entry for i, entry in saved['state'].items()}
    # A parameter that equals its own momentum is cut as the momentum must be.
    key = 'exp_avg' if 'exp_avg' in by_name[before[0]] else 'momentum_buffer'
    with torch.no_grad():
        for parameter_name, parameter in dense.named_parameters():
            parameter.copy_(by_name[parameter_name][key])
    slimmed = slim(dense, case.state('half'))
    after = parameter_order(slimmed, cfg)
    state = slim_optimizer_state(saved, before, after, case.state('half'))
    parameters = dict(slimmed.named_parameters())
    assert sorted(state) == list(range(len(after)))
    for index, entry in state.items():
        assert torch.equal(entry[key], parameters[after[index]])
        assert 'step' not in entry or entry['step'] == 2
    assert saved['state'][0][key].shape != state[0][key].shape or before[0] == after[0]


def test_the_slim_optimizer_takes_the_state_and_steps():
    from mmengine.optim import build_optim_wrapper

    case = BY_NAME['vit']
    dense, wrapper = trained(case, ADAMW)
    before = parameter_order(dense, ADAMW)
    saved = wrapper.optimizer.state_dict()
    slimmed = slim(dense, case.state('half'))
    fresh = build_optim_wrapper(slimmed, dict(ADAMW))
    state = slim_optimizer_state(saved, before, parameter_order(slimmed, ADAMW), case.state('half'))
    fresh.optimizer.load_state_dict({**fresh.optimizer.state_dict(), 'state': state})
    fresh.update_params(flat(slimmed(*case.inputs())).square().mean())
    assert all(float(entry['step']) == 3 for entry in fresh.optimizer.state.values())
    assert all(p.isfinite().all() for p in slimmed.parameters())


def test_several_optimizers_are_refused():
    cfg = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1), constructor='TwoOptimizers')
    from mmengine.optim import OptimWrapperDict
    from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS

    class TwoOptimizers:
        def __init__(self, *args, **kwargs):
            pass

        def __call__(self, model):
            return OptimWrapperDict()

    OPTIM_WRAPPER_CONSTRUCTORS.register_module(module=TwoOptimizers, force=True)
    with pytest.raises(TypeError, match='several optimizers'):
        parameter_order(BY_NAME['vit'].dense(), cfg)
