"""Checkpoints that are damaged, or that try to do something."""

import os
import pickle
import warnings

import numpy as np
import pytest
import torch
from fault_table import fault
from faulty_tools import CONFIG, SMALL, content

from projects.prune_plugin.checkpoints.checkpoint_file import load_file
from projects.prune_plugin.common.errors import UserError

KIND = 'Damaged checkpoints'


@pytest.fixture
def small(tmp_path):
    """A checkpoint of 2 KB."""
    data = dict(meta=dict(epoch=3), state_dict=dict(w=torch.randn(4, 4), b=torch.arange(3)))
    torch.save(data, tmp_path / 'small.pth')
    return tmp_path / 'small.pth'


def refused_or_equal(path, data: bytes, expected) -> bool:
    """Whether a file with these bytes is refused; if it isn't, it must hold what it held."""
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of PyTorch's, about the damage
        try:
            load_file(path)
        except UserError as error:
            assert str(path) in str(error) and '\n' not in str(error)
            return True
        assert content(path) == expected
    return False


def check_flips(small, bits) -> None:
    data, expected = small.read_bytes(), content(small)
    load_file(small)
    refused = 0
    for bit in bits(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        refused += refused_or_equal(small, damaged, expected)
    assert refused > 0


@fault(
    KIND,
    'one bit flipped',
    'every 37th bit of a file',
    'refused in a sentence, or what is read is what was '
    'saved: PyTorch compares no checksums, so they are compared here',
)
def test_flipped_bits(small):
    """37 has no factor in common with 8: all bits of a byte have their turn."""
    check_flips(small, lambda size: range(0, size, 37))


@pytest.mark.faults
@fault(KIND, 'one bit flipped', 'each single bit of a file', 'as above')
def test_every_flipped_bit(small):
    check_flips(small, range)


@fault(
    KIND,
    'one bit of the weights flipped',
    'one bit of a weight in a training checkpoint, given to each tool',
    'exit code 2; the sentence names the file and the part that does not fit its checksum',
)
def test_tools_refuse_flipped_bits(tool, dense, tmp_path):
    path, data = tmp_path / 'flipped.pth', bytearray(dense.read_bytes())
    place = data.index(load_file(dense)['state_dict']['backbone.head.weight'].numpy().tobytes())
    data[place + 5] ^= 8
    path.write_bytes(data)
    options = ('--cfg-options', *SMALL)
    arguments = {
        'analysis_struct': (CONFIG, path, '--output-dir', tmp_path / 'out'),
        'test': (CONFIG, path, '--work-dir', tmp_path / 'out'),
        'train': (CONFIG, '--load-from', path, '--work-dir', tmp_path / 'out'),
    }
    for name, flags in arguments.items():
        ended = tool(name, *flags, *options)
        ended.refused('flipped.pth is truncated or damaged', 'does not fit its checksum')
        assert not (tmp_path / 'out').exists()


@fault(
    KIND, 'several bytes changed', 'random places, 300 files', 'refused in a sentence, or harmless'
)
def test_random_damage(small):
    rng, data, expected = np.random.default_rng(0), small.read_bytes(), content(small)
    for _ in range(300):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), rng.integers(1, 8)):
            damaged[place] = int(rng.integers(0, 256))
        refused_or_equal(small, damaged, expected)


@fault(
    KIND,
    'cut off',
    'every seventh length of a file, and all but one byte',
    'refused in a sentence',
)
def test_truncated(small):
    data, expected = small.read_bytes(), content(small)
    for length in range(0, len(data), 7):
        assert refused_or_equal(small, data[:length], expected), length
    assert refused_or_equal(small, data[:-1], expected)


@fault(
    KIND,
    'the newest training checkpoint is damaged',
    'one bit flipped in `epoch_2.pth`, then `--resume`',
    'a word in the log, and it goes on from `epoch_1.pth` to the same end',
)
def test_resume_takes_an_older_one(tool, tmp_path):
    options = ('--cfg-options', *SMALL, 'train_cfg.max_epochs=2')
    tool('train', CONFIG, '--work-dir', tmp_path, *options, code=0)
    newest, expected = tmp_path / 'epoch_2.pth', content(tmp_path / 'epoch_2.pth')
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    ended = tool('train', CONFIG, '--work-dir', tmp_path, '--resume', *options, code=0)
    assert 'an older one is used' in ended.out and 'resumed epoch: 1' in ended.out
    assert content(newest) == expected


class Evil:
    """Runs a command as it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@fault(
    KIND,
    'tries to run code',
    "a pickle of `os.system('touch ...')`, in PyTorch's format and bare; `eval`",
    'exit code 2; the sentence names the function; nothing is run',
)
def test_code_in_a_checkpoint(tool, tmp_path):
    trace, options = tmp_path / 'trace', ('--cfg-options', *SMALL)
    evil = Evil(os.system, f'touch {trace}')
    torch.save(dict(state_dict=dict(w=torch.ones(2)), meta=evil), tmp_path / 'zip.pth')
    (tmp_path / 'bare.pth').write_bytes(pickle.dumps(evil))
    (tmp_path / 'eval.pth').write_bytes(pickle.dumps(Evil(eval, f'open({str(trace)!r}, "w")')))
    for name, word in (('zip', 'posix.system'), ('bare', 'bare.pth'), ('eval', 'eval.pth')):
        path = tmp_path / f'{name}.pth'
        ended = tool('analysis_struct', CONFIG, path, '--output-dir', tmp_path / 'out', *options)
        ended.refused(f'{name}.pth cannot be loaded', word)
        folder = tmp_path / f'work_{name}'  # as a training's newest checkpoint, too
        folder.mkdir()
        (folder / 'epoch_1.pth').write_bytes(path.read_bytes())
        ended = tool(
            'train', CONFIG, '--work-dir', folder, '--resume', folder / 'epoch_1.pth', *options
        )
        ended.refused('epoch_1.pth cannot be loaded')
    assert not trace.exists() and not (tmp_path / 'out').exists()


@fault(KIND, 'NaN weights', 'one NaN in one bias', 'exit code 2; the sentence names the tensor')
def test_nan_weights(tool, dense, tmp_path):
    checkpoint = torch.load(dense, weights_only=False)
    checkpoint['state_dict']['backbone.blocks.0.mlp.fc1.bias'][7] = torch.nan
    torch.save(checkpoint, tmp_path / 'nan.pth')
    for name, flag in (('analysis_struct', '--output-dir'), ('test', '--work-dir')):
        ended = tool(
            name, CONFIG, tmp_path / 'nan.pth', flag, tmp_path / 'out', '--cfg-options', *SMALL
        )
        ended.refused('nan.pth: backbone.blocks.0.mlp.fc1.bias holds NaN')
    assert not (tmp_path / 'out').exists()
