"""Parameters sharded among two processes over gloo: the same training, the same checkpoints."""

import json
from pathlib import Path

import pytest
import torch
import toy
from mmengine.config import Config
from recovering import LLAMA, config, killed, on_two_ranks, pruned, recovered, same

from projects.prune_plugin import UserError
from projects.prune_plugin.checkpoints.checkpoint_file import load_file, use_safe_loader
from projects.prune_plugin.checkpoints.model_loading import load_model
from projects.prune_plugin.common.settings import read_settings
from projects.prune_plugin.training.config_edits import check_trainable
from projects.prune_plugin.training.runner_building import build_runner
from projects.prune_plugin.training.settings import RecoverySettings
from projects.prune_plugin.training.sharding.fully_shard import block_names, gathered, shard_like

pytest.importorskip('transformers')
import projects.llm  # noqa: E402, F401

BLOCKS = dict(blocks=[r'lm\.model\.layers\.\d+'])
#: What a config has beside the recovery: everything at once.
CLIPPED = dict(clip_grad=dict(max_norm=0.5), accumulative_counts=3)
LORA = dict(r=2, targets=[r'.*(q|down)_proj'], lr=0.05)
DISTILL = dict(targets=None)


def user(kind: str, wrapper: dict | None = None) -> Config:
    return config(toy.MODEL if kind == 'slim' else LLAMA, wrapper)


def trainings(folder: str) -> None:
    """All that two processes do; each training writes its checkpoints into a folder of its own."""
    folder = Path(folder)
    masked, slim = folder / 'masked_pruned.pth', folder / 'toy' / 'slim_pruned.pth'
    teacher = str(folder / 'dense.pth')

    def train(name, path=masked, kind='masked', how=recovered, wrapper=None, **block):
        return how(path, folder / name, cfg=user(kind, wrapper), **block)

    train('ddp', wrapper=CLIPPED)
    train('ddp_distilled', distill=DISTILL, teacher=teacher)
    train('ddp_lora', lora=LORA, distill=DISTILL, teacher=teacher)
    run = train('fsdp', wrapper=CLIPPED, sharding=BLOCKS)
    held = sum(p.to_local().numel() for p in run.model.parameters())
    whole = sum(p.numel() for p in run.model.parameters())
    torch.save([held, whole], folder / f'held_{run.rank}.pth')
    train('fsdp_part', how=killed, wrapper=CLIPPED, sharding=BLOCKS)
    resume = folder / 'fsdp_part' / 'epoch_3.pth'
    train('fsdp_part', wrapper=CLIPPED, sharding=BLOCKS, resume=resume)
    train('ddp_resumes_fsdp', wrapper=CLIPPED, resume=resume)
    train('fsdp_distilled', sharding=BLOCKS, distill=DISTILL, teacher=teacher)
    train('fsdp_lora', sharding=BLOCKS, lora=LORA, distill=DISTILL, teacher=teacher)
    train(
        'fsdp_lora_part', how=killed, sharding=BLOCKS, lora=LORA, distill=DISTILL, teacher=teacher
    )
    resume = folder / 'fsdp_lora_part' / 'epoch_3.pth'
    train('fsdp_lora_part', sharding=BLOCKS, lora=LORA, distill=DISTILL, teacher=teacher,
          resume=resume)  # fmt: skip
    train('fsdp_bf16', sharding=dict(BLOCKS, mixed_precision='bf16'), max_steps=2)
    train('fsdp_slim', slim, 'slim', sharding=dict(blocks=['mlp']))
    train('ddp_slim', slim, 'slim')
    said = [said_without(key, str(folder / key)) for key in ('runner_type', 'model_wrapper_cfg')]
    (folder / f'said_{run.rank}.txt').write_text('\n'.join(said))


