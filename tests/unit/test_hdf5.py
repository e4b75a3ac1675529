"""HDF5 cannot lead to other files, take any memory, or read beyond its own."""

import zlib

import h5py
import numpy as np
import pytest
from samples import IMAGE, SIDE, write_sample

from braintumor.core.errors import DatasetError
from braintumor.data.figshare import read_cvind, read_mat

GZIP = {"compression": "gzip"}


def write_field(path, make, name="image"):
    """Write a sample whose field `name` is made by make(group, name)."""
    write_sample(path, fields={name: None})
    with h5py.File(path, "r+") as mat:
        make(mat["cjdata"], name)
    return path


def chunk(content, chunks=(SIDE, SIDE), **settings):
    """Make a field whose first chunk has these bytes, whatever is declared."""

    def make(group, name):
        shape = (SIDE, SIDE)
        settings.setdefault("maxshape", (None, None))
        group.create_dataset(name, shape, np.int16, chunks=chunks, **settings)
        group[name].id.write_direct_chunk((0, 0), content)

    return make


def data(dtype="i2", shape=(SIDE, SIDE), **settings):
    return lambda group, name: group.create_dataset(name, shape, dtype, **settings)


def link(target):
    return lambda group, name: group.update({name: target})


def virtual(group, name):
    layout = h5py.VirtualLayout((SIDE, SIDE), np.int16)
    layout[...] = h5py.VirtualSource(".", f"/cjdata/{name}", (SIDE, SIDE))  # itself
    group.create_virtual_dataset(name, layout)


HOSTILE = {
    "link to another file": link(h5py.ExternalLink("2.mat", "/cjdata/image")),
    "values in another file": data(external=[("/etc/hostname", 0, 2048)]),
    "virtual": virtual,
    "never stored": data("f8", (4096, 4096)),
    "too large": data("u1", (4097, 4096)),
    "text": data("S9"),
    "some chunks": chunk(bytes(512), (16, 16)),
    "short chunk": chunk(zlib.compress(b"short"), **GZIP),
    "bomb": chunk(zlib.compress(bytes(10**6)), **GZIP),
    "damaged chunk": chunk(zlib.compress(bytes(2048))[:-3], **GZIP),
    "long plain chunk": chunk(bytes(3000)),
    "short plain chunk": chunk(bytes(40)),
    "huge chunk": chunk(bytes(9), (30_000, 30_000), **GZIP),
    "tiny chunks": data("u1", (4096, 4096), chunks=(1, 1)),
    "other compression": chunk(bytes(9), compression="lzf"),
    "short chunk with a checksum": chunk(bytes(9), fletcher32=True),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_field_is_refused(tmp_path, case):
    write_sample(tmp_path / "2.mat")
    path = write_field(tmp_path / "1.mat", HOSTILE[case])
    reason = "compression: got lzf.*-v7.3" if case == "other compression" else ""
    with pytest.raises(DatasetError, match=f"{path}: image: {reason}"):
        read_mat(path)


def test_struct_or_cvind_behind_a_link_is_refused(tmp_path):
    write_sample(tmp_path / "2.mat")
    for name, target in (("1.mat", "cjdata"), ("cvind.mat", "cvind")):
        with h5py.File(tmp_path / name, "w") as mat:
            mat[target] = h5py.ExternalLink("2.mat", "/cjdata")
    for read, path in ((read_mat, tmp_path / "1.mat"), (read_cvind, tmp_path)):
        with pytest.raises(DatasetError, match=r"(1|cvind)\.mat: "):
            read(path)


def test_heap_that_hdf5_would_read_forever_is_refused(tmp_path):
    path = write_field(tmp_path / "1.mat", virtual)
    content = bytearray(path.read_bytes())
    start = content.index(b"GCOL") + 16
    content[start : start + 16] = bytes(16)  # an object of size 0
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="1.mat: .*heap"):
        read_mat(path)


HDF5STORAGE = GZIP | {"shuffle": True, "fletcher32": True}  # as this package writes


@pytest.mark.parametrize("settings", [{}, GZIP, {"fletcher32": True}, HDF5STORAGE])
@pytest.mark.parametrize("dtype", ["<i2", ">f4"])
def test_image_in_chunks_is_read(tmp_path, settings, dtype):
    image = (IMAGE // 8).astype(dtype)
    make = data(dtype, data=image, chunks=(7, 20), **settings)
    item = read_mat(write_field(tmp_path / "1.mat", make))
    assert np.array_equal(item.image, image.T) and item.image.dtype.isnative
