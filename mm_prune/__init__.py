"""mm-prune under a name of its own: all that :mod:`projects.prune_plugin` offers, wherever it is run.

Many repositories for driving (BEVFormer, UniAD, VAD) have a package ``projects`` themselves, and it hides
the one that the plugin lies in. Importing ``mm_prune`` adds our modules to theirs.

Example:
    >>> custom_imports = dict(imports=['mm_prune', 'projects.mmdet3d_plugin'])
"""

from ._reach import reach_plugin

reach_plugin()

from projects import prune_plugin  # noqa: E402
from projects.prune_plugin import *  # noqa: E402, F403

__all__: list[str] = []
__all__ += prune_plugin.__all__
