"""``--save-onnx`` and ``--save-exported`` of the tools: files that compute what the checkpoint does."""

import json
import re
import sys

import numpy as np
import pytest
import torch
from mmengine.config import Config
from tool_runs import CONFIG, ROOT, VAD_CONFIG, options

from projects.prune_plugin.checkpoints.model_loading import load_model

IMAGES = torch.randn(5, 1, 32, 32, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def both(tmp_path):
    """The two flags, with files in a folder that isn't there yet."""
    pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    folder = tmp_path / 'files'
    return '--save-onnx', folder / 'a.onnx', '--save-exported', folder / 'a.pt2'


def logits(checkpoint, flags) -> np.ndarray:
    """Of a checkpoint, by PyTorch."""
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict(dict(item.split('=') for item in flags[1:] if item.startswith('model.')))
    cfg.model.model_kwargs = {k: int(v) for k, v in cfg.model.model_kwargs.items()}
    with torch.no_grad():
        return load_model(cfg, str(checkpoint)).model(IMAGES).numpy()


def check_files(both, checkpoint) -> None:
    """Both files give what the checkpoint's model gives."""
    import onnxruntime

    _, onnx_file, _, exported = both
    expected = logits(checkpoint, options())
    session = onnxruntime.InferenceSession(str(onnx_file))
    (found,) = session.run(None, {'inputs': IMAGES.numpy()})
    atol = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)
    with torch.no_grad():
        found = torch.export.load(exported).module()(inputs=IMAGES).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def test_pruned_models_slim_and_masked(checkpoint, call_tool, both, tmp_path):
    out = tmp_path / 'out'
    ended = call_tool('analysis_struct', CONFIG, checkpoint, '--output-dir', out, '--pruning-ratio',
                      '0.4', *both, *options())  # fmt: skip
    assert ended.code == 0, ended.out
    assert 'onnxruntime differs from PyTorch by' in ended.out
    check_files(both, out / 'vit_structured_pruned.pth')
    for file in both[1::2]:
        file.unlink()
    masked = out / 'vit_pruned.pth'
    ended = call_tool('test', CONFIG, masked, '--work-dir', tmp_path / 'work', *both, *options())
    assert ended.code == 0, ended.out
    check_files(both, masked)


def test_trained_models(call_tool, both, tmp_path):
    few = [item.replace('=256', '=16').replace('=128', '=16') for item in options()]
    ended = call_tool('train', CONFIG, '--work-dir', tmp_path / 'work', *both, *few,
                      'train_cfg.max_epochs=1', 'train_dataloader.batch_size=8')  # fmt: skip
    assert ended.code == 0, ended.out
    check_files(both, tmp_path / 'work/latest.pth')


@pytest.mark.parametrize('tool', ['analysis_struct', 'train', 'test'])
def test_what_cannot_be_written_is_refused_before_any_work(call_tool, tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ['no.pth'] if tool == 'test' else []
    for name in ('file', 'no.pth'):
        (tmp_path / name).touch()
    (tmp_path / 'd.pt2').mkdir()
    there = sorted(tmp_path.iterdir())
    for arguments, said in (
        (['--save-exported', 'a.onnx'], '--save-exported a.onnx must be a file that ends in .pt2'),
        (['--save-exported', 'd.pt2'], '--save-exported d.pt2 is a directory'),
        (['--save-exported', 'file/a.pt2'], '--save-exported file/a.pt2 cannot be written'),
        (['--save-exported', 'a.pt2', '--cfg-options', 'model.type=ImageClsPreprocessor'],
         'ImageClsPreprocessor has no dummy_inputs: set prune_cfg.profile.input_shape'),
    ):  # fmt: skip
        ended = call_tool(tool, CONFIG, *given, *arguments)
        assert ended.code == 2 and said in ended.errors[-1], ended.out
    assert sorted(tmp_path.iterdir()) == there


def test_missing_packages_are_named_with_the_extra(call_tool, tmp_path, monkeypatch):
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / 'no.pth').touch()
    ended = call_tool('test', CONFIG, tmp_path / 'no.pth', '--save-onnx', tmp_path / 'a.onnx')
    assert ended.code == 2 and not (tmp_path / 'a.onnx').exists()
    assert '--save-onnx needs onnx, onnxscript, onnxruntime; install' in ended.errors[-1]
    assert 'pip install -e ".[export]"' in ended.errors[-1]
    assert "'export'" in (ROOT / 'setup.py').read_text()


