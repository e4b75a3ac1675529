"""Guarded reading of HDF5: it follows links, allocates any size, trusts chunks."""

import math
import re
import struct
import zlib

import h5py
import numpy as np

from braintumor.core.errors import DatasetError, require
from braintumor.core.files import memory_map
from braintumor.data.preprocessing import MAX_SIDE

DEFLATE, SHUFFLE = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE
FLETCHER32 = h5py.h5z.FILTER_FLETCHER32
KNOWN_FILTERS = {(), (DEFLATE,), (SHUFFLE, DEFLATE)}
KNOWN_FILTERS |= {(*filters, FLETCHER32) for filters in KNOWN_FILTERS}


def open_mat(path):
    """Open a MATLAB v7.3 file; errors are of half a dozen types."""
    with memory_map(path) as content:
        got = "v5 to v7" if content[:10] == b"MATLAB 5.0" else "v4 or another format"
        is_v73 = content[:10] == b"MATLAB 7.3" or h5py.is_hdf5(path)
        require(is_v73, "MATLAB version", got, "v7.3 (HDF5)", "Save it with -v7.3")
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
                raise DatasetError("a global heap holds objects of size 0")
            start += step


def read_field(field, name):
    """Return the numeric array `name` of an open file, or raise a DatasetError."""
    for part in name.split("/"):
        link = field.get(part, getlink=True) if isinstance(field, h5py.Group) else None
        field = field[part] if isinstance(link, h5py.HardLink) else None
    is_array = isinstance(field, h5py.Dataset) and field.dtype.kind in "biuf"
    if not is_array or field.external or field.is_virtual:
        raise DatasetError("missing, or not numbers in this file")
    is_plain = field.id.get_type() == h5py.h5t.py_create(field.dtype)
    if not is_plain or not 0 < field.size <= MAX_SIDE**2:
        raise DatasetError(f"got {field.size} values, expected 1 to {MAX_SIDE}^2")
    if field.chunks:
        _check_chunks(field)
    return field[()]


def _check_chunks(field):
    """Refuse chunks that do not have the declared size; HDF5 relies on it."""
    settings, chunks = field.id.get_create_plist(), []
    filters = [settings.get_filter(n) for n in range(settings.get_nfilters())]
    names = ", ".join(item[3].decode(errors="replace") for item in filters)
    filters = tuple(item[0] for item in filters)
    what, remedy = "compression", "Save it with -v7.3, or with gzip"
    require(filters in KNOWN_FILTERS, what, names, "none or gzip", remedy)
    n_chunks = math.prod(map(math.ceil, np.divide(field.shape, field.chunks)))
    nbytes = math.prod(field.chunks) * field.dtype.itemsize
    field.id.chunk_iter(chunks.append)
    largest = max((chunk.size for chunk in chunks), default=0)
    if n_chunks > 2**16 or max(nbytes, largest) > 8 * MAX_SIDE**2:
        raise DatasetError("got too large or too many chunks")
    for chunk in chunks:
        out = np.empty(chunk.size, np.uint8)  # else h5py may write beyond its buffer
        skipped, content = field.id.read_direct_chunk(chunk.chunk_offset, out=out)
        used = {code for n, code in enumerate(filters) if not skipped >> n & 1}
        if FLETCHER32 in used:
            content = content[:-4]  # the checksum, which HDF5 compares
        if DEFLATE in used:
            decoder = zlib.decompressobj()
            content = decoder.decompress(content, nbytes + 1)
            content = content if decoder.eof else b""  # HDF5 would wait for more
        if len(content) != nbytes:
            raise DatasetError(f"got a damaged chunk, expected {nbytes} bytes")
