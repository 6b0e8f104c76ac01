"""The binary map mask (road and side walk, 0.1 m per pixel), written without holding it in memory."""

import struct
import zlib
from pathlib import Path as FilePath

import cv2
import numpy as np

from .place import CANVAS, Place
from .world import World

SCALE = 10  # pixels per metre
BAND = 64  # rows compressed together


def write(path: FilePath, scenes: list[tuple[World, Place]]) -> None:
    """Writes the 8-bit PNG; the south-west corner of the map is its lower left corner."""
    width, height = (int(round(c * SCALE)) for c in CANVAS)
    rings = []
    for world, place in scenes:
        area = world.drivable.union(world.walkway.buffer(0.01))
        for part in getattr(area, 'geoms', [area]):
            xy = place.to_map(np.array(part.exterior.coords)) * SCALE
            rings.append(np.stack([xy[:, 0], height - xy[:, 1]], 1).round().astype(np.int32))
    deflate = zlib.compressobj(1, zlib.DEFLATED, -15, 9)
    checksum, data, empty = 1, [b'\x78\x01'], {}
    for top in range(0, height, BAND):
        rows = min(BAND, height - top)
        inside = [r for r in rings if r[:, 1].min() < top + rows and r[:, 1].max() >= top]
        size = rows * (width + 1)
        if not inside:
            if rows not in empty:
                own = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
                empty[rows] = own.compress(bytes(size)) + own.flush(zlib.Z_FULL_FLUSH)
            data.append(deflate.flush(zlib.Z_FULL_FLUSH))
            data.append(empty[rows])
            low, high = checksum & 0xFFFF, checksum >> 16
            checksum = ((high + size * low) % 65521) << 16 | low
            continue
        band = np.zeros((rows, width + 1), np.uint8)
        for ring in inside:
            cv2.fillPoly(band[:, 1:], [ring - [0, top]], 255)
        band[:, 0] = 0  # PNG: no filter
        raw = band.tobytes()
        data.append(deflate.compress(raw))
        checksum = zlib.adler32(raw, checksum)
    data += [deflate.flush(), struct.pack('>I', checksum)]
    with open(path, 'wb') as file:
        file.write(b'\x89PNG\r\n\x1a\n')
        _chunk(file, b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0))
        _chunk(file, b'IDAT', b''.join(data))
        _chunk(file, b'IEND', b'')


def _chunk(file, name: bytes, content: bytes) -> None:
    file.write(struct.pack('>I', len(content)) + name + content)
    file.write(struct.pack('>I', zlib.crc32(content, zlib.crc32(name))))