@pytest.mark.parametrize('flag, file', [('--save-onnx', 'a.onnx'), ('--save-exported', 'a.pt2')])
def test_runs_without_a_model_take_no_such_flag(call_tool, flag, file, tmp_path):
    for other in ('--dry-run', '--sensitivity', '--meta'):
        ended = call_tool('analysis_struct', CONFIG, other, flag, tmp_path / file)
        assert ended.code == 2 and flag in ended.errors[-1]
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope='module')
def files(run_tool, checkpoint, tmp_path_factory):
    """ONNX files of one checkpoint, in 32 and in 8 bits, and what the evaluation before said."""
    for package in ('onnx', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(package)
    folder, ended = tmp_path_factory.mktemp('engines'), []
    for name, more in (('float', ()), ('int8', ('--int8',))):
        ended.append(run_tool('test', CONFIG, checkpoint, '--save-onnx', folder / f'{name}.onnx', *more,
                              '--work-dir', folder / 'work', *options()))  # fmt: skip
    return folder, top1(ended[0])


def top1(ended) -> float:
    return float(re.findall(r'accuracy/top1: ([\d.]+)', ended.out)[-1])


def test_files_are_evaluated_as_checkpoints_are(files, call_tool, tmp_path):
    folder, expected = files
    found = {}
    for name in ('float', 'int8'):
        ended = call_tool(
            'test', CONFIG, folder / f'{name}.onnx', '--work-dir', tmp_path, *options()
        )
        assert ended.code == 0, ended.out
        found[name] = top1(ended)
    assert found['float'] == pytest.approx(expected, abs=1e-3)
    assert found['int8'] == pytest.approx(expected, abs=8)  # of 128 digits
    sizes = [(folder / f'{name}.onnx').stat().st_size for name in found]
    assert sizes[1] < 0.5 * sizes[0]


def test_files_stand_beside_checkpoints(files, checkpoint, call_tool, tmp_path):
    folder, expected = files
    names = [checkpoint, folder / 'float.onnx', folder / 'int8.onnx']
    ended = call_tool('compare', CONFIG, *names, '--out', tmp_path, '--seconds', 0.2, *options())
    assert ended.code == 0, ended.out
    dense, single, eight = json.loads((tmp_path / 'compare.json').read_text())['models']
    assert [row['structure'] for row in (dense, single, eight)] == ['dense', 'onnx', 'onnx']
    assert single['metrics']['accuracy/top1'] == pytest.approx(expected, abs=1e-3)
    assert abs(single['params'] - dense['params']) < 100 and eight['params'] < 1.1 * dense['params']
    assert single['latency_ms'] > 0 and single['flops'] is None
    assert eight['weight_bytes'] < 0.4 * single['weight_bytes']


@pytest.mark.parametrize(
    ('config', 'file', 'more', 'said'),
    [
        (CONFIG, 'noise.onnx', (), 'noise.onnx is no ONNX file'),
        (CONFIG, 'float.onnx', ('model.model_kwargs.in_chans=3',), 'another model'),
        (CONFIG, 'float.onnx', ('model.num_classes=7',), 'where the model gives [(1, 7)]'),
        (VAD_CONFIG, 'float.onnx', (), 'a VAD cannot be evaluated from a .onnx file'),
    ],
)  # fmt: skip
def test_files_that_cannot_be_evaluated(files, call_tool, tmp_path, config, file, more, said):
    folder, _ = files
    (folder / 'noise.onnx').write_bytes(b'noise' * 100)
    words = () if config == VAD_CONFIG else options(*more)
    ended = call_tool('test', config, folder / file, '--work-dir', tmp_path / 'work', *words)
    assert ended.code == 2 and said in ended.out, ended.out


def test_int8_goes_with_onnx_and_data(call_tool, checkpoint, tmp_path):
    out = ('--save-onnx', tmp_path / 'a.onnx', '--int8')
    ended = call_tool('test', CONFIG, checkpoint, *out, *options('train_dataloader=None'))
    assert ended.code == 2 and 'the config has no train_dataloader' in ended.out