def said_without(key: str, work_dir: str) -> str:
    """The error of a config that lacks one half of what sharding needs."""
    cfg = config(
        runner_type='ShardedRunner', launcher='pytorch', work_dir=work_dir, experiment_name=key,
        model_wrapper_cfg=dict(type='FullyShard', blocks=['mlp']),
    )  # fmt: skip
    cfg.pop(key)
    try:
        build_runner(cfg).train()
    except UserError as error:
        return str(error)
    return 'nothing'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Checkpoints of one process and of two."""
    folder = tmp_path_factory.mktemp('sharding')
    (folder / 'toy').mkdir()
    pruned(folder, 'masked', LLAMA)
    pruned(folder / 'toy', 'slim', toy.MODEL)
    on_two_ranks(trainings, str(folder))
    return folder


def last(folder: Path, name: str, epoch: int = 4) -> dict:
    return load_file(folder / name / f'epoch_{epoch}.pth')


@pytest.fixture(scope='module')
def alone(folder):
    """What one process makes of the same global batches."""
    use_safe_loader()
    recovered(folder / 'masked_pruned.pth', folder / 'alone', cfg=user('masked', CLIPPED))
    return last(folder, 'alone')


def assert_close(ours: dict, theirs: dict) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-4, atol=2e-5, msg=name)


@pytest.mark.parametrize('name', ['ddp', 'fsdp'])
def test_two_processes_train_what_one_does(name, folder, alone):
    found = last(folder, name)
    assert_close(found['state_dict'], alone['state_dict'])
    assert found['meta']['epoch'] == 4 and found['meta']['iter'] == alone['meta']['iter'] == 12
    for number, entries in alone['optimizer']['state'].items():
        assert_close(found['optimizer']['state'][number], entries)


@pytest.mark.parametrize(
    'name',
    ['ddp', 'ddp_distilled', 'ddp_lora', 'fsdp', 'fsdp_distilled', 'fsdp_lora', 'fsdp_part',
     'fsdp_bf16'],
)  # fmt: skip
def test_zeros_stay(name, folder):
    start, found = load_file(folder / 'masked_pruned.pth'), last(folder, name)
    assert found['state_dict'].keys() == start['state_dict'].keys()
    assert found['masks'].keys() == start['masks'].keys()
    changed = 0
    for weight in start['masks']:
        before, after = (c['state_dict'][weight] for c in (start, found))
        assert type(after) is torch.Tensor
        assert not after[before == 0].any(), weight
        changed += not torch.equal(before, after)
    assert changed == (4 if 'lora' in name else len(start['masks']))
    cfg = user('masked')
    load_model(cfg, str(folder / name / 'latest.pth'))  # weights_only, every name and shape


def test_each_rank_holds_its_part(folder):
    (first, whole), (second, _) = (torch.load(folder / f'held_{rank}.pth') for rank in range(2))
    assert first + second == whole and 0.4 * whole < first < 0.6 * whole


def test_killed_and_resumed_is_uninterrupted(folder):
    for whole, part in (('fsdp', 'fsdp_part'), ('fsdp_lora', 'fsdp_lora_part')):
        ours, theirs = last(folder, part), last(folder, whole)
        assert same(ours['state_dict'], theirs['state_dict'])
        for number, entries in theirs['optimizer']['state'].items():
            assert same(ours['optimizer']['state'][number], entries)
    assert same(ours['lora']['adapters'], theirs['lora']['adapters'])


def test_others_resume_what_was_sharded(folder, alone):
    assert_close(last(folder, 'ddp_resumes_fsdp')['state_dict'], alone['state_dict'])
    resume = folder / 'fsdp_part' / 'epoch_3.pth'
    recovered(folder / 'masked_pruned.pth', folder / 'alone_resumes', cfg=user('masked', CLIPPED),
              resume=resume)  # fmt: skip
    assert_close(last(folder, 'alone_resumes')['state_dict'], alone['state_dict'])


@pytest.mark.parametrize('name', ['ddp_distilled', 'fsdp_distilled', 'fsdp_lora'])
def test_the_dense_model_teaches(name, folder):
    (log,) = (folder / name).glob('*/vis_data/scalars.json')
    lines = [line for line in map(json.loads, log.read_text().splitlines()) if 'loss' in line]
    losses = [line['loss_distill_logits'] for line in lines]
    assert len(losses) == 6 and min(losses) > 0


@pytest.mark.parametrize('name', ['distilled', 'lora', 'slim'])
def test_sharded_or_not_is_the_same(name, folder):
    ours, theirs = last(folder, f'fsdp_{name}'), last(folder, f'ddp_{name}')
    assert_close(ours['state_dict'], theirs['state_dict'])
    assert ours['meta'].get('prune_state') == theirs['meta'].get('prune_state')
    assert ('prune_state' in ours['meta']) == (name == 'slim')


def test_one_process_needs_no_other(folder):
    """The same config, without ranks."""
    run = recovered(folder / 'masked_pruned.pth', folder / 'one', cfg=user('masked', CLIPPED),
                    sharding=BLOCKS)  # fmt: skip
    assert type(run).__name__ == 'ShardedRunner' and type(run.model).__name__ == 'HFCausalLM'
    assert same(last(folder, 'one')['state_dict'], last(folder, 'alone')['state_dict'])


def test_one_half_of_it_is_refused(folder):
    for rank in range(2):
        without_runner, without_wrapper = (folder / f'said_{rank}.txt').read_text().splitlines()
        assert without_runner.endswith("'FullyShard', which needs runner_type='ShardedRunner'")
        assert "needs model_wrapper_cfg=dict(type='FullyShard'" in without_wrapper


@pytest.mark.parametrize(
    ('sharding', 'message'),
    [
        ('fsdp2', "sharding is 'fsdp2'; it must be a dict such as"),
        (dict(), 'sharding.blocks is None; it must be a non-empty list of regular expressions'),
        (dict(blocks=['a'], block='b'), 'sharding.block is not a key; valid are blocks, mixed'),
        (dict(blocks=['a'], mixed_precision='int8'), "mixed_precision is 'int8'; valid are None"),
    ],
)
def test_bad_keys_are_named(sharding, message):
    with pytest.raises(UserError, match=rf'prune_cfg\.recovery\..*{message}'):
        read_settings(RecoverySettings, dict(sharding=sharding), 'prune_cfg.recovery')


def test_another_runner_is_refused_first():
    cfg = config(runner_type='OwnRunner')
    with pytest.raises(UserError, match="needs the ShardedRunner, but runner_type is 'OwnRunner'"):
        check_trainable(cfg, RecoverySettings(sharding=BLOCKS))
    cfg = config(custom_hooks=[dict(type='EMAHook')])
    with pytest.raises(UserError, match=r"recovery.sharding doesn't go with the EMAHook"):
        check_trainable(cfg, RecoverySettings(sharding=BLOCKS))


def test_blocks_are_whole_names_and_inner_ones_come_first():
    model = torch.nn.ModuleDict({'a': torch.nn.ModuleDict({'b': torch.nn.Linear(1, 1)})})
    assert block_names(model, [r'a(\.b)?']) == ['a.b', 'a']
    with pytest.raises(
        UserError, match="blocks: 'b' matches nothing; whole names of modules here are a.b, a"
    ):
        block_names(model, ['b'])


def test_whole_tensors_stay_as_they_are():
    tensor = torch.ones(2)
    assert shard_like(tensor, tensor) is tensor
    found = gathered({'a': [tensor, 1], 'b': None})
    assert torch.equal(found['a'][0], tensor) and found['a'][1:] == [1] and found['b'] is None
