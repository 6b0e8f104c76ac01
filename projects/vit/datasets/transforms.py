"""torchvision's v2 transforms in MMEngine's registry, as ``torchvision/<Name>``."""

from collections.abc import Sequence

from mmengine.registry import TRANSFORMS
from torchvision.transforms import v2

from projects.prune_plugin.common.errors import UserError

PREFIX = 'torchvision/'


def register_torchvision() -> list[str]:
    """Register every transform of ``torchvision.transforms.v2`` and return their registry names."""
    names = []
    for attribute in dir(v2):
        cls = getattr(v2, attribute)
        if isinstance(cls, type) and issubclass(cls, v2.Transform) and cls is not v2.Transform:
            TRANSFORMS.register_module(name=PREFIX + attribute, module=cls, force=True)
            names.append(PREFIX + attribute)
    return names


def build_transforms(configs: Sequence[dict] | None) -> v2.Compose | None:
    """Return the transforms, in order, as one callable on a ``(C, H, W)`` tensor; None for none.

    Raises:
        UserError: For a type that isn't registered, or arguments that it refuses.

    Example::

        transforms=[dict(type='torchvision/RandomCrop', size=32, padding=4)]
    """
    built = []
    for config in configs or ():
        kind = config.get('type') if isinstance(config, dict) else None
        if kind is None or (isinstance(kind, str) and TRANSFORMS.get(kind) is None):
            raise UserError(
                f'transforms: {config!r} is not a registered transform; '
                "dict(type='torchvision/RandomCrop', size=32, padding=4) would be valid"
            )
        try:
            built.append(TRANSFORMS.build(config))
        except (TypeError, ValueError) as err:
            raise UserError(f'transforms: {config!r} is refused: {err}') from err
    return v2.Compose(built) if built else None


REGISTERED = tuple(register_torchvision())
