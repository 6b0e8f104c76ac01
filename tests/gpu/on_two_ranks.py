"""What each rank does on pretended GPUs, in a process group that knows tensors on GPUs only, as nccl's.

    python -m torch.distributed.run --nproc_per_node=2 tests/gpu/on_two_ranks.py FOLDER vit llama vad

It leaves its findings in ``FOLDER/<rank>.pth``.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as torch_dist

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS / 'prune_plugin'), str(TESTS / 'gpu')]
sys.path[:0] = [str(TESTS / 'vad'), str(TESTS / 'vad/models')]

import emulator  # noqa: E402
from subjects import Subject, subjects  # noqa: E402
from torch import Tensor  # noqa: E402

from projects.prune_plugin import StructuredPruner, WeightPruner  # noqa: E402
from projects.prune_plugin.common import distributed  # noqa: E402
from projects.prune_plugin.workflows import cli  # noqa: E402

CRITERIA = [dict(type='Taylor', order=2), dict(type='Fisher'), dict(type='Wanda')]


def start() -> None:
    """A default group without the CPU; what it would send between GPUs goes over gloo unseen."""
    torch_dist.init_process_group('cuda:gloo')
    stand_in = torch_dist.new_group(backend='gloo')
    emulator.STAND_INS[torch_dist.group.WORLD.group_name] = stand_in


def findings(subject: Subject, gpu: bool) -> dict[str, dict[str, Tensor]]:
    """Scores, a refitted slim model, and a sparse one."""
    found = {}
    settings = dict(budget=dict(type='units', ratio=0.4), allocator=dict(type='Uniform'))
    for criterion in CRITERIA:
        data = subject.data(gpu, 4)
        pruner = StructuredPruner(subject.units, criterion, **settings)
        scored = pruner.score(subject.model(gpu), lambda _, data=data: data, loss=subject.loss)
        names = [group.name for group in scored.groups]
        found[criterion['type']] = dict(zip(names, scored.importance, strict=True))
    data = subject.data(gpu, 4)
    pruner = StructuredPruner(
        subject.units, dict(type='L1'), compensation=dict(type='LeastSquares'), **settings
    )
    model = subject.model(gpu)
    plan = pruner.plan(model)
    slim = pruner.apply(model, plan, lambda _: data, loss=subject.loss).model
    found['refit'] = {name: p.detach() for name, p in slim.named_parameters()}
    chosen = dict(include=[r'.*ffns.*']) if subject.name.startswith('vad') else {}
    weights = WeightPruner(
        sparsifier=dict(type='SparseGPT'), budget=dict(type='weights', ratio=0.5), **chosen
    )
    model = subject.model(gpu)
    plan = weights.plan(model, lambda _: data, loss=subject.loss)
    sparse = weights.apply(model, plan, lambda _: data, loss=subject.loss).model
    found['SparseGPT'] = {name: p.detach() for name, p in sparse.named_parameters()}
    return found


def main(folder: str, names: list[str]) -> None:
    """Find out, and write it down."""
    torch.set_num_threads(1)
    start()
    assert distributed.cpu_group() is not None
    found = {}
    with emulator.pretended_gpu():
        for name in names:
            found[name] = emulator.values(findings(subjects()[name](), True))
        tensor = torch.full((3,), float(torch_dist.get_rank()), device=emulator.DEVICE)
        distributed.sum_over_ranks({'sum': tensor})
        found['sum'] = emulator.values(tensor)
    try:
        torch_dist.all_reduce(torch.ones(1))
    except RuntimeError as error:
        found['refused'] = str(error)
    torch.save(found, f'{folder}/{torch_dist.get_rank()}.pth')
    cli.shut_down(together=True)


if __name__ == '__main__':
    main(sys.argv[1], sys.argv[2:])
