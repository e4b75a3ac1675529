"""Guarded reading of MATLAB v7.3 (HDF5) files, which may be damaged or hostile.

HDF5 follows links into other files, allocates any size that a header declares, and
reads beyond its memory where a chunk is shorter than declared.
"""

import math
import re
import zlib
from contextlib import contextmanager

import h5py
import numpy as np

from braintumor.core.errors import DatasetError, shorten
from braintumor.core.files import memory_map
from braintumor.data.preprocessing import MAX_SIDE

MAX_CHUNKS = 2**16  # MATLAB writes some dozens per field
DEFLATE, SHUFFLE = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE


@contextmanager
def open_mat(path):
    """Yield the open file; failures of h5py raise a DatasetError that names `path`."""
    if not path.is_file():  # opening a named pipe would block
        raise DatasetError(f"{path}: no such file, expected a MATLAB v7.3 (HDF5) file")
    try:
        with memory_map(path) as content:
            _check_heaps(content)
        with h5py.File(path, "r") as mat:
            yield mat
    except DatasetError:
        raise
    except Exception as error:  # h5py raises half a dozen types
        raise DatasetError(
            f"{path}: cannot be read as a MATLAB v7.3 (HDF5) file ({shorten(error)}). "
            "It may be damaged; download it again."
        ) from None


def _check_heaps(content):
    """Refuse global heaps with objects of size 0: HDF5 2.0 would loop forever."""
    for match in re.finditer(rb"GCOL\x01\0\0\0(.{8})", content, re.DOTALL):
        end = match.start() + int.from_bytes(match[1], "little")
        start = match.end()
        while start + 16 <= min(end, len(content)):
            number = int.from_bytes(content[start : start + 2], "little")
            size = int.from_bytes(content[start + 8 : start + 16], "little")
            step = 16 + -(-size // 8) * 8 if number else size
            if not 0 < step < 2**64:  # 2**64 overflows to 0
                raise ValueError("a global heap holds objects of size 0")
            start += step


def get_member(group, name):
    """Return a member of an HDF5 group, or None if it is missing or a link."""
    is_local = isinstance(group.get(name, getlink=True), h5py.HardLink)
    return group.get(name) if is_local else None


def read_field(group, name):
    """Return the numeric array `name` of an HDF5 group, or raise a ValueError."""
    field = get_member(group, name)
    if not isinstance(field, h5py.Dataset):
        raise ValueError("is missing, expected an array of numbers")
    if field.dtype.kind not in "biuf":
        raise ValueError(f"got {shorten(field.dtype)}, expected numbers")
    if not field.size or field.size > MAX_SIDE**2:
        raise ValueError(f"got shape {field.shape}, expected 1 to {MAX_SIDE}^2 values")
    if field.external or field.is_virtual:
        raise ValueError("is stored in another file, expected values in this file")
    if field.chunks:
        return _read_chunks(field)
    if field.id.get_storage_size() != field.nbytes:
        raise ValueError(f"stores too few bytes, expected {field.nbytes}")
    return field[()]


def _read_chunks(field):
    settings = field.id.get_create_plist()
    filters = [settings.get_filter(n)[0] for n in range(settings.get_nfilters())]
    is_plain = field.id.get_type().equal(h5py.h5t.py_create(field.dtype))
    if not is_plain or filters not in ([], [DEFLATE], [SHUFFLE, DEFLATE]):
        raise ValueError("has an unknown storage, expected plain numbers or gzip")
    nbytes = math.prod(field.chunks) * field.dtype.itemsize
    n_chunks = int(np.prod(np.ceil(np.divide(field.shape, field.chunks))))
    chunks = []
    field.id.chunk_iter(chunks.append)
    if nbytes > 8 * MAX_SIDE**2 or not len(chunks) == n_chunks <= MAX_CHUNKS:
        raise ValueError(f"got {len(chunks)} chunks, expected {n_chunks} of {nbytes} B")
    values = np.zeros(field.shape, field.dtype)
    for chunk in chunks:
        if chunk.size > nbytes + nbytes // 1000 + 64:  # gzip adds little
            raise ValueError(f"got a chunk of {chunk.size} bytes, expected {nbytes}")
        stored = np.empty(chunk.size, np.uint8)
        skipped, stored = field.id.read_direct_chunk(chunk.chunk_offset, out=stored)
        active = [name for n, name in enumerate(filters) if not skipped >> n & 1]
        content = _decode_chunk(stored, active, nbytes, field.dtype.itemsize)
        part = values[tuple(slice(start, None) for start in chunk.chunk_offset)]
        part = part[tuple(map(slice, field.chunks))]  # smaller at the edges
        dtype = np.uint8 if part.dtype.kind == "b" else part.dtype  # any byte but 0
        content = np.frombuffer(content, dtype).reshape(field.chunks)
        part[...] = content[tuple(map(slice, part.shape))]
    return values


def _decode_chunk(stored, filters, nbytes, itemsize):
    """Undo the filters of a chunk, which must then hold `nbytes` bytes."""
    if DEFLATE in filters:
        decompressor = zlib.decompressobj()
        stored = decompressor.decompress(stored, nbytes + 1)
        if not decompressor.eof:
            raise ValueError(f"a compressed chunk is damaged, expected {nbytes} bytes")
    if len(stored) != nbytes:
        raise ValueError(f"got a chunk of {len(stored)} bytes, expected {nbytes}")
    if SHUFFLE in filters:
        return np.frombuffer(stored, np.uint8).reshape(itemsize, -1).T.tobytes()
    return bytes(stored)
