"""What each rank of ``test_scoring_over_nccl`` does; it leaves its findings in the folder given."""

import sys
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]

import test_real_gpu as suite  # noqa: E402
from mmengine import dist  # noqa: E402

from projects.prune_plugin.common import distributed  # noqa: E402
from projects.prune_plugin.workflows import cli  # noqa: E402


class Share(suite.Batches):
    """Every rank's own batches."""

    def __iter__(self):
        rank, world = dist.get_dist_info()
        return (batch for batch in super().__iter__() if batch[0] % world == rank)


if __name__ == '__main__':
    distributed.init('pytorch')
    suite.Batches = Share
    found = suite.findings('cuda')
    found['backend'] = torch.distributed.get_backend()
    total = torch.ones(1, device='cuda')
    torch.distributed.all_reduce(total)  # with one rank, too
    found['sum'] = total.cpu()
    found['objects'] = distributed.from_all_ranks(dist.get_rank())
    distributed.assert_ranks_agree('equal', 'this')
    torch.save(found, f'{sys.argv[1]}/{dist.get_rank()}.pth')
    cli.shut_down(together=True)
