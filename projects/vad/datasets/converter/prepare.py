"""What ``tools/create_data.py`` does: what isn't done already."""

from mmengine.logging import print_log

from projects.prune_plugin.common.errors import UserError
from projects.prune_plugin.common.fileio import output_directory

from .tables import check_tables
from .write import existing_infos, write_infos

TOY_VERSION = 'v1.0-mini'


def prepare_nuscenes(
    root: str, canbus_root: str, version: str, out_dir: str | None = None, anew: bool = False
) -> None:
    """Write the info files of a real nuScenes.

    Args:
        root: The folder with tables, samples and maps.
        canbus_root: The folder that holds ``can_bus``.
        version: ``v1.0-mini`` or ``v1.0-trainval``.
        out_dir: Where the files go; default: ``root``.
        anew: Write them even where they are.

    Raises:
        UserError: something is missing, or files of another version are there.
    """
    folder = out_dir or root
    found = None if anew else existing_infos(folder)
    if found:
        if found['version'] != version:
            raise UserError(
                f'{folder} holds info files of {found["version"]}, not of {version}; give another '
                '--out-dir, or --anew to replace them'
            )
        print_log(
            f'{folder} holds the info files of {version}; --anew writes them again', 'current'
        )
        return
    check_tables(root, version)
    with output_directory(folder, '--out-dir'):
        write_infos(root, canbus_root, version, folder)


def prepare_toy(
    out: str,
    seed: int = 0,
    scenes: int = 6,
    frames: int = 20,
    image_size: tuple[int, int] = (800, 450),
) -> None:
    """Write the toy drive and its info files; after an interruption, what of them is missing.

    Args:
        out: The folder.
        seed: Of the drive.
        scenes: How many.
        frames: Key frames of each scene, two a second.
        image_size: Width and height in pixels.

    Raises:
        UserError: the folder holds something else, or can't be written, or a value is out of range.
    """
    from ..toy import write_toy

    write_toy(out, seed, scenes, frames, image_size)
    if existing_infos(out):
        print_log(f'{out} holds its info files', 'current')
        return
    write_infos(out, out, TOY_VERSION)
