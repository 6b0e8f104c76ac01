"""What only a GPU can show. Skipped where there is none: ``make test-gpu``.

Needs torch, mmengine and the plugin; timm, transformers, mmcv and mmdet3d only where a test asks for them.
"""

import os
import subprocess
import sys
from copy import deepcopy
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / name) for name in ('mm_prune', 'prune_plugin', 'vad', 'vad/models')]

from bare_check import BasicBlock, Block  # noqa: E402
from refitting import Batches  # noqa: E402

from projects.prune_plugin import StructuredPruner, WeightPruner, mask  # noqa: E402
from projects.prune_plugin.common.random_state import kept_random_state, seed_everything  # noqa: E402
from projects.prune_plugin.common.registry import PENALTIES, build  # noqa: E402
from projects.prune_plugin.evaluation.example_inputs import Example  # noqa: E402
from projects.prune_plugin.evaluation.latency import interleaved_latency, model_latency  # noqa: E402
from projects.prune_plugin.training.hooks import FiniteGradientsHook  # noqa: E402
from projects.prune_plugin.training.hooks.mask_hook import MaskHook  # noqa: E402
from projects.prune_plugin.training.hooks.penalty_hook import PenaltyHook  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no GPU'),
]
ONE_GPU_EACH = pytest.mark.skipif(torch.cuda.device_count() < 2, reason='there is one GPU')
CRITERIA = [
    dict(type='L1'), dict(type='Taylor', order=2), dict(type='Fisher'), dict(type='Wanda'),
]  # fmt: skip
SPARSIFIERS = [
    dict(type='Magnitude'), dict(type='Wanda'), dict(type='SparseGPT'),
    dict(type='SparseGPT', pattern='2:4'),
]  # fmt: skip


@pytest.fixture(autouse=True)
def exact():
    """Without TF32, so that a GPU rounds as a CPU does, nearly."""
    torch.set_float32_matmul_precision('highest')
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    yield
    torch.backends.cudnn.allow_tf32 = before


class Net(nn.Module):
    """A stem, a residual block, and layers of a transformer."""

    def __init__(self, width: int = 64, layers: int = 2):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.block = nn.Conv2d(3, 8, 4, stride=4), BasicBlock(8)
        self.widen = nn.Linear(8, width)
        self.blocks = nn.Sequential(*[Block(width) for _ in range(layers)])
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.block(self.stem(x)).flatten(2).transpose(1, 2)
        return self.head(self.blocks(self.widen(tokens)).mean(1))

    def dummy_inputs(self, batch_size: int = 1) -> dict:
        """Arguments of ``forward``."""
        return dict(x=torch.zeros(batch_size, 3, 32, 32))


def images(number: int, device: str) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(8, 3, 32, 32, generator=generator).to(device)


def loss_of(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch).float().square().mean()


def data_on(device: str, count: int = 4) -> Batches:
    return Batches([images(number, device) for number in range(count)])


def pruner_of(criterion: dict, **kwargs) -> StructuredPruner:
    settings = dict(budget=dict(type='units', ratio=0.4), allocator=dict(type='Uniform'))
    return StructuredPruner(criterion=criterion, **{**settings, **kwargs})


def assert_near(found: dict[str, Tensor], expected: dict[str, Tensor], rtol: float) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        found_here, tensor = found[name].detach().cpu().double(), tensor.detach().double()
        assert torch.allclose(found_here, tensor, rtol, rtol * float(tensor.abs().max())), name


def on_both(do) -> tuple[dict, dict]:
    return do('cpu'), do('cuda')


# Devices and processes


@pytest.mark.parametrize('number', range(torch.cuda.device_count()))
def test_gpu_ids_choose_the_gpu(number):
    code = (
        'import sys; sys.path.insert(0, sys.argv[1]); import analysis_struct\n'
        "analysis_struct.parse([sys.argv[2], '--gpu-ids', sys.argv[3]])\n"
        'import torch; print(torch.cuda.device_count(), torch.cuda.get_device_properties(0).uuid)'
    )
    if 'CUDA_VISIBLE_DEVICES' in os.environ:
        pytest.skip('CUDA_VISIBLE_DEVICES hides which GPU is which')
    root = TESTS.parent
    config = root / 'projects/configs/ViT/vit_tiny_digits.py'
    env = {k: v for k, v in os.environ.items() if k != 'CUDA_VISIBLE_DEVICES'}
    command = [sys.executable, '-c', code, root / 'tools', config, str(number)]
    said = subprocess.run(
        command, env=env, capture_output=True, text=True, check=True
    ).stdout.split()
    assert said == ['1', str(torch.cuda.get_device_properties(number).uuid)]


