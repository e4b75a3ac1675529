"""Guarded reading of HDF5: it follows links, allocates any size, trusts chunks."""

import math
import re
import struct
import zlib

import h5py
import numpy as np

from braintumor.core.files import memory_map
from braintumor.data.preprocessing import MAX_SIDE

DEFLATE, SHUFFLE = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE


def open_mat(path):
    """Open a MATLAB v7.3 file; errors are of half a dozen types."""
    with memory_map(path) as content:
        _check_heaps(content)
    return h5py.File(path, "r")


def _check_heaps(content):
    """Refuse global heaps with objects of size 0: HDF5 2.0 would loop forever."""
    for heap in re.finditer(rb"GCOL\x01\0\0\0(.{8})", content, re.DOTALL):
        start, end = heap.end(), heap.start() + int.from_bytes(heap[1], "little")
        while start + 16 <= min(end, len(content)):
            number, size = struct.unpack_from("<H6xQ", content, start)
            step = 16 + -(-size // 8) * 8 if number else size
            if not 0 < step < 2**64:  # 2**64 overflows to 0
                raise ValueError("a global heap holds objects of size 0")
            start += step


def read_field(field, name):
    """Return the numeric array `name` of an open file, or raise a ValueError."""
    for part in name.split("/"):
        link = field.get(part, getlink=True) if isinstance(field, h5py.Group) else None
        field = field[part] if isinstance(link, h5py.HardLink) else None
    is_array = isinstance(field, h5py.Dataset) and field.dtype.kind in "biuf"
    if not is_array or field.external or field.is_virtual:
        raise ValueError(f"{name} is missing, expected numbers in this file")
    is_plain = field.id.get_type() == h5py.h5t.py_create(field.dtype)
    if not is_plain or not 0 < field.size <= MAX_SIDE**2:
        raise ValueError(f"got {field.size} values, expected 1 to {MAX_SIDE}^2 numbers")
    if field.chunks:
        _check_chunks(field)
    return field[()]


def _check_chunks(field):
    """Refuse chunks that do not have the declared size; HDF5 relies on it."""
    settings, chunks = field.id.get_create_plist(), []
    filters = [settings.get_filter(n)[0] for n in range(settings.get_nfilters())]
    n_chunks = math.prod(map(math.ceil, np.divide(field.shape, field.chunks)))
    nbytes = math.prod(field.chunks) * field.dtype.itemsize
    field.id.chunk_iter(chunks.append)
    largest = max((chunk.size for chunk in chunks), default=0)
    is_known = filters in ([], [DEFLATE], [SHUFFLE, DEFLATE])
    if not is_known or n_chunks > 2**16 or max(nbytes, largest) > 8 * MAX_SIDE**2:
        raise ValueError("got too large or too many chunks, or an unknown compression")
    for chunk in chunks:
        out = np.empty(chunk.size, np.uint8)  # else h5py may write beyond its buffer
        skipped, content = field.id.read_direct_chunk(chunk.chunk_offset, out=out)
        if filters and not skipped >> (len(filters) - 1) & 1:
            decoder = zlib.decompressobj()
            content = decoder.decompress(content, nbytes + 1)
            content = content if decoder.eof else b""  # HDF5 would wait for more
        if len(content) != nbytes:
            raise ValueError(f"got a damaged chunk, expected {nbytes} bytes")
