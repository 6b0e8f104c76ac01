"""What to plan for if what a plan saves turns out to be something else than was predicted."""

from collections.abc import Sequence

#: By how much the next plan may differ from the last one while all saved too little.
MOST_GROWTH = 2.0


def to_plan_for(wanted: float, tried: Sequence[tuple[float, float]]) -> float:
    """The prediction whose plan should save what is wanted, by what earlier plans have saved.

    Between a plan that saved less and one that saved more, it is interpolated (regula falsi), so that steps
    in the savings, such as that of the last unit of a layer, can't make it swing from one side to the
    other. Nothing planned saves nothing.

    Args:
        wanted: What shall be saved, above 0.
        tried: What was predicted and what was saved, of each earlier plan; at least one, all predictions
            above 0.

    Returns:
        Above 0, in the units of the predictions.
    """
    below = [(0.0, 0.0), *((planned, saved) for planned, saved in tried if saved < wanted)]
    above = [(planned, saved) for planned, saved in tried if saved >= wanted]
    low, saved_low = max(below)
    if not above:
        growth = wanted / saved_low if saved_low > 0 else MOST_GROWTH
        return max(planned for planned, _ in tried) * min(growth, MOST_GROWTH)
    high, saved_high = min(above)
    return low + (high - low) * (wanted - saved_low) / (saved_high - saved_low)