@pytest.mark.parametrize('count', [1, pytest.param(2, marks=ONE_GPU_EACH)])
def test_scoring_over_nccl(count, tmp_path):
    """As on one CPU: statistics are summed, also those on the CPU, and rank 0 solves."""
    command = ['-m', 'torch.distributed.run', f'--nproc_per_node={count}', '--standalone']
    ended = subprocess.run(
        [sys.executable, *command, Path(__file__).with_name('over_nccl.py'), tmp_path],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    ranks = [torch.load(tmp_path / f'{rank}.pth', weights_only=True) for rank in range(count)]
    for rank in ranks:
        assert rank['backend'] == 'nccl' and rank['objects'] == list(range(count))
        assert rank['sum'].item() == count
        for job, numbers in findings('cpu').items():
            assert_near(rank[job], numbers, 1e-2)
            assert_near(rank[job], {k: v.cpu() for k, v in ranks[0][job].items()}, 0)


def findings(device: str) -> dict[str, dict[str, Tensor]]:
    """Scores and refitted weights; for the test above and its processes."""
    found = {c['type']: scores_on(device, c) for c in CRITERIA}
    return {**found, 'refit': slim_on(device)}


# Pruning


def scores_on(device: str, criterion: dict) -> dict[str, Tensor]:
    scored = pruner_of(criterion).score(
        Net().eval().to(device), lambda _: data_on(device), loss=loss_of
    )
    return dict(zip([g.name for g in scored.groups], scored.importance, strict=True))


def slim_on(device: str) -> dict[str, Tensor]:
    model = Net().eval().to(device)
    pruner = pruner_of(dict(type='L1'), compensation=dict(type='LeastSquares'))
    plan = pruner.plan(model)
    slim = pruner.apply(model, plan, lambda _: data_on(device), loss=loss_of).model
    with torch.no_grad():
        return {**dict(slim.named_parameters()), 'out': slim(images(9, device))}


@pytest.mark.parametrize('criterion', CRITERIA, ids=lambda c: c['type'])
def test_scores_are_those_of_a_cpu(criterion):
    expected, found = on_both(partial(scores_on, criterion=criterion))
    assert_near(found, expected, 1e-3)


def test_refitted_slim_models_are_those_of_a_cpu():
    expected, found = on_both(slim_on)
    assert_near(found, expected, 1e-2)


def test_a_masked_model_computes_what_the_slim_one_does():
    model = Net().eval().cuda()
    pruner = pruner_of(dict(type='L1'))
    plan = pruner.plan(model)
    masked = mask(deepcopy(model), plan.state)
    slim = pruner.apply(model, plan).model
    with torch.no_grad():
        assert torch.allclose(masked(images(1, 'cuda')), slim(images(1, 'cuda')), 1e-5, 1e-6)


@pytest.mark.parametrize('sparsifier', SPARSIFIERS, ids=lambda s: '-'.join(s.values()))
def test_sparse_models_are_those_of_a_cpu(sparsifier):
    def masks(device: str) -> dict[str, Tensor]:
        model, data = Net().eval().to(device), lambda _: data_on(device)
        pruner = WeightPruner(
            sparsifier=sparsifier, budget=dict(type='weights', ratio=0.5), include=[r'.*mlp.*']
        )
        plan = pruner.plan(model, data, loss=loss_of)
        return pruner.apply(model, plan, data, loss=loss_of).masks

    expected, found = on_both(masks)
    for name, keep in expected.items():
        assert (found[name].cpu() == keep).double().mean() > 0.98, name


# Training


def amp_run(poison: int, fused: bool) -> tuple[Net, list[float]]:
    """Six steps in float16 with masks and a penalty, one of them with an overflow; and the scales."""
    from mmengine.optim import AmpOptimWrapper

    model = Net().cuda().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, fused=fused or None)
    wrapper = AmpOptimWrapper(optimizer=optimizer, loss_scale=dict(init_scale=2.0**15))
    wrapper.initialize_count_status(model, 0, 6)
    runner = SimpleNamespace(model=model, optim_wrapper=wrapper, epoch=0, iter=0)
    masks, finite = MaskHook(), FiniteGradientsHook()
    weight = model.blocks[0].mlp.fc1.weight
    masks.masks = {
        'blocks.0.mlp.fc1.weight': torch.arange(weight.numel()).view(weight.shape) % 2 > 0
    }
    penalty = PenaltyHook(build(PENALTIES, dict(type='RSST', strength=1.0), 'penalty'))
    penalty.begin(runner, [[('head.weight', 1, torch.tensor([[0], [1]]))]], 0, 1)
    hooks, scales = [finite, masks, penalty], []
    for hook in (finite, masks):
        hook.before_train(runner)
    for step in range(6):
        for hook in hooks:
            hook.before_train_iter(runner, step)
        batch = images(step, 'cuda')
        with wrapper.optim_context(model):
            loss = loss_of(model, batch)
        wrapper.update_params(loss * (1e9 if step == poison else 1.0))
        masks.after_train_iter(runner, step)
        scales.append(wrapper.loss_scaler.get_scale())
    assert not weight.detach().cpu()[~masks.masks['blocks.0.mlp.fc1.weight']].any()
    return model, scales


