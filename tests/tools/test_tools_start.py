"""Command lines are parsed and checked before anything slow is imported, and mean what they meant."""

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import DictAction
from tool_runs import CONFIG, ROOT
from torch.distributed import TCPStore

from projects.prune_plugin.checkpoints.checkpoint_file import load_file
from projects.prune_plugin.common import distributed
from projects.prune_plugin.common.errors import UserError
from projects.prune_plugin.common.fileio import output_directory
from projects.prune_plugin.common.launchers import LAUNCHER_VARIABLES, STARTED_BY
from projects.prune_plugin.workflows import cli, compare
from projects.prune_plugin.workflows.reports import read_scores

PRUNE = 'analysis_struct'
#: Runs a tool as a shell would, and prints what it has imported.
PROBE = """
import runpy, sys
tool, sys.argv = sys.argv[1], sys.argv[1:]
sys.path[0] = tool.rpartition('/')[0]
try:
    runpy.run_path(tool, run_name='__main__')
finally:
    heavy = {'torch', 'mmengine', 'numpy', 'projects'} & sys.modules.keys()
    print('imported:', *sorted(heavy), file=sys.stderr)
"""
#: Tools and words that they need beside what is wrong.
CALLS = {
    PRUNE: '{config}',
    'analysis_tools/analysis_struct': '{config}',
    'train': '{config}',
    'test': '{config}',
    'compare': '{config} {file}',
    'latency_table': '{config} --output-dir {out}',
    'generate': '{config}',
    'visualize': '{config} --gt-only --out {out}',
    'create_data': 'toy --out {out}',
    'publish_model': '{file} {folder}/out.pth',
    'demo': '',
    'demo_deploy': '',
    'demo_llm': '',
    'demo_vit': '',
}
MISTAKES = [
    (PRUNE, '{folder}/gone.py', 'config {folder}/gone.py does not exist; give a .py config file'),
    ('train', '{folder}/gone.py', 'config {folder}/gone.py does not exist'),
    ('compare', '{folder}/gone.py {file}', 'config {folder}/gone.py does not exist'),
    ('generate', '{folder}/gone.py', 'config {folder}/gone.py does not exist'),
    ('visualize', '{folder}/gone.py --gt-only --out {out}', 'config {folder}/gone.py does not'),
    ('analysis_tools/analysis_struct', '{config} {folder}/gone.pth', 'gone.pth does not exist'),
    (PRUNE, '{config} {folder}', 'checkpoint {folder} is a directory; give a .pth file'),
    (PRUNE, '{config} {folder}/gone.pth', 'gone.pth does not exist; give a .pth file'),
    ('test', '{config} {folder}/gone.pth', 'checkpoint {folder}/gone.pth does not exist'),
    ('compare', '{config} {file} {folder}/gone.pth', 'checkpoint {folder}/gone.pth does not exist'),
    ('generate', '{config} {folder}/gone.pth', 'checkpoint {folder}/gone.pth does not exist'),
    ('visualize', '{config} {folder}/gone.pth --out {out}', 'gone.pth does not exist'),
    ('train', '{config} --load-from {folder}/gone.pth', 'load_from {folder}/gone.pth does not'),
    ('train', '{config} --resume {folder}/gone.pth', '--resume {folder}/gone.pth does not exist'),
    ('visualize', '{config} --out {out} --frame {folder}/none', 'none does not exist; name a folder'),
    (PRUNE, '{config} --pruning-ratio 2', "'2' is not a number in (0, 1)"),
    (PRUNE, '{config} --retrain', '--retrain goes with --fine-tune'),
    (PRUNE, '{config} --cfg-options depth', "'depth' is not of the form key=value"),
    (PRUNE, '{config} --cfg-options a=[1,2', "'a=[1,2' has brackets without a counterpart"),
    (PRUNE, '{config} --cfg-options a=[(1]', "'a=[(1]' has brackets without a counterpart"),
    (PRUNE, '{config} --launcher pytorch', 'needs the environment variable RANK'),
    (PRUNE, '{config} --gpu-ids -1', "'-1' is not the number of a GPU, 0 or more"),
    (PRUNE, '{config} --gpu-ids 0 1 0', '--gpu-ids names GPU 0 twice; name each once'),
    (PRUNE, '{config} --output-dir {file}', '--output-dir {file} cannot be written (File exists)'),
    (PRUNE, '{config} --output-dir {file}/a/b', '{file}/a/b cannot be written (Not a directory)'),
    (PRUNE, '{config} --output-dir {out} --save-table {folder}/none/a.csv',
     '--save-table {folder}/none/a.csv cannot be written: No such file or directory'),
    (PRUNE, '{config} --output-dir {out} --save-table {file}/a.csv', 'cannot be written: Not a'),
    (PRUNE, '{config} --dry-run --save-table {config}', '--save-table {config} is a file that is no'),
    (PRUNE, '{config} --output-dir {out} --save-table {folder}',
     '--save-table {folder} cannot be written: Is a directory; name a file'),
    (PRUNE, '{config} --output-dir /proc/out', '--output-dir /proc/out cannot be written ('),
    (PRUNE, '{config} --from-table {folder}/none.csv', 'none.csv cannot be read: No such file'),
    (PRUNE, '{config} --save-hf {folder}', '--save-hf {folder} already exists'),
    ('train', '{config} --work-dir {file}', '--work-dir {file} cannot be written'),
    ('train', '{config} --save-onnx {out}', 'must be a file that ends in .onnx'),
    ('test', '{config} --save-exported {file}/a.pt2', '--save-exported {file}/a.pt2 cannot be'),
    ('compare', '{config} {file} --labels a b', '--labels has 2 names for 1 checkpoints'),
    ('latency_table', '{config} --output-dir {file}', '--output-dir {file} cannot be written'),
    ('latency_table', '{config} --output-dir {out} --points 1', '--points is 1; at least 2 are'),
    ('compare', '{config} {file} --out {file}', '--out {file} cannot be written'),
    ('visualize', '{config} --gt-only --out {file}', '--out {file} cannot be written'),
    ('publish_model', '{folder}/a.pth {folder}/b.pth', 'a.pth does not exist; name a .pth file'),
    ('publish_model', '{file} {folder}/b.txt', 'out {folder}/b.txt must be a .pth file in a'),
    ('create_data', 'toy --out {out} --frames 0', "--frames: '0' is not a whole number from 2 to 40"),
    ('create_data', 'toy --out {out} --scenes 11', "--scenes: '11' is not a whole number from 1 to 10"),
    ('create_data', 'nuscenes --root-path {folder} --canbus {folder}/none --version v1.0-mini',
     '--canbus {folder}/none does not exist; name the folder that holds can_bus'),
    ('create_data', 'nuscenes --root-path {folder}/none --canbus c --version v1.0-mini',
     '{folder}/none/v1.0-mini does not exist; unpack the metadata'),
    ('create_data', 'wikitext2 --out {out} --source {folder}/none', 'none has no wiki.valid.raw'),
    ('create_data', 'wikitext2 --out {file}', '--out {file} cannot be written'),
    ('demo_vit', '--folder {file}', '--folder {file} cannot be written'),
]  # fmt: skip


