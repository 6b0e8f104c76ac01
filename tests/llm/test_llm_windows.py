"""``TokenWindows``: where the text comes from, how it is cut, and what is refused."""

import gzip
import json
import random

import pytest
import torch
from mmengine.registry import DATASETS

from projects.llm.datasets import text as text_module
from projects.llm.models import load_tokenizer
from projects.prune_plugin.common.errors import DataNotFoundError, UserError


@pytest.fixture
def windows(dataset_cfg):
    def build(**kwargs):
        return DATASETS.build(dataset_cfg(**kwargs))

    return build


@pytest.fixture
def tokens_of(tokenizer_folder):
    def encode(text: str) -> torch.Tensor:
        ids = load_tokenizer(str(tokenizer_folder))(text, add_special_tokens=False)['input_ids']
        return torch.tensor(ids)

    return encode


def test_consecutive_windows(windows, tokens_of, text_root):
    data = windows(split='valid')
    tokens = tokens_of((text_root / 'valid.txt').read_text())
    assert len(data) == len(tokens) // 16
    for i in (0, 3, len(data) - 1):
        assert torch.equal(data[i]['inputs'], tokens[i * 16 : (i + 1) * 16])
        assert data[i]['scored'] == 15
    assert torch.equal(data[-1]['inputs'], data[len(data) - 1]['inputs'])
    assert data.metainfo == dict(window=16, stride=16, text_tokens=len(tokens))
    assert len(windows(split='valid', max_windows=4)) == 4
    data[0]['inputs'].zero_()
    assert torch.equal(data[0]['inputs'], tokens[:16])


@pytest.mark.parametrize('stride', [1, 5, 15])
def test_stride_counts_each_token_once(windows, stride):
    data = windows(stride=stride, max_windows=20)
    counted = []
    for i in range(len(data)):
        item = data[i]
        end = i * stride + 16
        assert torch.equal(item['inputs'], data.tokens[end - 16 : end])
        counted += range(end - item['scored'], end)
    assert counted == list(range(1, 19 * stride + 16))


def test_random_starts_are_those_of_sparsegpt(windows):
    data = windows(split='train', starts='random', num_windows=7, seed=3)
    draw = random.Random(3)
    for i in range(7):
        start = draw.randint(0, len(data.tokens) - 16 - 1)
        assert torch.equal(data[i]['inputs'], data.tokens[start : start + 16])
    assert len(data) == 7


def test_lines_are_rows_as_on_the_hub(windows, tokens_of, tmp_path):
    (tmp_path / 'a.raw').write_text(' \n = Title = \n \n Some text . \n', encoding='utf-8')
    source = dict(files='a.raw', rows='lines')
    data = windows(source=source, data_root=str(tmp_path), window=8)
    assert torch.equal(data.tokens, tokens_of('\n\n = Title = \n\n\n\n\n Some text . \n'))


