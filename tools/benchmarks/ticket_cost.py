"""What masks and penalties add to a training step of a ViT-Small.

What they do goes by the number of weights, not of images. So it is taken from steps of one image, with
and without them in turn, where the noise of a step isn't larger than what is looked for; and compared
with bare steps of a whole batch.

The masks are those of a ticket with 70 % of heads and neurons, or of single weights, gone; the penalty
pulls the units that leave in the last of 15 rounds, and in one shot, which is the most that can leave.
"""

import argparse
import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch  # noqa: E402
from common import alternate, save, spread  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.hooks import Hook  # noqa: E402
from mmengine.optim import OptimWrapper  # noqa: E402
from mmengine.registry import MODELS  # noqa: E402

from projects.prune_plugin import build_pruner  # noqa: E402
from projects.prune_plugin.methods.pruners import Selection  # noqa: E402
from projects.prune_plugin.training.hooks.mask_hook import MaskHook  # noqa: E402
from projects.prune_plugin.training.hooks.penalty_hook import PenaltyHook  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'projects' / 'configs' / 'ViT'


def ticket(name: str, model: torch.nn.Module, *ratios: float) -> Selection:
    """What a config keeps after these ratios, one after the other."""
    cfg = Config.fromfile(CONFIGS / f'{name}.py').prune_cfg.to_dict()
    made = build_pruner(cfg).select(model)
    for number, ratio in enumerate(ratios):
        if number:
            made.remove()
        made.choose(model, ratio, None, None)
    return made


def stepper(hook: Hook | None, runner: SimpleNamespace, data: dict):
    """One training step, with what a hook does in it."""

    def step() -> None:
        if hook is not None:
            hook.before_train_iter(runner, 0)
        runner.model.train_step(data, runner.optim_wrapper)
        if hook is not None:
            hook.after_train_iter(runner, 0)

    return step


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--batch-size', type=int, default=128)
    parser.add_argument(
        '--rounds', type=int, default=9, help='of whole batches; ten times of one image'
    )
    args = parser.parse_args()
    torch.manual_seed(0)
    base = Config.fromfile(CONFIGS / 'vit_small_cifar10.py')

    def runner() -> SimpleNamespace:
        """A model of its own, so that hooks of one don't touch another."""
        torch.manual_seed(0)
        model = MODELS.build(base.model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
        hub = SimpleNamespace(update_scalar=lambda *_: None)
        return SimpleNamespace(
            model=model, optim_wrapper=OptimWrapper(optimizer), iter=1, message_hub=hub
        )

    def images(number: int) -> dict[str, torch.Tensor]:
        """Random ones, with labels."""
        return dict(
            inputs=torch.randint(0, 256, (number, 3, 32, 32), dtype=torch.uint8),
            gt_label=torch.randint(0, 10, (number,)),
        )

    data = images(1)
    steps = dict(bare=stepper(None, runner(), data))
    masked = {'unit masks': 'vit_small_cifar10_refill70', 'weight masks': 'vit_tiny_digits_imp'}
    for name, config in masked.items():
        own, hook = runner(), MaskHook()
        hook.masks = ticket(config, own.model, 0.7).masks(own.model)
        hook.before_train(own)
        steps[name] = stepper(hook, own, data)
    last = 1 - 0.3 ** (14 / 15)
    for name, ratios in (('RSST, one of 15 rounds', (last, 0.7)), ('RSST, one shot', (0.7,))):
        own = runner()
        made = ticket('vit_small_cifar10_rsst70', own.model, *ratios)
        pull = PenaltyHook(made.pruner.penalty)
        pull.begin(own, made.scheduled(), 0, 1000)
        steps[name] = stepper(pull, own, data)
    short = alternate(steps, 10 * args.rounds)
    whole = dict(bare=stepper(None, runner(), images(args.batch_size)))
    bare = spread(alternate(whole, args.rounds)['bare'])
    # Round by round: steps next to each other share the machine's mood.
    added = {
        name: spread([one - other for one, other in zip(own, short['bare'], strict=True)])
        for name, own in short.items()
        if name != 'bare'
    }
    save(
        'ticket_cost',
        dict(
            batch_size=args.batch_size,
            rounds=args.rounds,
            bare=bare,
            added=added,
            ratios={name: 1 + own['median'] / bare['median'] for name, own in added.items()},
        ),
    )


if __name__ == '__main__':
    main()