@pytest.fixture
def names(tmp_path) -> dict[str, Path | str]:
    """What words may hold in braces."""
    file = tmp_path / 'file'
    file.touch()
    return dict(config=CONFIG, folder=tmp_path, file=file, out=tmp_path / 'out')


def probe(tool: str, line: str, names: dict) -> tuple[int, str, list[str]]:
    """How a tool of its own process ends: exit code, output, and lines of standard error."""
    words = [word.format(**names) for word in line.split()]
    path = str(ROOT / f'tools/{tool}.py')
    ended = subprocess.run(
        [sys.executable, '-c', PROBE, path, *words], capture_output=True, text=True, timeout=60
    )
    return ended.returncode, ended.stdout, ended.stderr.splitlines()


@pytest.mark.parametrize('tool', CALLS)
def test_help_imports_nothing_slow(tool, names):
    code, out, errors = probe(tool, '--help', names)
    assert (code, errors) == (0, ['imported:']) and out.startswith('usage: ')


@pytest.mark.parametrize('tool', CALLS)
def test_an_unknown_flag_imports_nothing_slow(tool, names):
    code, out, errors = probe(tool, f'{CALLS[tool]} --fats', names)
    said = 'error: unrecognized arguments: --fats'
    assert (code, out, errors) == (2, '', [said, 'imported:'])