def test_forms_of_local_files(windows, tokens_of, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = ['the first row of words', 'another one, the second']
    expected = tokens_of('\n\n'.join(rows))
    folder = tmp_path / 'folder'
    (folder / 'deep').mkdir(parents=True)
    (folder / 'a.txt').write_text(rows[0])
    (folder / 'deep' / 'b.txt').write_text(rows[1])
    (folder / '.hidden').write_text('no')
    lines = '\n'.join(json.dumps({'body': row}) for row in rows)
    (tmp_path / 'rows.jsonl').write_text(lines)
    with gzip.open(tmp_path / 'rows.json.gz', 'wt') as file:
        file.write(lines)
    pq.write_table(pa.table({'body': rows}), tmp_path / 'rows.parquet')
    for source in (
        dict(files='folder'),
        dict(files=str(folder)),
        dict(files=['folder/a.txt', 'folder/deep/*.txt']),
        dict(files='rows.jsonl', column='body'),
        dict(files='rows.json.gz', column='body'),
        dict(files=dict(test='rows.par*'), column='body'),
    ):
        data = windows(source=source, data_root=str(tmp_path), window=4)
        assert torch.equal(data.tokens, expected), source
    one = windows(
        source=dict(files='rows.jsonl', column='body'),
        data_root=str(tmp_path),
        window=4,
        max_rows=1,
    )
    assert torch.equal(one.tokens, tokens_of(rows[0]))


def test_a_changed_file_is_read_again(windows, tmp_path):
    file = tmp_path / 'a.txt'
    file.write_text('one two three four')
    first = windows(source=dict(files=str(file)), window=4)
    file.write_text('five six seven eight nine ten eleven')
    second = windows(source=dict(files=str(file)), window=4)
    assert not torch.equal(first.tokens[:8], second.tokens[:8])


def test_pydoc_is_always_there(windows):
    data = windows(source='pydoc', max_rows=3)
    assert len(data.tokens) > 1000


def test_special_tokens_on_request(windows, tokenizer_folder):
    plain, marked = windows(), windows(add_special_tokens=True)
    tokenizer = load_tokenizer(str(tokenizer_folder))
    expected = tokenizer('a')['input_ids'][0] == tokenizer.bos_token_id
    assert (int(marked.tokens[0]) == tokenizer.bos_token_id) == expected
    assert len(marked.tokens) >= len(plain.tokens)


class Table(list):
    """As much of a ``datasets.Dataset`` as is used."""

    column_names = ['text']

    def take(self, number: int) -> list:
        return self[:number]


@pytest.fixture
def hub(monkeypatch):
    """A hub with one data set; the calls that asked for it."""
    datasets = pytest.importorskip('datasets')
    import huggingface_hub

    calls = []

    def load(path, name, **kwargs):
        calls.append((path, name, kwargs))
        return Table([{'text': 'word ' * 20}, {'text': 'more ' * 20}])

    monkeypatch.setattr(datasets, 'load_dataset', load)
    monkeypatch.setattr(huggingface_hub.HfApi, 'dataset_info', lambda *args, **kwargs: None)
    return calls


def test_the_hub_comes_second(windows, hub, tokens_of, text_root):
    source = dict(files='gone.txt', hub=dict(path='some/text', name='raw'))
    data = windows(source=source, split='valid')
    assert torch.equal(data.tokens, tokens_of('word ' * 20 + '\n\n' + 'more ' * 20))
    windows(source=dict(hub=dict(path='c/4', data_files=dict(test='en/t.gz'))), max_rows=1)
    assert hub == [
        ('some/text', 'raw', dict(split='validation', data_files=None, streaming=False)),
        ('c/4', None, dict(split='train', data_files='en/t.gz', streaming=True)),
    ]
    windows(source=dict(source, files='valid.txt'))
    assert len(hub) == 2
    with pytest.raises(UserError, match="column='body': some/text has the columns text"):
        windows(source=dict(source, column='body'))


def test_no_network_is_said_at_once(windows, monkeypatch):
    import huggingface_hub

    def refuse(self, *args, **kwargs):
        assert kwargs['timeout'] == text_module.HUB_TIMEOUT
        raise ConnectionError('Name or service not known')

    monkeypatch.setattr(huggingface_hub.HfApi, 'dataset_info', refuse)
    source = dict(files='gone.txt', hub=dict(path='nobody/nothing'))
    with pytest.raises(DataNotFoundError, match="'gone.txt' is not in .*'nobody/nothing' cannot"):
        windows(source=source)


def test_missing_files(windows, tmp_path):
    with pytest.raises(DataNotFoundError, match='there is no such file for the split'):
        windows(source=dict(files='gone.txt'))
    with pytest.raises(DataNotFoundError, match='there is no such file for the split .train'):
        windows(source=dict(files=dict(test='test.txt')), split='train')
    with pytest.raises(DataNotFoundError, match='gone.txt is not in'):
        windows(source=dict(files=['test.txt', 'gone.txt']))


def test_too_short_a_text(windows, tmp_path):
    (tmp_path / 'short.txt').write_text('a b c')
    source = dict(files=str(tmp_path / 'short.txt'))
    with pytest.raises(UserError, match='has 4 tokens, and a window of 16 needs 16'):
        windows(source=source)
    with pytest.raises(UserError, match='has 4 tokens, and a window of 4 needs 5'):
        windows(source=source, window=4, starts='random', num_windows=2)
    assert len(windows(source=source, window=4)) == 1


def test_a_window_beyond_the_model_beside_the_tokenizer(windows, hf_folder):
    with pytest.raises(UserError, match='window=65 is longer than the 64 tokens'):
        windows(tokenizer=str(hf_folder), window=65)


def test_what_is_refused(windows, tmp_path):
    (tmp_path / 'latin.txt').write_bytes(b'\xff\xfe\xfa')
    (tmp_path / 'rows.jsonl').write_text('{"text": "a"}\n{"body": "b"}\n')
    (tmp_path / 'not').mkdir()
    cases = {
        'window=1 must be': dict(window=1),
        'stride=17 must be an integer from 1 to window=16': dict(stride=17),
        'stride=0 must be': dict(stride=0),
        'max_windows=0 must be': dict(max_windows=0),
        "starts='none' is unknown": dict(starts='none'),
        'needs num_windows': dict(starts='random'),
        'takes no stride': dict(starts='random', num_windows=2, stride=4),
        'num_windows goes with': dict(num_windows=2),
        "split='val' is unknown; valid are train, valid, test": dict(split='val'),
        "source='wiki' is not valid": dict(source='wiki'),
        'source={} is not valid': dict(source={}),
        'source.file is not a key': dict(source=dict(file='a', files='b')),
        'source.hub.split_ is not a key': dict(source=dict(hub=dict(path='a', split_='b'))),
        "source.rows='words' is unknown": dict(source=dict(files='a', rows='words')),
        "cannot be read as rows of UTF-8 text": dict(source=dict(files=str(tmp_path / 'latin.txt'))),
        "of column 'text': KeyError": dict(source=dict(files=str(tmp_path / 'rows.jsonl'))),
        "'nowhere/at/all' does not exist": dict(tokenizer='nowhere/at/all'),
        r'has no tokenizer\*': dict(tokenizer=str(tmp_path / 'not')),
    }  # fmt: skip
    for message, kwargs in cases.items():
        with pytest.raises(UserError, match=message):
            windows(**kwargs)


def test_a_folder_whose_tokenizer_cannot_be_read(windows, tmp_path):
    (tmp_path / 'tokenizer.json').write_text('{"version": 1}')
    with pytest.raises(UserError, match='holds no tokenizer that transformers can read'):
        windows(tokenizer=str(tmp_path))
