"""Names of modules on the axis of a picture: what they share stands in its title."""

from collections.abc import Sequence


def short_names(names: Sequence[str]) -> tuple[list[str], str]:
    """Names without their common beginning and end, and the pattern of all, ``blocks.*.attn``.

    At least one word of each is left.

    Args:
        names: Dotted names, each another.
    """
    words = [name.split('.') for name in names]
    room = min(map(len, words), default=1) - 1
    first = common(words, room)
    last = common([list(reversed(each)) for each in words], room - first)
    short = ['.'.join(each[first : len(each) - last]) for each in words]
    start, end = words[0][:first], words[0][len(words[0]) - last :]
    return short, '.'.join([*start, '*', *end]) if len(names) > 1 else names[0]


def common(words: Sequence[Sequence[str]], most: int) -> int:
    """How many words all begin with alike, at most ``most``."""
    count = 0
    while count < most and len({each[count] for each in words}) == 1:
        count += 1
    return count


def starts_of_stages(short: Sequence[str]) -> list[int]:
    """Where a name begins with another word than the one before, as ``layer2.0`` after ``layer1.3``.

    Empty where names have one word, or every name begins otherwise.
    """
    stages = [name.split('.')[0] for name in short]
    found = [i for i in range(1, len(stages)) if stages[i] != stages[i - 1]]
    return found if len(found) < len(stages) - 1 else []
