"""Sections of docs/benchmarks.md on lottery tickets."""

from tables import result, table


def tickets() -> str:
    """Section on what the methods end with."""
    r = result('tickets')
    own = r['settings']
    rows = []
    for method, found in r['summary'].items():
        values = [run['accuracy'] for run in r['runs'] if run['method'] == method]
        spread = '' if found['spread'] is None else f' ± {found["spread"]:.2f}'
        kept = ', '.join(f'{kind} {100 * share:.1f} %' for kind, share in found['kept'].items())
        rows.append(
            [
                method,
                f'{found["mean"]:.2f}{spread}',
                ', '.join(f'{value:.2f}' for value in values),
                f'{found["change_by_removal"]:+.2f}',
                kept or 'all',
                f'{found["params"]:,}' if found['params'] else '',
            ]
        )
    header = ['method', 'accuracy', 'each seed', 'change by removal', 'kept', 'parameters']
    epochs = own['states'] * own['epochs']
    return f"""## Lottery tickets and soft pruning on CIFAR-10

`vit_tiny_cifar10` on {own['images']:,} images, {100 * own['ratio']:.0f} % removed,
{epochs} epochs in all for every method: {own['states']} states of {own['epochs']}, one shot
{epochs // 2} and {epochs // 2}. Top-1 accuracy in percent on the 10,000 test images after removal,
mean and standard deviation over seeds; "change by removal" is the largest over the seeds. IMP prunes
single weights of the blocks, so its model keeps the dense size. One shot, IMP and Refill rewind the
remaining weights to their initial values, so the final model has been trained for only one state; RSST
continues from the trained weights.

{table(header, rows)}

![Accuracy of each method](images/tickets.png)
"""


def ticket_cost() -> str:
    """Section on what masks and penalties cost."""
    r = result('ticket_cost')
    rows = [
        [name, f'{1000 * r["added"][name]["median"]:.0f}', f'{ratio:.3f}']
        for name, ratio in r['ratios'].items()
    ]
    bare, threads = 1000 * r['bare']['median'], r['environment']['threads']
    return f"""## A training step with masks and penalties

ViT-Small at 32 x 32, batch {r['batch_size']}, threads: {threads}. A bare step takes {bare:,.0f} ms, the
median of {r['rounds']}. The overhead depends on the number of weights, not of images; it is the
median difference between steps of one image with and without it, in {10 * r['rounds']} rounds.

{table(['with', 'added, ms', 'step, of bare'], rows)}
"""


SECTIONS = dict(tickets=tickets, ticket_cost=ticket_cost)
