"""What models may offer: said once, asked in one place, and true of the families here."""

import ast
import re
from inspect import getdoc, isfunction, signature
from pathlib import Path

import pytest
from torch import nn

from projects.prune_plugin.common import model_interface as interface

ROOT = Path(__file__).resolve().parents[3]
ENGINE = ROOT / 'projects' / 'prune_plugin'
OFFERS = (
    interface.ModelOffers,
    interface.ModuleOffers,
    interface.MetricOffers,
    interface.DatasetOffers,
)


def members(protocol: type) -> dict:
    return {name: value for name, value in vars(protocol).items() if is_member(name, value)}


def is_member(name: str, value) -> bool:
    return not name.startswith('_') and (isfunction(value) or isinstance(value, property))


NAMES = {name for protocol in (*OFFERS, interface.SlimModelHas) for name in members(protocol)}


def test_contributing_lists_them():
    text = (ROOT / 'CONTRIBUTING.md').read_text(encoding='utf-8')
    section = text.split('## Add a model family')[1].split('\n## ')[0]
    rows = re.findall(r'^\| `(\w+)', section, re.MULTILINE)
    assert sorted(rows) == sorted(name for protocol in OFFERS for name in members(protocol))


@pytest.mark.parametrize('protocol', [*OFFERS, interface.SlimModelHas])
def test_each_is_described(protocol):
    assert getdoc(protocol) and members(protocol)
    for name, member in members(protocol).items():
        assert getdoc(member), name


def test_no_other_module_asks_for_them():
    for path in ENGINE.rglob('*.py'):
        if path.name == 'model_interface.py':
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Call) and getattr(node.func, 'id', '') in (
                'getattr',
                'hasattr',
            ):
                name = node.args[1]
                assert not (isinstance(name, ast.Constant) and name.value in NAMES), (
                    f'{path.name}:{node.lineno} asks for {name.value}'
                )


def test_models_that_offer_nothing():
    model = nn.Linear(2, 2)
    assert not interface.offers_dummy_inputs(model) and not interface.offers_save_hf(model)
    assert interface.checkpoint_meta_of(model) == {} == interface.evaluators_of(model)
    given = dict(state_dict={})
    assert interface.checkpoint_for(model, given, 'a.pth') == given
    assert interface.profile_batch_size_of(model) == 8
    for tell in (
        interface.weights_source_of, interface.loss_task_of, interface.prune_state_on,
        interface.unit_usage_of, interface.headline_of, interface.default_prefix_of,
        interface.metainfo_of, interface.init_weights_of, interface.read_fully,
    ):  # fmt: skip
        assert tell(model) is None, tell
    assert interface.distill_targets_of(model) == () == interface.distill_shared_of(model)


def test_example_inputs_may_be_a_property():
    class Old(nn.Module):
        dummy_inputs = dict(inputs=3)

    class New(nn.Module):
        def dummy_inputs(self, batch_size):
            return dict(inputs=batch_size)

    assert interface.dummy_inputs_of(Old(), 5) == dict(inputs=3)
    assert interface.dummy_inputs_of(New(), 5) == dict(inputs=5)


def fulfils(cls: type, protocol: type) -> set[str]:
    """Names of a protocol that a class has, each with the arguments that it is called with."""
    found = set()
    for name, member in members(protocol).items():
        if not hasattr(cls, name):
            continue
        found.add(name)
        own = getattr(cls, name)
        if isinstance(member, property):
            assert not isfunction(own), f'{cls.__name__}.{name} is no attribute'
            continue
        assert callable(own), f'{cls.__name__}.{name} is no method'
        skipped = isinstance(vars(cls).get(name), staticmethod)
        wanted = list(signature(member).parameters)[1 if skipped else 0 :]
        signature(own).bind(*wanted)
    return found


def test_vad():
    pytest.importorskip('mmdet3d')
    from projects.vad.models import VAD, VADHead

    assert fulfils(VAD, interface.ModelOffers) == {
        'dummy_inputs', 'checkpoint_meta', 'adapt_checkpoint', 'init_weights', 'profile_batch_size',
        'loss_task', 'distill_targets', 'distill_shared', 'export_view',
    }  # fmt: skip
    assert fulfils(VADHead, interface.ModuleOffers) == {'unit_usage'}


def test_vit():
    pytest.importorskip('timm')
    from projects.vit.models import TimmClassifier

    assert fulfils(TimmClassifier, interface.ModelOffers) == {
        'dummy_inputs', 'init_weights', 'weights_source', 'distill_targets', 'use_network',
        'engine_files',
    }  # fmt: skip


def test_llm():
    pytest.importorskip('transformers')
    from projects.llm.models import HFCausalLM

    assert fulfils(HFCausalLM, interface.ModelOffers) == {
        'dummy_inputs', 'checkpoint_meta', 'init_weights', 'weights_source', 'profile_batch_size',
        'distill_targets', 'evaluators', 'save_hf', 'save_gguf', 'use_network', 'engine_files',
        'tokens_per_second', 'weight_folder', 'saved_names', 'save_description',
    }  # fmt: skip


def test_metrics_and_data_sets():
    from mmengine.dataset import BaseDataset
    from mmengine.evaluator import BaseMetric

    from projects.llm.evaluation import Perplexity

    assert fulfils(BaseDataset, interface.DatasetOffers) == {'full_init', 'metainfo'}
    assert fulfils(BaseMetric, interface.MetricOffers) == {'default_prefix'}
    assert fulfils(Perplexity, interface.MetricOffers) == {'default_prefix', 'headline'}
