"""Lottery tickets of a tiny language model: neurons and GQA groups in the loop."""

import json

import pytest
import torch
from mmengine.config import Config
from tiny_causal import LLAMA

import projects.llm  # noqa: F401
from projects.prune_plugin.checkpoints.model_loading import load_model
from projects.prune_plugin.workflows.train import train


@pytest.mark.parametrize('penalty', [None, dict(type='RSST', strength=30.0)], ids=['hard', 'soft'])
def test_states_of_a_language_model(tmp_path, dataset_cfg, hf_folder, penalty):
    def loader(split: str, windows: int) -> dict:
        return dict(
            batch_size=8,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
            dataset=dataset_cfg(split=split, max_windows=windows, tokenizer=str(hf_folder)),
        )

    cfg = Config(
        dict(
            default_scope='mmengine',
            model=dict(type='HFCausalLM', path=str(hf_folder)),
            train_dataloader=loader('train', 48),
            val_dataloader=loader('valid', 8),
            test_dataloader=loader('valid', 8),
            val_evaluator=dict(type='Perplexity'),
            test_evaluator=dict(type='Perplexity'),
            train_cfg=dict(type='IterativePruneLoop', max_epochs=1),
            val_cfg=dict(),
            test_cfg=dict(),
            optim_wrapper=dict(
                type='OptimWrapper', optimizer=dict(type='SGD', lr=0.03, momentum=0.9)
            ),
            prune_cfg=dict(
                type='StructuredPruner',
                units=[dict(type='AttentionHeads'), dict(type='FFNNeurons')],
                criterion=dict(type='L1'),
                allocator=dict(type='Uniform'),
                budget=dict(type='units', ratio=0.5),
                schedule=dict(type='Geometric', rounds=2, rewind=None if penalty else 'initial'),
                penalty=penalty,
                profile=dict(seconds=0.05),
            ),
            work_dir=str(tmp_path / 'work'),
            experiment_name=tmp_path.name,
        )
    )
    dense = Config(dict(model=dict(cfg.model), default_scope='mmengine'))
    train(cfg, 'none')
    rows = json.loads((tmp_path / 'work' / 'states.json').read_text())
    wanted = LLAMA['intermediate_size'] * LLAMA['num_hidden_layers']
    assert [row['kept']['mlp'] for row in rows][::2] == [[wanted, wanted], [wanted // 2, wanted]]
    left, groups = rows[2]['kept']['attention']
    assert left <= groups / 2
    slim = load_model(dense, str(tmp_path / 'work' / 'state_02.pth')).model
    assert sum(p.numel() for p in slim.parameters()) == rows[2]['params']
    before, after = (rows[2][f'{when}_removal']['ppl/perplexity'] for when in ('before', 'after'))
    if penalty is None:
        assert after == pytest.approx(before, rel=1e-5)
    else:
        assert torch.isfinite(torch.tensor([before, after])).all() and before != after
