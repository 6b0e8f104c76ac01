"""What `make bench` and `make bench-full` run: scripts with their arguments, in order."""

from dataclasses import dataclass
from pathlib import Path

from data_folders import CIFAR10, WIKITEXT2


@dataclass(frozen=True)
class Part:
    """A call of a benchmark.

    Attributes:
        name: Of the part, in the table of times.
        script: Of this folder, without ``.py``.
        arguments: Its command line.
        needs: A folder or file of data without which it is left out.
    """

    name: str
    script: str
    arguments: tuple[str, ...] = ()
    needs: Path | None = None

    @property
    def can_run(self) -> bool:
        """Whether its data is there."""
        return self.needs is None or self.needs.exists()


#: Less than an hour on two cores. What is a shorter setting of a long part has a result of its own.
SHORT = (
    Part('vit_latency', 'vit_latency'),
    Part('pruning_speed', 'pruning_speed'),
    Part('llama_plan', 'llama_plan'),
    Part('criteria', 'criteria'),
    Part('vad_speed', 'vad_speed'),
    Part('side_by_side', 'side_by_side'),
    Part('mm_models', 'mm_models'),
    Part(
        'llm_weights_short',
        'llm_weights',
        (
            '--methods=forward,plain_wanda,ours_wanda,plain_sparsegpt,ours_sparsegpt',
            '--settings=50%',
            '--samples=8',
            '--output=llm_weights_short',
        ),
        WIKITEXT2,
    ),
    Part(
        'llm_global_short',
        'llm_global',
        (
            '--methods=bare,plain_global,ours',
            '--ratios=0.25',
            '--samples=8',
            '--output=llm_global_short',
        ),
        WIKITEXT2,
    ),
)
#: Hours more.
LONG = (
    Part('vad_frame', 'vad_frame'),
    Part('ticket_cost', 'ticket_cost'),
    Part('vad_toy', 'vad_toy'),
    Part('vad_prune', 'vad_prune'),
    Part('side_by_side_vad_toy', 'side_by_side', ('--tasks=vad_toy',)),
    Part('llm_weights', 'llm_weights', needs=WIKITEXT2),
    Part('llm_global', 'llm_global', needs=WIKITEXT2),
    Part('llm_iterative', 'llm_iterative', needs=WIKITEXT2),
    Part(
        'llm_iterative_70',
        'llm_iterative',
        ('--plan=0.5:10,0.65:14,0.7:36', '--output=llm_iterative_70'),
        WIKITEXT2,
    ),
    Part('llm_curve', 'llm_curve', needs=WIKITEXT2),
    Part('tickets', 'tickets', needs=CIFAR10),
)
