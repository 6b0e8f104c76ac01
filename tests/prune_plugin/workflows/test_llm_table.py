"""The table of GQA groups and MLP channels against plain loops; and exact budgets in full shapes."""

import csv
from functools import cache

import pytest
import tiny_models as tiny
import torch
import torch.nn.functional as F
from cases import BOTH, BY_NAME

from projects.prune_plugin import StructuredPruner, slim
from projects.prune_plugin.evaluation.profiling import count_params
from projects.prune_plugin.workflows.reports import UnitTable

pytest.importorskip('transformers')
CASE = BY_NAME['llama-gqa']
LAYERS, HEAD, QUERIES, MLP, UNITS = 3, 8, 4, 96, (2, 96)


def batches() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(6)
    return [torch.randint(0, tiny.VOCABULARY, (2, 9), generator=generator) for _ in range(3)]


def loss_of(model, tokens) -> torch.Tensor:
    logits = model(tokens).logits
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


class Batches(list):
    """What calibration takes: numbered batches with the number of their samples."""

    seed = 0

    def __iter__(self):
        return ((i, len(tokens), tokens) for i, tokens in enumerate(list.__iter__(self)))


@cache
def measured():
    """Weights, mean gradient, mean squared gradient and RMS of inputs, by plain code."""
    model = CASE.dense()
    weights = {n: p.detach().double() for n, p in model.named_parameters()}
    gradient = {n: torch.zeros_like(w) for n, w in weights.items()}
    squared = {n: torch.zeros_like(w) for n, w in weights.items()}
    inputs: dict[str, list[torch.Tensor]] = {}
    for name, module in model.named_modules():
        if name.endswith(('o_proj', 'down_proj')):
            module.register_forward_pre_hook(
                lambda _, args, name=name: inputs.setdefault(name, []).append(
                    args[0].detach().flatten(0, 1).double()
                )
            )
    for tokens in batches():
        model.zero_grad()
        loss_of(model, tokens).backward()
        for name, parameter in model.named_parameters():
            gradient[name] += parameter.grad.double() / len(batches())
            squared[name] += parameter.grad.double() ** 2 / len(batches())
    rms = {n: torch.cat(x).square().mean(0).sqrt() for n, x in inputs.items()}
    return weights, gradient, squared, rms


def slices(layer: int, kind: str, unit: int):
    """Names with rows or columns of one unit: ``(parameter, dimension, first, number)``."""
    base = f'model.layers.{layer}'
    if kind == 'mlp':
        yield f'{base}.mlp.gate_proj.weight', 0, unit, 1
        yield f'{base}.mlp.up_proj.weight', 0, unit, 1
        yield f'{base}.mlp.down_proj.weight', 1, unit, 1
    else:
        yield f'{base}.self_attn.q_proj.weight', 0, QUERIES * HEAD * unit, QUERIES * HEAD
        yield f'{base}.self_attn.k_proj.weight', 0, HEAD * unit, HEAD
        yield f'{base}.self_attn.v_proj.weight', 0, HEAD * unit, HEAD
        yield f'{base}.self_attn.o_proj.weight', 1, QUERIES * HEAD * unit, QUERIES * HEAD


def importance(kind: str, layer: int, what: str, unit: int) -> float:
    weights, gradient, squared, rms = measured()
    total = 0.0
    for name, dim, first, number in slices(layer, what, unit):
        for index in range(first, first + number):
            w, g, h = (table[name].select(dim, index) for table in (weights, gradient, squared))
            if kind == 'taylor':
                total += float((w * g).abs().sum())
            elif kind == 'taylor2':
                total += float((w * g).abs().sum() + (w * w * h).sum() / 2)
            elif dim == 1:
                total += float(w.abs().sum() * rms[name.removesuffix('.weight')][index])
    return total


CRITERIA = {
    'taylor': dict(type='Taylor', order=1),
    'taylor2': dict(type='Taylor', order=2),
    'wanda': dict(type='Wanda'),
}


def rows_of(path) -> list[dict]:
    with open(path, newline='') as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize('kind', CRITERIA)
def test_the_table_agrees_unit_by_unit(kind, tmp_path):
    model = CASE.dense()
    pruner = StructuredPruner(BOTH, CRITERIA[kind], budget=dict(type='params', ratio=0.25))
    plan = pruner.plan(model, lambda _: Batches(batches()), loss=loss_of)
    UnitTable(plan).write_tables(tmp_path)
    table = rows_of(tmp_path / 'global_group_table.csv')
    assert list(table[0]) == ['layer_idx', 'group_type', 'group_idx', 'importance', 'cost', 'score']
    keys = [(int(r['layer_idx']), r['group_type'], int(r['group_idx'])) for r in table]
    assert sorted(keys) == sorted(
        (layer, what, unit)
        for layer in range(LAYERS)
        for what, number in zip(('attention', 'mlp'), UNITS, strict=True)
        for unit in range(number)
    )
    size = sum(p.numel() for p in model.parameters())
    for key, row in zip(keys, table, strict=True):
        expected = importance(kind, *key)
        assert float(row['importance']) == pytest.approx(expected, rel=2e-4)
        assert int(row['cost']) == size - sum(t.numel() for t in without(key).values())
        assert float(row['score']) == pytest.approx(expected / int(row['cost']), rel=2e-4)
    scores = [float(row['score']) for row in table]
    assert scores == sorted(scores)
    check_chosen(plan, table, rows_of(tmp_path / 'groups_to_prune.csv'))


def without(key) -> dict[str, torch.Tensor]:
    """The model's parameters, of which one unit was really deleted."""
    tensors = dict(measured()[0])
    for name, dim, first, number in slices(*key):
        w = tensors[name]
        parts = (
            w.narrow(dim, 0, first),
            w.narrow(dim, first + number, w.shape[dim] - first - number),
        )
        tensors[name] = torch.cat(parts, dim)
    return tensors


def check_chosen(plan, table, chosen) -> None:
    """``groups_to_prune.csv`` holds the rows of the removed units, in the table's order."""
    names = {(g.layer_idx, g.kind): g.name for g in plan.groups}
    gone = [
        row
        for row in table
        if int(row['group_idx'])
        not in plan.state.kept[names[int(row['layer_idx']), row['group_type']]].tolist()
    ]
    assert gone and chosen == gone


# Full shapes, on the meta device


def smollm2():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
        num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True,
    )  # fmt: skip
    with torch.device('meta'):
        return LlamaForCausalLM(config)


@pytest.mark.parametrize('ratio', [0.1, 0.25])
@pytest.mark.parametrize('remove_empty_layers', [False, True])
def test_the_budget_is_met_within_a_thousandth(ratio, remove_empty_layers):
    model = smollm2()
    dense = count_params(model)
    assert dense == 134_515_008
    pruner = StructuredPruner(
        BOTH, dict(type='Random'), budget=dict(type='params', ratio=ratio),
        min_keep=0 if remove_empty_layers else 1, remove_empty_layers=remove_empty_layers,
    )  # fmt: skip
    plan = pruner.plan(model)
    cost = {(g.kind, float(c)) for g, c in zip(plan.groups, plan.cost, strict=True)}
    assert cost == {('attention', 294_912), ('mlp', 1_728)}
    removed = 1 - count_params(slim(model, plan.state)) / dense
    assert ratio <= removed < ratio + 2e-5
