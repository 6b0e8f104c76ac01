"""Verifying the checksums of a file written by ``torch.save``."""

import os
import zipfile

#: First bytes of a zip archive.
MAGIC = b'PK\x03\x04'
#: Attribute of a directory entry; PyTorch reads no data for it and leaves the tensor uninitialised.
DIRECTORY = 0x10


def check_archive(path: str | os.PathLike) -> None:
    """Verify the checksum of every entry of a zip archive, which ``torch.load`` doesn't do.

    Files that aren't zip archives (PyTorch's format before 1.6) have no checksums and aren't checked.

    Raises:
        zipfile.BadZipFile: the file is truncated or damaged; the message names the entry.
    """
    with open(path, 'rb') as file:
        has_magic = file.read(len(MAGIC)) == MAGIC
    if not has_magic and not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        claimed = sum(entry.file_size for entry in archive.infolist())
        if claimed > os.path.getsize(path):
            raise zipfile.BadZipFile('its entries overlap, or claim more bytes than it has')
        for entry in archive.infolist():  # torch.save neither compresses nor encrypts
            if entry.compress_type or entry.flag_bits & 0x61 or entry.external_attr & DIRECTORY:
                raise zipfile.BadZipFile(f'the entry of {entry.filename!r} is damaged')
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f'{damaged!r} does not fit its checksum')
