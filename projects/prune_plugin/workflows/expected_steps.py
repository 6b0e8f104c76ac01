"""Which steps a run will have, for its progress: known before they begin, with what they compute."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from mmengine import dist
from torch import nn

from ..common.bisection import trials_at_most
from ..common.model_interface import offers_dummy_inputs, profile_batch_size_of
from ..common.time_left import Step
from ..evaluation.test_set import TestSet
from ..methods.pruners import Pruner
from ..training.settings import RecoverySettings
from .curve_series import Series
from .ratio_search import Search

#: Seconds, as a first guess, of steps that make no passes over data.
GUESSES = dict(load=3.0, discover=1.0, score=0.1, allocate=0.2, slim=0.1, report=0.7)
#: Bytes a second that a checkpoint is written with.
WRITTEN = 1e8
#: Of a point of a curve, beside its evaluation: it is made and timed.
POINT = 3.0
#: Of a budget that is measured.
MEASURED = 20.0


def guessed(name: str) -> Step:
    """A step that makes no passes over data."""
    return Step(name, seconds=GUESSES.get(name, 0.3))


def scoring_steps(pruner: Pruner, scored: bool = False) -> Iterator[Step]:
    """Finding and scoring what can be pruned.

    Args:
        pruner: The pruner.
        scored: Whether scores are given.
    """
    if pruner.removes_units:
        yield guessed('discover')
    passes = pruner.passes(scored).get('calibrate')
    if passes:
        if pruner.removes_units:
            yield guessed('read calibration data')
        yield Step('calibrate', passes / dist.get_world_size())
    if pruner.removes_units and not scored:
        yield guessed('score')


def rescoring_steps(pruner: Pruner, ratios: Sequence[float]) -> Iterator[Step]:
    """Steps in which units are scored again on the way to the ratios; those that they share come once."""
    if pruner.rescoring is None:
        return
    paths = [tuple(pruner.rescoring.before(ratio)) for ratio in ratios]
    for _ in {path[:number] for path in paths for number in range(1, len(path) + 1)}:
        yield planning_step(pruner)
        if 'compensate' in (passes := pruner.passes(scored=True)):
            yield Step('compensate', passes['compensate'] / dist.get_world_size())
        yield from (s for s in scoring_steps(pruner) if s.name in ('calibrate', 'score'))


def planning_step(pruner: Pruner) -> Step:
    """Choosing what goes."""
    return Step('allocate', seconds=MEASURED if pruner.budget.measured else GUESSES['allocate'])


def applying_steps(pruner: Pruner) -> Iterator[Step]:
    """Making the pruned model."""
    passes = {name: n / dist.get_world_size() for name, n in pruner.passes(scored=True).items()}
    if not pruner.removes_units:
        yield Step('sparsify', passes['sparsify']) if 'sparsify' in passes else guessed('sparsify')
    if 'compensate' in passes:
        yield Step('compensate', passes['compensate'])
    if pruner.reconstruction is not None:
        samples = pruner.calibration.num_samples / dist.get_world_size()
        yield Step('reconstruct', pruner.reconstruction.passes * samples)
    if pruner.removes_units:
        yield guessed('slim')


def profile_step(pruner: Pruner, model: nn.Module, timed: bool) -> Step:
    """Counting FLOPs and timing: so long as asked for, and some passes that it takes at least."""
    settings = pruner.profile
    if settings.input_shape is None and not offers_dummy_inputs(model):
        return guessed('profile')
    models = 2 if pruner.removes_units else 1
    if not timed:
        return Step('profile', float(models), seconds=0.1)
    batch = settings.batch_size or profile_batch_size_of(model)
    return Step('profile', models * (1.0 + 2 * batch), seconds=settings.seconds)


def evaluation_step(test_set: TestSet, name: str = 'evaluate') -> list[Step]:
    """Evaluating a model, where there is data."""
    return [] if test_set.missing else [Step(name, test_set.samples)]


def pruning_steps(
    pruner: Pruner, test_set: TestSet | None, searched: bool, model: nn.Module
) -> Iterator[Step]:
    """All that follows the scoring.

    Args:
        pruner: The pruner.
        test_set: What to evaluate on; None: nothing is evaluated or written.
        searched: Whether trials on the same data have evaluated the models.
        model: The dense model.
    """
    evaluations = [] if test_set is None or searched else evaluation_step(test_set)
    if pruner.removes_units:
        yield planning_step(pruner)
    yield from map(replace, evaluations)
    yield from applying_steps(pruner)
    yield profile_step(pruner, model, timed=test_set is not None)
    if test_set is None:
        return
    if pruner.removes_units:
        yield guessed('slim')  # the model to compare with
    if pruner.calibration.recalibrate_bn:
        models = 2 if pruner.removes_units else 1
        samples = models * int(pruner.calibration.recalibrate_bn) / dist.get_world_size()
        yield Step('recalibrate', samples, loops=models)
    yield from evaluations
    stored = sum(weight.nbytes for weight in model.parameters())
    yield Step('save', seconds=0.1 + 2 * stored / WRITTEN)
    yield guessed('report')


def search_step(search: Search) -> Step:
    """Looking for a ratio: the dense model is evaluated, and at most so many trials."""
    budget = search.budget
    trials = 1 + trials_at_most(budget.low, budget.high, budget.tolerance, budget.trials)
    return Step('search', trials * search.test_set.samples, loops=trials)


def all_steps(
    pruner: Pruner, scored: bool, search: Search | None, test_set: TestSet | None, model: nn.Module
) -> Iterator[Step]:
    """All steps once the model is loaded.

    Args:
        pruner: The pruner.
        scored: Whether scores are given.
        search: Looks for the ratio; None: it is given.
        test_set: What to evaluate on; None: nothing is evaluated or written.
        model: The dense model.
    """
    yield from scoring_steps(pruner, scored)
    if pruner.budget.ratio is not None:
        yield from rescoring_steps(pruner, [pruner.budget.ratio])
    if search:
        yield search_step(search)
    searched = search is not None and search.budget.whole_test_set
    yield from pruning_steps(pruner, test_set, searched, model)


def curve_steps(
    series: Sequence[Series],
    ratios: Sequence[float],
    scored: bool,
    test_set: TestSet,
    model: nn.Module,
) -> Iterator[Step]:
    """A curve, once the model is loaded.

    Args:
        series: The methods.
        ratios: Of each.
        scored: Whether the config's criterion needn't score.
        test_set: What to evaluate on.
        model: The dense model.
    """
    first = {(one.criterion, one.reads_ratio): one for one in reversed(series)}
    for one in first.values():
        for _ in ratios if one.reads_ratio else (0,):
            yield from scoring_steps(one.pruner, scored and one.own_scores)
    for one in series:
        yield from rescoring_steps(one.pruner, ratios)
        yield from (planning_step(one.pruner) for _ in ratios if one.pruner.removes_units)
    yield Step('dense', test_set.samples)
    for one in series:
        passes = sum(one.pruner.passes(scored=True).values()) / dist.get_world_size()
        timing = profile_step(one.pruner, model, timed=one.pruner.removes_units).passes
        parts = [part for part in (passes, timing, test_set.samples) if part]
        for _ in ratios:
            yield Step('point', sum(parts), seconds=POINT, loops=max(len(parts), 1))


def training_step(settings: RecoverySettings) -> Step:
    """Training: how long it takes only its own iterations tell."""
    return Step('train', seconds=None, amount=float(settings.epochs))


def round_steps(pruner: Pruner, test_set: TestSet, trains: bool, begun: int) -> Iterator[Step]:
    """The steps of pruning in rounds, but for loading the model.

    Args:
        pruner: The pruner.
        test_set: What to evaluate on.
        trains: Whether it trains in between.
        begun: Rounds that an earlier run has been through.
    """
    evaluations = evaluation_step(test_set)
    yield from map(replace, [] if begun else evaluations)
    for number, round_ in enumerate(pruner.rounds[begun:]):
        if trains and number:
            yield guessed('load')
        passes = sum(pruner.passes().values()) / dist.get_world_size()
        yield Step('prune', passes, seconds=0.5)
        yield guessed('save')
        yield from map(replace, evaluations)
        if trains:
            yield training_step(round_.recovery)
            yield guessed('load')
            yield from map(replace, evaluations)
    yield guessed('report')
