"""figshare's files are read upright and checked, and lead to no other file."""

import zlib

import h5py
import numpy as np
import pytest
from samples import BORDER, IMAGE, MASK, SIDE, write_sample

from braintumor.core.errors import DatasetError
from braintumor.data.figshare import read_cvind, read_mat, write_cvind

NAN = IMAGE.astype(float)
NAN[3, 4] = np.nan
BROKEN = {
    "image": ["text", np.ones((SIDE, SIDE, 3)), IMAGE[:8, :8], np.ones((0, 0)), NAN],
    "tumorMask": [MASK[:31, :31], MASK + 3, MASK + IMAGE % 3, MASK * 0],
    "label": [[[0.0]], [[1.5]], [[np.nan]], [[1.0, 2.0]]],
    "PID": [np.full((1, 1), 7, np.uint16), np.full((65, 1), 49, np.uint16), [[49.5]]],
    "tumorBorder": [[BORDER[:7]], [BORDER[:4]], [[np.nan] * 6]],
}


def test_slice_is_upright_as_it_was_written(tmp_path):
    path = write_sample(tmp_path / "30.mat", label=2, pid="MR040240B")
    item = read_mat(path)
    assert (item.file, item.pid, item.label) == (30, "MR040240B", 2)
    assert np.array_equal(item.image, IMAGE) and item.image.dtype == np.int16
    assert np.array_equal(item.mask, MASK) and item.mask.dtype == bool
    assert item.border.tolist() == [[19, 6], [22, 6], [22, 12], [19, 12]]
    assert (item.fold, item.plane, item.spacing_mm) == (None, None, None)
    with h5py.File(path, "r+") as mat:  # stored by column; masks may have any value
        assert np.array_equal(mat["cjdata/image"], IMAGE.T)
        mat["cjdata/tumorMask"][...] = MASK.T * 255
    assert np.array_equal(read_mat(path).mask, MASK)
    assert read_mat(path.rename(tmp_path / "slice.mat")).file == 0


@pytest.mark.parametrize(
    "field, value",
    [(name, value) for name in BROKEN for value in (None, *BROKEN[name])],
)
def test_broken_field_is_named(tmp_path, field, value):
    path = write_sample(tmp_path / "7.mat", fields={field: value})
    with pytest.raises(DatasetError, match=f"^{path}: {field}: [^;]*$"):
        read_mat(path)


def test_image_that_is_not_square_is_padded(tmp_path):
    fields = {"image": IMAGE[:, :20].T, "tumorMask": MASK[:, :20].T}
    item = read_mat(write_sample(tmp_path / "1.mat", fields=fields))
    assert item.image.shape == item.mask.shape == (SIDE, SIDE)
    assert np.array_equal(item.image[:, :20], IMAGE[:, :20])
    assert np.all(item.image[:, 20:] == IMAGE[:, :20].min())
    assert not item.mask[:, 20:].any()


def test_other_version_of_matlab_is_named(tmp_path):
    path = tmp_path / "cvind.mat"
    for start, version in ((b"MATLAB 5.0 MAT-file", "v5 to v7"), (bytes(4), "v4")):
        path.write_bytes(start + bytes(500))
        for read, argument in ((read_mat, path), (read_cvind, tmp_path)):
            with pytest.raises(DatasetError, match=f"{path}: .*{version}.*-v7.3"):
                read(argument)


def test_cvind_is_in_the_order_of_the_file_numbers(tmp_path):
    assert read_cvind(tmp_path) is None
    write_cvind(tmp_path / "cvind.mat", [5, 1, 3, 3])
    assert read_cvind(tmp_path).tolist() == [5, 1, 3, 3]
    for values in ([1, 2, 0], [1, 6, 2], [1.5, 2]):
        write_cvind(tmp_path / "cvind.mat", values)
        with pytest.raises(DatasetError, match="cvind.mat: cvind"):
            read_cvind(tmp_path)


# HDF5

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
