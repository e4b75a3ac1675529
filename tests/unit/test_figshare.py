"""figshare's files are read upright and checked field by field."""

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


@pytest.mark.parametrize(
    "start, version", [(b"MATLAB 5.0 MAT-file", "v5 to v7"), (b"\0\0\0\0", "v4")]
)
def test_other_version_of_matlab_is_named(tmp_path, start, version):
    path = tmp_path / "cvind.mat"
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
