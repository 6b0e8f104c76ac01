"""Whether a file of ``torch.save`` is as it was written."""

import os
import zipfile

#: What a zip archive begins with.
MAGIC = b'PK\x03\x04'
#: An entry's attribute by which it is a folder; PyTorch reads nothing for it, and leaves tensors unset.
FOLDER = 0x10


def check_archive(path: str | os.PathLike) -> None:
    """Compare every part of a zip archive with its checksum, which ``torch.load`` doesn't.

    A file without checksums (PyTorch's format before 1.6) passes.

    Raises:
        zipfile.BadZipFile: the file is truncated or damaged; the message says what is.
    """
    with open(path, 'rb') as file:
        begins = file.read(len(MAGIC)) == MAGIC
    if not begins and not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():  # torch.save neither compresses nor encrypts
            if entry.compress_type or entry.flag_bits & 0x61 or entry.external_attr & FOLDER:
                raise zipfile.BadZipFile(f'the entry of {entry.filename!r} is damaged')
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f'{damaged!r} does not fit its checksum')