@pytest.mark.parametrize('row', MISTAKES, ids=lambda row: f'{row[0]} {row[1]}')
def test_mistakes_import_nothing_slow_and_leave_nothing(row, names, tmp_path):
    tool, line, said = row
    code, out, errors = probe(tool, line, names)
    assert (code, out) == (2, ''), errors
    assert len(errors) == 2 and errors[1] == 'imported:'
    assert errors[0].startswith('error: ') and said.format(**names) in errors[0]
    assert list(tmp_path.iterdir()) == [names['file']]


def test_results_replace_no_checkpoint_that_they_are_made_from(names, tmp_path):
    checkpoint = tmp_path / 'vit_structured_pruned.pth'
    checkpoint.touch()
    line = '{config} {folder}/vit_structured_pruned.pth --output-dir {folder}/./'
    code, _, errors = probe(PRUNE, line, names)
    assert code == 2 and 'holds the checkpoint vit_structured_pruned.pth that is' in errors[0]
    code, _, errors = probe(PRUNE, f'{line} --dry-run --bad', names)
    assert 'unrecognized' in errors[0], 'a dry run replaces nothing'


# The same sentences as where files are read and written


def load_tool(name: str):
    """A tool as a module."""
    spec = importlib.util.spec_from_file_location(f'tool_{name}', ROOT / f'tools/{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def refusal(capsys, tool: str, *words: object) -> str:
    """The sentence that a tool's command line ends with."""
    with pytest.raises(SystemExit) as left:
        load_tool(tool).parse(list(map(str, words)))
    assert left.value.code == 2
    return capsys.readouterr().err.removeprefix('error: ').removesuffix('\n')


@pytest.mark.parametrize(
    'words, deeper',
    [
        (('gone.py',), lambda: cli.read_config('gone.py')),
        ((CONFIG, 'gone.pth'), lambda: load_file('gone.pth')),
        ((CONFIG, '.'), lambda: load_file('.')),
        ((CONFIG, '--launcher', 'mpi'), lambda: distributed.init('mpi')),
        ((CONFIG, '--from-table', 'gone.csv'), lambda: read_scores('gone.csv', [])),
        ((CONFIG, '--output-dir', 'file'), lambda: output_directory('file').__enter__()),
        ((CONFIG, '--output-dir', 'file/a'), lambda: output_directory('file/a').__enter__()),
        ((CONFIG, '--output-dir', 'file/a/b'), lambda: output_directory('file/a/b').__enter__()),
    ],
    ids=lambda words: ' '.join(words[-2:]) if isinstance(words, tuple) else '',
)
def test_sentences_are_those_of_the_deeper_checks(words, deeper, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'file').touch()
    with pytest.raises(UserError) as error:
        deeper()
    assert refusal(capsys, PRUNE, *words) == str(error.value)


@pytest.mark.parametrize('labels', [['a'], ['a', 'b', 'c'], ['a', ' '], ['a', 'a']])
def test_labels_are_refused_as_by_the_comparison(labels, capsys):
    with pytest.raises(UserError) as error:
        compare.row_labels(['x.pth', 'y.pth'], labels)
    said = refusal(capsys, 'compare', CONFIG, 'x.pth', 'y.pth', '--labels', *labels)
    assert said == str(error.value)


def test_launchers_are_those_that_can_be_started_by():
    arguments = sys.modules[load_tool(PRUNE).Parser.__module__]
    assert {'none': (), **LAUNCHER_VARIABLES} == arguments.LAUNCHERS
    assert arguments.STARTED_BY == STARTED_BY


# What is let through


def test_tables_may_lie_in_the_output_directory_that_is_not_there_yet(tmp_path):
    parse = load_tool(PRUNE).parse
    for out in ('out', 'out/below'):
        words = [
            CONFIG,
            '--output-dir',
            f'{tmp_path}/{out}',
            '--save-table',
            f'{tmp_path}/out/a.csv',
        ]
        assert parse(words).save_table == f'{tmp_path}/out/a.csv'
        with pytest.raises(SystemExit):  # a dry run makes no directory
            parse([*words, '--dry-run'])
    assert not list(tmp_path.iterdir())


def test_dry_runs_need_no_output_directory(names):
    parse = load_tool(PRUNE).parse
    for flag in ('--dry-run', '--meta'):
        assert parse([CONFIG, flag]).output_dir == './pruned_models'
    parse([CONFIG, '--dry-run', '--output-dir', str(names['file'])])
    with pytest.raises(SystemExit):  # with a directory it writes the plan
        parse([CONFIG, '--meta', '--output-dir', str(names['file'])])


def test_checkpoints_that_are_no_files_of_this_machine():
    parse = load_tool('train').parse
    assert parse([CONFIG, '--load-from', 'torchvision://resnet50']).load_from
    assert parse([CONFIG, '--load-from', 'gone.pth', '--resume']).load_from
    load_tool('visualize').parse([CONFIG, 'gone.pth', '--gt-only', '--out', 'out'])


def test_every_rank_speaks(capsys, monkeypatch):
    """Nothing shows here that the others are wrong, too."""
    for name, value, rank in (
        ('RANK', 'zero', ''),
        ('RANK', '0', ''),
        ('SLURM_PROCID', '2', 'rank 2: '),
        ('RANK', '1', 'rank 1: '),
    ):
        monkeypatch.setenv(name, value)
        assert refusal(capsys, PRUNE, 'gone.py').startswith(f'{rank}config gone.py does not exist')


def test_under_torchrun_ranks_say_the_same_once(capsys, monkeypatch):
    store = TCPStore('127.0.0.1', 0, is_master=True)
    monkeypatch.setenv('TORCHELASTIC_USE_AGENT_STORE', 'True')
    monkeypatch.setenv('MASTER_ADDR', '127.0.0.1')
    monkeypatch.setenv('MASTER_PORT', str(store.port))
    said = []
    for rank, path in (('0', 'gone.py'), ('1', 'gone.py'), ('2', 'lost.py')):
        monkeypatch.setenv('RANK', rank)
        said.append(refusal(capsys, PRUNE, path).partition(' does')[0])
    assert said == ['config gone.py', '', 'rank 2: config lost.py']


@pytest.mark.parametrize(
    'words',
    [
        'a=1 b=1.5 c=1e-3 d=true e=False f=None g=text h= i=='.split(),
        'a=1,2,3 b=[1,2] c=(1,2) d=[(1,2),(a,b)] e=[] f=() g=[1] h=(1,) i=[1'.split(),
        ['a="x"', "b='y'", 'c="[1,\'2\']"', 'd=[x, True, None, 2.0]', "e='1, 2'", 'f= a b ', '=1'],
        'a.b=1 a.b=2 a=x'.split(),
        'a=1 --cfg-options b=2 a=3'.split(),
    ],
)
def test_options_are_read_as_mmengine_reads_them(words):
    theirs = argparse.ArgumentParser()
    theirs.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    expected = theirs.parse_args(['--cfg-options', *words]).cfg_options
    args = load_tool(PRUNE).parse([CONFIG, '--cfg-options', *words])
    found = cli.parse_cfg_options(args.cfg_options)
    assert list(found.items()) == list(expected.items())
    assert list(map(repr, found.values())) == list(map(repr, expected.values()))


def test_no_options_leave_the_config_as_it_is():
    args = load_tool('test').parse([CONFIG])
    assert args.cfg_options == () and cli.parse_cfg_options(args.cfg_options) == {}
