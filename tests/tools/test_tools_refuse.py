"""Bad input: exit code 2, one sentence that names it, and nothing written."""

import numpy as np
import pytest
import torch
from tool_runs import CONFIG, options

PRUNE, TEST, TRAIN = 'analysis_struct', 'test', 'train'


@pytest.fixture
def files(tmp_path, checkpoint):
    """Names that arguments may hold in braces."""
    folder = tmp_path / 'given'
    folder.mkdir()
    data = checkpoint.read_bytes()
    (folder / 'truncated.pth').write_bytes(data[: len(data) // 2])
    (folder / 'noise.pth').write_bytes(np.random.default_rng(0).bytes(3000))
    (folder / 'empty.pth').write_bytes(b'')
    torch.save({'state_dict': {}}, folder / 'nothing.pth')
    torch.save(torch.nn.Linear(3, 3).state_dict(), folder / 'other.pth')
    (folder / 'broken.py').write_text('model = dict(\n')
    (folder / 'crash.py').write_text('x = 1 / 0\n')
    (folder / 'exit.py').write_text('import sys\n\nsys.exit(0)\n')
    (folder / 'import.py').write_text("custom_imports = dict(imports=['no_such_module'])\n")
    (folder / 'modelless.py').write_text('x = 1\n')
    (folder / 'table.csv').write_text('a,b\n1,2\n')
    (folder / 'file').write_text('')
    return dict(folder=folder, ckpt=checkpoint, config=CONFIG, out=tmp_path / 'out')


#: What MMEngine's mixed precision ends with on CPUs.
NO_GPU = "--amp: optim_wrapper.loss_scale is 'dynamic', but there is no GPU"
GOOD = '{config} {ckpt} --output-dir {out}'
ROWS = [
    (PRUNE, f'{GOOD} --pruning-ratio -0.1', (), "--pruning-ratio: '-0.1' is not a number in (0, 1)"),
    (PRUNE, f'{GOOD} --pruning-ratio 1.0', (), "'1.0' is not a number in (0, 1)"),
    (PRUNE, f'{GOOD} --pruning-ratio abc', (), "'abc' is not a number in (0, 1)"),
    (PRUNE, f'{GOOD} --pruning-ratio nan', (), "'nan' is not a number in (0, 1)"),
    (PRUNE, f'{GOOD} --pruning-ratio 0', (),
     "'0' is not a number in (0, 1), the fraction removed, and 0 removes nothing"),
    (PRUNE, f'{GOOD} --pruning-ratio 0.999', (), 'prune_cfg.budget.ratio is 0.999, but with min_keep'),
    (PRUNE, GOOD, ('prune_cfg.ratio=0.3',), 'prune_cfg.ratio is not a key of StructuredPruner'),
    (PRUNE, GOOD, ('prune_cfg.criterion.kind=L1',), 'prune_cfg.criterion.type is None'),
    (PRUNE, GOOD, ('prune_cfg=3',), 'prune_cfg is 3; it must be a dict'),
    (PRUNE, GOOD, ('prune_cfg.include=[layers]',), "prune_cfg.include: 'layers' matches nothing; unit"),
    (PRUNE, GOOD, ('prune_cfg.exclude=[x]',), "prune_cfg.exclude: 'x' matches nothing; unit"),
    (PRUNE, GOOD, ("prune_cfg.include=['(']",), "prune_cfg.include: '(' is no regular expression"),
    (PRUNE, GOOD.replace('{config}', f'{CONFIG[:-3]}_prune50.py'),
     ('prune_cfg.units.5.type=AttentionHeads',),
     '--cfg-options prune_cfg.units.5.type: prune_cfg.units is a list without an entry 5; its entries are'),
    (PRUNE, GOOD, ('prune_cfg.min_keep=-1',), 'prune_cfg.min_keep is -1'),
    (PRUNE, GOOD, ('prune_cfg.profile.input_shape=3',), 'prune_cfg.profile.input_shape is 3'),
    (PRUNE, GOOD, ('prune_cfg.criterion.type=Taylor', 'train_dataloader=None'),
     'Taylor needs calibration data, but the config has no train_dataloader'),
    (PRUNE, '{config} {folder}/gone.pth --output-dir {out}', (), 'gone.pth does not exist'),
    (PRUNE, '{config} {folder}/truncated.pth --output-dir {out}', (), 'truncated.pth'),
    (PRUNE, '{config} {folder}/noise.pth --output-dir {out}', (), 'noise.pth'),
    (PRUNE, '{config} {folder}/empty.pth --output-dir {out}', (), 'empty.pth'),
    (PRUNE, '{config} {folder}/nothing.pth --output-dir {out}', (), 'is not a checkpoint'),
    (PRUNE, '{config} {folder}/other.pth --output-dir {out}', (), 'other.pth belongs to another model'),
    (PRUNE, GOOD, ('model.model_kwargs.depth=3',), 'belongs to another model than the config'),
    (PRUNE, GOOD, ('model.arch=vit_huge',), "model.arch='vit_huge' is not a timm model"),
    (PRUNE, GOOD, ('model.type=TimClassifier',),
     'model.type in {config}: TimClassifier is not in the mmengine::model registry; similar are TimmClass'),
    (PRUNE, GOOD, ('model.pretrain=True',), 'pretrain is not a key of TimmClassifier; valid are arch, '),
    (TEST, '{config} {ckpt} --work-dir {out}', ('test_dataloader.dataset.fold=3',),
     'fold is not a key of '),
    (PRUNE, '{config} {ckpt} --output-dir {folder}/file', (), 'cannot be written'),
    (PRUNE, '{config} {ckpt} --output-dir {folder}/file/below', (), 'cannot be written'),
    (PRUNE, f'{GOOD} --save-table {{folder}}/none/t.csv', (), '--save-table'),
    (PRUNE, f'{GOOD} --from-table {{folder}}/none.csv', (), 'none.csv cannot be read'),
    (PRUNE, f'{GOOD} --from-table {{folder}}/table.csv', (), 'table.csv is not a score table'),
    (PRUNE, f'{GOOD} --retrain', (), '--retrain goes with --fine-tune'),
    (PRUNE, f'{GOOD} --fine-tune --dry-run', (), '--dry-run trains nothing'),
    (PRUNE, f'{GOOD} --fine-tune --fine-tune-epochs 0', (), "'0' is not a whole number of at least 1"),
    (PRUNE, f'{GOOD} --fine-tune', ('optim_wrapper=None',), 'cannot be trained: it needs train_cfg'),
    (PRUNE, f'{GOOD} --fine-tune', ('train_cfg.type=IterBasedTrainLoop', 'train_cfg.by_epoch=False'),
     'recovery trains by epochs'),
    (PRUNE, f'{GOOD} --gpus 0', (), "--gpus: '0' is not a whole number"),
    (PRUNE, f'{GOOD} --launcher rocket', (), 'invalid choice'),
    (PRUNE, f'{GOOD} --launcher pytorch', (), '--launcher pytorch needs the environment variable RANK'),
    (PRUNE, f'{GOOD} --fast', (), 'unrecognized arguments: --fast'),
    (PRUNE, '{folder}/gone.py {ckpt} --output-dir {out}', (), 'gone.py does not exist'),
    (PRUNE, '{folder}/broken.py {ckpt} --output-dir {out}', (), 'broken.py cannot be read'),
    (PRUNE, '{folder}/crash.py {ckpt} --output-dir {out}', None, 'crash.py cannot be read'),
    (PRUNE, '{folder}/import.py {ckpt} --output-dir {out}', None,
     "import.py cannot be read: ModuleNotFoundError: No module named 'no_such_module'"),
    (PRUNE, '{folder}/modelless.py --output-dir {out}', None, 'has no model'),
    (PRUNE, GOOD, ('depth',), "--cfg-options 'depth' is not of the form key=value"),
    (TEST, '{config} {ckpt} --eval speed --work-dir {out}', (), '--eval speed is not a metric'),
    (TEST, '{config} {folder}/gone.pth --work-dir {out}', (), 'gone.pth does not exist'),
    (TEST, '{config} {folder}/truncated.pth --work-dir {out}', (), 'truncated.pth'),
    (TEST, '{config} {folder}/other.pth --work-dir {out}', (), 'belongs to another model'),
    (TEST, '{config} {ckpt} --work-dir {out}', ('test_evaluator=None',), 'has no test_dataloader'),
    (TEST, '{config} {ckpt} --work-dir {folder}/file', (), '--work-dir'),
    (TEST, '{config} --work-dir {out}', (), 'checkpoint is missing: the TimmClassifier of '),
    (TRAIN, '{config} --load-from {folder}/gone.pth --work-dir {out}', (), 'gone.pth does not exist'),
    (TRAIN, '{config} --load-from {folder}/noise.pth --work-dir {out}', (), 'noise.pth'),
    (TRAIN, '{config} --load-from {folder}/other.pth --work-dir {out}', (), 'other.pth'),
    (TRAIN, '{config} --resume {folder}/gone.pth --work-dir {out}', (), 'gone.pth'),
    (TRAIN, '{config} --resume {folder}/noise.pth --work-dir {out}', (), 'noise.pth'),
    (TRAIN, '{config} --load-from {ckpt} --work-dir {out}',
     ('prune_cfg.budget.type=params', 'prune_cfg.budget.ratio=1.0'), 'prune_cfg.budget.ratio is 1.0'),
    (TRAIN, '{config} --load-from {ckpt} --work-dir {out}', ('prune_cfg.min_kept=1',),
     'prune_cfg.min_kept is not a key'),
    (TRAIN, '{config} --work-dir {out}', ('optim_wrapper.optimizer.type=Adamm',),
     "optim_wrapper.optimizer.type is 'Adamm', which is not registered; similar are Adam"),
    (PRUNE, f'{GOOD} --fine-tune', ('optim_wrapper.optimizer.type=Adamm',), "is 'Adamm', which is not"),
    (TRAIN, '{config} --work-dir {out}', ('train_dataloader.sampler.type=Foo',),
     "train_dataloader.sampler.type is 'Foo', which is not registered"),
    (TRAIN, '{config} --work-dir {out}', ('train_dataloader.batch_size=-1',),
     'train_dataloader.batch_size is -1'),
    (TRAIN, '{config} --work-dir {out}', ('train_cfg.max_epochs=abc',), "train_cfg.max_epochs is 'abc'"),
    (TRAIN, '{config} --work-dir {out}', ('train_dataloadr.batch_size=3',),
     'train_dataloadr.batch_size: the config has no train_dataloadr; did you mean train_dataloader?'),
    (PRUNE, GOOD, ('prun_cfg.min_keep=2',), 'the config has no prun_cfg; did you mean prune_cfg?'),
    (PRUNE, GOOD, ('prune_cgf.budget.ratio=0.7',), 'the config has no prune_cgf; did you mean prune_cfg?'),
    (PRUNE, GOOD, ('something.else=1',), 'the config has no something; nothing would read it'),
    (PRUNE, f'{GOOD} --pruning-ratio 0.1', ('prune_cfg.budget.density=0.1',),
     '--pruning-ratio 0.1 is the fraction removed, and prune_cfg.budget.density 0.1 the fraction kept'),
    (PRUNE, '{folder}/exit.py {ckpt} --output-dir {out}', None, 'exit.py ends the program: it calls'),
    (TRAIN, '{config} --resume {folder}/other.pth --work-dir {out}', (),
     'other.pth holds weights alone, and no training to go on with; train them with --load-from'),
    (TRAIN, '{config} --work-dir {out}', ('optim_wrapper.optimizer.lr=abc',), "lr is 'abc'; it must be"),
    (PRUNE, f'{GOOD} --fine-tune', ('optim_wrapper.optimizer.lr=nan',), 'lr is nan; it must be'),
    (PRUNE, f'{GOOD} --fine-tune', ('optim_wrapper.optimizer.lr=None',), 'lr is None; it must be'),
    (PRUNE, f'{GOOD} --fine-tune', ('optim_wrapper.clip_grad=5',), 'optim_wrapper: If `clip_grad` is'),
    (PRUNE, f'{GOOD} --fine-tune', ('optim_wrapper.optimizer.betas=5',), 'optim_wrapper.optimizer: '),
    (PRUNE, f'{GOOD} --fine-tune', ('val_evaluator.type=Nope',), "val_evaluator.type is 'Nope', which"),
    (PRUNE, f'{GOOD} --fine-tune', ('optim_wrapper.type=Nope',), "optim_wrapper.type is 'Nope', which"),
    (PRUNE, f'{GOOD} --fine-tune', ("custom_hooks=[dict(type='Nope')]",), "custom_hooks[0].type is 'Nope'"),
    (PRUNE, f'{GOOD} --fine-tune', ('test_dataloader=None', 'test_evaluator=None'),
     'test_dataloader and test_evaluator missing beside test_cfg; give all three, or none'),
    (PRUNE, f'{GOOD} --fine-tune', ('default_hooks.timer.surplus=1',), 'default_hooks.timer: surplus is'),
    (PRUNE, f'{GOOD} --fine-tune', ('default_hooks.checkpoint.max_keep_ckpts=abc',),
     "default_hooks.checkpoint.max_keep_ckpts is 'abc'; it must be of type int"),
    (PRUNE, f'{GOOD} --fine-tune', ('train_cfg.val_interval=0',), 'train_cfg.val_interval is 0; it must'),
    (PRUNE, f'{GOOD} --fine-tune', ('test_cfg.surplus=0',), 'test_cfg.surplus is not a key of TestLoop'),
    (PRUNE, f'{GOOD} --fine-tune', ('train_cfg.type=Digits',), "train_cfg.type is 'Digits', which is not"),
    (PRUNE, f'{GOOD} --fine-tune', ('optim_wrapper.clip_grad=dict(max_norm=[1])',), 'optim_wrapper: '),
    (PRUNE, f'{GOOD} --fine-tune', ('train_dataloader.collate_fn.surplus=1',), 'train_dataloader: '),
    (PRUNE, f'{GOOD} --fine-tune', ("val_dataloader.dataset=dict(type='CIFAR10',data_root='/nowhere')",),
     "data_root='/nowhere' (it does not exist) holds no"),
    (PRUNE, GOOD, ('test_dataloader.collate_fn=5',), 'test_dataloader.collate_fn is 5; it must be a dict'),
    (PRUNE, GOOD, ('test_dataloader.dataset.type=TestLoop',), 'TestLoop is not in the mmengine::dataset'),
    (PRUNE, GOOD, ('test_dataloader.sampler.type=5',), 'test_dataloader.sampler.type is 5; it must be'),
    (PRUNE, GOOD, ('test_dataloader.num_workers=None',), 'test_dataloader.num_workers is None; it must'),
    (PRUNE, GOOD, ('default_hooks.timer.type=5',), 'default_hooks.timer.type is 5; it must be the name'),
    (PRUNE, GOOD, ('randomness=abc',), "randomness is 'abc'; it must be a dict"),
    (PRUNE, GOOD, ('custom_hooks=[5]',), 'custom_hooks[0] is 5; it must be a dict with a type'),
    (PRUNE, GOOD, ('model=3',), 'model is 3; it must be a dict with a type'),
    (PRUNE, GOOD, ('model.type=None',), 'model has no type'),
    (PRUNE, GOOD, ('param_scheduler=Foo',), "param_scheduler is 'Foo'; it must be a list"),
    (PRUNE, GOOD, ('test_evaluator=7',), 'test_evaluator is 7; it must be a list'),
    (PRUNE, GOOD, ('train_dataloader.num_workers=-1',), 'train_dataloader.num_workers is -1; it must be'),
    (PRUNE, GOOD, ('default_hooks.checkpoint.interval=abc',), "checkpoint.interval is 'abc'; it must be"),
    (PRUNE, GOOD, ('default_hooks.logger.interval=0',), 'default_hooks.logger.interval is 0; it must be'),
    (PRUNE, GOOD, ('randomness.seed=abc',), "randomness.seed is 'abc'; it must be a whole number"),
    (PRUNE, GOOD, ("visualizer=dict(type='Visualizer',vis_backends=[dict(type='WandbVisBackend')])",),
     'WandbVisBackend needs the package wandb, which is not installed'),
    (PRUNE, GOOD, ("prune_cfg.units=[dict(type='AttentionHeads'",), 'cannot be read; write it as in'),
    (PRUNE, GOOD, ("prune_cfg.units=[dict(type=open('x'))]",), 'cannot be read; write it as in a config'),
    (PRUNE, '{config} {ckpt} --output-dir {out}/' + 'x' * 300, (), '(File name too long)'),
    (TRAIN, '{config} --work-dir {folder}/file', (), '--work-dir'),
    (TRAIN, '{config} --amp --work-dir {out}', ('optim_wrapper=None',), 'no optim_wrapper'),
    (TRAIN, '{config} --amp --work-dir {out}', ('optim_wrapper.loss_scale=dynamic',), NO_GPU),
    (PRUNE, f'{GOOD} --fine-tune --amp', ('optim_wrapper.loss_scale=dynamic',), NO_GPU),
    (TRAIN, '{config} --work-dir {out}', ('optim_wrapper.type=AmpOptimWrapper',),
     'optim_wrapper.type is AmpOptimWrapper, which needs a GPU'),
    (PRUNE, f'{GOOD} --fine-tune', ('optim_wrapper.type=AmpOptimWrapper',), 'take OptimWrapper, or'),
    (PRUNE, GOOD, ('env_cfg.dist_cfg.foo=1',), 'foo is not a key of env_cfg.dist_cfg; valid are'),
    (TEST, '{config} {ckpt} --work-dir {out}', ('env_cfg.dist_cfg.backend=xyz',), "is 'xyz'; valid"),
    (TRAIN, '{config} --work-dir {out}', ('env_cfg.dist_cfg.port=abc',), "port is 'abc'; it must be"),
]  # fmt: skip


def name_of(row) -> str:
    tool, args, extra, _ = row
    said = args.replace(GOOD, '').replace('{config} ', '').replace('--work-dir {out}', '')
    return f'{tool} {said} {" ".join(extra or ())}'.replace('--output-dir {out}', '').strip()


@pytest.mark.parametrize('row', ROWS, ids=name_of)
def test_refused(row, files, call_tool, tmp_path, monkeypatch):
    tool, args, extra, message = row
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.chdir(tmp_path)
    for variable in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'):
        monkeypatch.delenv(variable, raising=False)
    before = sorted(tmp_path.rglob('*'))
    words = [word.format(**files) for word in args.split()]
    ended = call_tool(tool, *words, *(() if extra is None else options(*extra)))
    assert ended.code == 2, ended.out
    assert len(ended.errors) == 1, ended.err
    assert ended.errors[0].startswith('error: ')
    assert message.replace('{config}', CONFIG) in ended.errors[0]
    assert sorted(tmp_path.rglob('*')) == before
    assert 'Traceback' not in ended.out


def test_real_processes_refuse_too(files, run_tool, tmp_path):
    """Exit codes and streams as a shell sees them."""
    ended = run_tool(
        PRUNE, CONFIG, files['folder'] / 'truncated.pth', '--output-dir', files['out'], *options(),
        cwd=tmp_path, code=2,
    )  # fmt: skip
    assert len(ended.errors) == 1 and ended.errors[0].startswith('error: checkpoint ')
    assert not files['out'].exists()


def test_two_ranks_refuse_with_one_sentence(files, run_tool, tmp_path):
    ended = run_tool(
        PRUNE, CONFIG, files['ckpt'], '--output-dir', files['out'], '--pruning-ratio', 0.999,
        '--launcher', 'pytorch', *options(), cwd=tmp_path, ranks=2, code=None,
    )  # fmt: skip
    assert ended.code != 0
    ours = [line for line in ended.err.splitlines() if line.startswith('error: ')]
    assert len(ours) == 1 and 'prune_cfg.budget.ratio is 0.999' in ours[0]
    assert not files['out'].exists()


ALONE = dict(RANK='0', WORLD_SIZE='1', LOCAL_RANK='0')


@pytest.mark.parametrize(
    ('variables', 'said'),
    [
        (
            {'RANK': 'zero'},
            "error: the environment variable RANK is 'zero'; --launcher pytorch needs",
        ),
        ({'RANK': '1'}, 'error: rank 1: the environment variable RANK is 1, but WORLD_SIZE is 1'),
        (
            {'MASTER_PORT': '99999'},
            "error: the environment variable MASTER_PORT is '99999'; it must",
        ),
    ],
)
def test_what_the_environment_says_wrong(variables, said, files, call_tool, monkeypatch):
    for name, value in {**ALONE, **variables}.items():
        monkeypatch.setenv(name, value)
    ended = call_tool(
        PRUNE,
        CONFIG,
        files['ckpt'],
        '--output-dir',
        files['out'],
        '--launcher',
        'pytorch',
        *options(),
    )
    assert ended.code == 2 and not files['out'].exists()
    assert len(ended.errors) == 1 and ended.errors[0].startswith(said)


def test_a_rank_names_what_it_alone_cannot_read(files, run_tool, tmp_path):
    """The config of rank 1 names a damaged checkpoint."""
    config = tmp_path / 'by_rank.py'
    config.write_text(
        f"import os\n_base_ = ['{CONFIG}']\n"
        f"load_from = ['{files['ckpt']}', '{files['folder']}/truncated.pth'][int(os.environ['RANK'])]\n"
        'del os\n'
    )
    ended = run_tool(
        TRAIN, config, '--work-dir', files['out'], '--launcher', 'pytorch', *options(), cwd=tmp_path,
        ranks=2, code=None,
    )  # fmt: skip
    ours = [line for line in ended.err.splitlines() if line.startswith('error: rank 1: ')]
    assert ended.code != 0 and len(ours) == 1 and 'truncated.pth' in ours[0], ended.err
