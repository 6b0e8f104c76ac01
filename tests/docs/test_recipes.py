"""The recipes of docs/migration.md, run as they stand, with models and data cut down to seconds."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from test_docs import snippets

ROOT = Path(__file__).resolve().parents[2]
RECIPES = {
    text.partition('.')[0].lstrip('# '): text
    for text in snippets(ROOT / 'docs' / 'migration.md')
    if text.startswith('# ')
}
LETTERS = 'abcdefghijklmnopqrstuvwxyz .'
#: Tiny transformers of the same families.
TINY = dict(
    vocab_size=len(LETTERS) + 1, num_hidden_layers=2, num_attention_heads=4, hidden_size=32,
    max_position_embeddings=64, bos_token_id=0, eos_token_id=0, pad_token_id=0,
)  # fmt: skip
LLAMA = dict(TINY, model_type='llama', intermediate_size=48, num_key_value_heads=2)
OPT = dict(TINY, model_type='opt', ffn_dim=64, word_embed_proj_dim=32, dropout=0.0)
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader', 'calibration_dataloader')


@pytest.fixture
def run(tmp_path, monkeypatch):
    """``run('analysis_struct', edit)``: a recipe in an empty folder, its config edited when read."""
    monkeypatch.chdir(tmp_path)
    read = Config.fromfile

    def make(name: str, edit, replace: str | None = None) -> None:
        def fromfile(path: str) -> Config:
            cfg = read(ROOT / (replace or path))
            edit(cfg)
            return cfg

        monkeypatch.setattr(Config, 'fromfile', fromfile)
        text = RECIPES[name]
        lines = [n for n in text.splitlines() if n and not n.startswith(('#', 'from'))]
        assert len(lines) <= 5
        exec(compile(text, name, 'exec'), {'__name__': 'recipe'})

    return make


@pytest.fixture
def tokenizer(tmp_path) -> str:
    """A folder with a tokenizer of single letters."""
    pytest.importorskip('transformers')
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {'<unk>': 0, **{letter: i + 1 for i, letter in enumerate(LETTERS)}}
    made = Tokenizer(models.WordLevel(words, unk_token='<unk>'))
    made.pre_tokenizer = pre_tokenizers.Split('', 'isolated')
    folder = tmp_path / 'tokenizer'
    fast = PreTrainedTokenizerFast(tokenizer_object=made, unk_token='<unk>', eos_token='<unk>')
    fast.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def small(tmp_path, tokenizer):
    """``small(architecture)``: makes of an LLM's config one of a tiny model and a page of text."""
    for split in ('train', 'valid', 'test'):
        (tmp_path / f'{split}.txt').write_text('a quick brown fox jumps over the lazy dog. ' * 10)
    source = dict(files={split: f'{split}.txt' for split in ('train', 'valid', 'test')})

    def make(architecture: dict):
        def edit(cfg: Config) -> None:
            cfg.model = dict(type='HFCausalLM', path=None, architecture=architecture, window=16)
            for key in LOADERS:
                cfg[key].dataset.update(
                    tokenizer=tokenizer, source=source, data_root=str(tmp_path), window=16
                )
                cfg[key].dataset.pop('num_windows', None)
                cfg[key].dataset.pop('starts', None)
            cfg.prune_cfg.profile = dict(seconds=0.05)
            cfg.prune_cfg.calibration.num_samples = 4
            if 'recovery' in cfg.prune_cfg:
                cfg.prune_cfg.recovery.update(epochs=1, max_steps=2)

        return edit

    return make


def report_of(folder: str) -> dict:
    return json.loads((Path(folder) / 'report.json').read_text())


def test_there_is_one_for_each_tool():
    assert list(RECIPES) == [
        'analysis_struct', 'main_imp_fillback', 'run_iterative_train', 'SparseGPT',
        'llama3_global_pruning',
    ]  # fmt: skip


def test_vad(run, toy_root, tmp_path):
    def edit(cfg: Config) -> None:
        head = cfg.model.pts_bbox_head
        head.update(num_query=20, map_num_vec=8)
        head.bbox_coder.max_num = head.map_bbox_coder.max_num = 8
        for key in LOADERS[:3]:
            cfg[key].dataset.data_root = str(toy_root)
        cfg.prune_cfg.profile = dict(seconds=0.05)
        cfg.prune_cfg.calibration = dict(num_samples=2)
        if not Path('ckpts').exists():
            Path('ckpts').mkdir()
            with DefaultScope.overwrite_default_scope(cfg.default_scope):
                torch.save(MODELS.build(cfg.model).state_dict(), 'ckpts/VAD_tiny.pth')

    run('analysis_struct', edit, 'projects/configs/VAD/VAD_nano_toy_prune0.3.py')
    assert 0.3 <= report_of('out/vad')['achieved']['params'] < 0.31
    assert list(Path('out/vad').glob('*_structured_pruned.pth'))


def test_lottery_tickets(run):
    def edit(cfg: Config) -> None:
        cfg.model.model_kwargs.update(depth=2, embed_dim=32, num_heads=4)
        for key in LOADERS[:3]:
            cfg[key].dataset.indices = 64
        cfg.train_cfg.max_epochs = 1
        cfg.prune_cfg.schedule.rounds = 1

    run('main_imp_fillback', edit, 'projects/configs/ViT/vit_tiny_digits_rsst.py')
    assert (Path('out/rsst70') / 'states.csv').is_file()


def test_iterative_magnitude_pruning(run, small):
    def edit(cfg: Config) -> None:
        small(OPT)(cfg)
        cfg.prune_cfg.schedule.share = 0.6

    run('run_iterative_train', edit)
    history = json.loads(Path('out/imp90/history.json').read_text())
    assert history['rows'][-1]['sparsity'] == pytest.approx(0.9, abs=0.01)


def test_sparsegpt(run, small):
    run('SparseGPT', small(OPT))
    assert report_of('out/sparsegpt90')['achieved']['weights'] == pytest.approx(0.9, abs=0.01)


def test_global_pruning(run, small):
    run('llama3_global_pruning', small(LLAMA))
    assert 0.25 <= report_of('out/global25')['achieved']['params'] < 0.3
