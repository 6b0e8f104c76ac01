"""``mm_prune`` offers what ``projects.prune_plugin`` does."""

import mm_prune
from projects import prune_plugin


def test_names_are_the_plugins():
    assert mm_prune.__all__ == prune_plugin.__all__
    for name in prune_plugin.__all__:
        assert getattr(mm_prune, name) is getattr(prune_plugin, name)


def test_version_is_the_plugins():
    assert mm_prune.__version__ == prune_plugin.__version__