@pytest.mark.parametrize('fused', [False, True])
def test_float16_with_an_overflow(fused):
    model, scales = amp_run(2, fused)
    assert scales[2] == scales[1] / 2 and scales[5] == scales[2]
    assert all(p.isfinite().all() for p in model.parameters())


def test_a_penalty_is_not_divided_by_the_scale():
    plain, fused = (amp_run(-1, way)[0].head.weight for way in (False, True))
    start = Net().head.weight.cuda()
    pulled = (start - plain)[:, :2].abs().max()
    assert pulled > 1e-3 and torch.allclose(plain, fused, 1e-2, 1e-4)


def test_random_numbers_come_back():
    seed_everything(3)
    torch.rand(1, device='cuda')
    expected = [torch.rand(1).item(), torch.rand(1, device='cuda').item()]
    seed_everything(3)
    torch.rand(1, device='cuda')
    with kept_random_state():
        torch.rand(5), torch.rand(5, device='cuda')
    assert [torch.rand(1).item(), torch.rand(1, device='cuda').item()] == expected


@pytest.fixture
def one_rank(monkeypatch):
    """A process group of one, over nccl."""
    from projects.prune_plugin.common import distributed

    for name, value in dict(RANK='0', WORLD_SIZE='1', LOCAL_RANK='0', MASTER_PORT='29511').items():
        monkeypatch.setenv(name, value)
    distributed.init('pytorch')
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize('family', ['timm', 'transformers'])
def test_sharding(family, one_rank):
    """A step of a model whose data preprocessor is told where its shards are."""
    library = pytest.importorskip(family)
    from mmengine.model import BaseDataPreprocessor

    from projects.prune_plugin.training.sharding.fully_shard import FullyShard

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.data_preprocessor = BaseDataPreprocessor()
            if family == 'timm':
                self.net = library.create_model('vit_tiny_patch16_224', img_size=32, depth=2)
            else:
                config = library.AutoConfig.for_model(
                    'llama', vocab_size=64, hidden_size=32, intermediate_size=64,
                    num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                )  # fmt: skip
                self.net = library.AutoModelForCausalLM.from_config(config)

        def forward(self, x: Tensor) -> Tensor:
            out = self.net(self.data_preprocessor.cast_data(x))
            return getattr(out, 'logits', out).float().square().mean()

    blocks = r'net\.blocks\.\d+' if family == 'timm' else r'net\.model\.layers\.\d+'
    model = FullyShard(Wrapped(), [blocks], saved_whole=True)
    x = torch.randn(2, 3, 32, 32) if family == 'timm' else torch.arange(16).view(2, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first = model(x)
    first.backward()
    optimizer.step()
    assert model(x) < first


# Time and memory


def test_a_latency_budget_is_met():
    model = Net(width=1024, layers=4).eval().cuda()
    profile = dict(input_shape=(3, 32, 32), batch_size=64)
    budget = dict(type='latency', ratio=0.3, seconds=0.3)
    pruner = StructuredPruner(criterion=dict(type='L1'), budget=budget, profile=profile, round_to=8)
    plan = pruner.plan(model)
    slim = pruner.apply(deepcopy(model), plan).model
    example: Example = ((images(0, 'cuda').repeat(8, 1, 1, 1),), {})
    before, after = model_latency([model, slim], example, seconds=1.0)
    assert 1 - after / before == pytest.approx(0.3, abs=0.05)


def test_small_calls_are_timed_by_the_gpu():
    """Two products in a row take about twice as long as one: launching them doesn't hide it."""
    x = torch.randn(2048, 2048, device='cuda')
    one, two = interleaved_latency([lambda: x @ x, lambda: x @ x @ x], 0.5, device='cuda')
    assert 1.6 < two / one < 2.4


def test_memory_of_a_pruning():
    """Scored by Taylor and cut: at most 2.2 times the model, beside its activations."""
    model = Net(width=1024, layers=6).eval().cuda()
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    data, pruner = data_on('cuda', 1), pruner_of(dict(type='Taylor'))
    batch = images(0, 'cuda')
    torch.cuda.reset_peak_memory_stats()
    start = torch.cuda.memory_allocated()
    handles = [  # each gradient is freed as soon as it is there
        p.register_post_accumulate_grad_hook(lambda p: setattr(p, 'grad', None))
        for p in model.parameters()
    ]
    loss_of(model, batch).backward()
    activations = torch.cuda.max_memory_allocated() - start
    for handle in handles:
        handle.remove()
    torch.cuda.reset_peak_memory_stats()
    plan = pruner.plan(model, lambda _: data, loss=loss_of)
    pruner.apply(model, plan)
    peak = torch.cuda.max_memory_allocated() - start + size
    assert peak <= 2.2 * size + activations
