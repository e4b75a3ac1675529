"""Reading figshare's layout and a reader's own slices: upright, checked, prepared whole or not at all."""

import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from braintumor.core.errors import DatasetError
from braintumor.core.files import ROOT
from braintumor.data import prepared as dataset
from braintumor.data.phantom import write_cvind, write_slice
from braintumor.data.prepared import (
    check,
    export_png,
    find_slices,
    open_data,
    open_prepared,
    prepare,
    read_cvind,
    read_slice,
    scaled,
    scaled_mask,
    slice_by_number,
)

FIGSHARE = ROOT.parent / "shared/data/figshare-1512427"
SIDE = 32
IMAGE = np.random.default_rng(0).integers(0, 2000, (SIDE, SIDE)).astype(np.int16)
MASK = np.zeros((SIDE, SIDE), np.uint8)
MASK[5:12, 18:22] = 1  # upper right
BORDER = [19.0, 6.0, 22.0, 6.0, 22.0, 12.0, 19.0, 12.0]


def write_mat(path, label=1, pid="P1", image=IMAGE, mask=MASK, stored=()):
    """A good slice, but for `stored`, a dict of fields: they replace what is in the file, None removes them."""
    write_slice(path, image, mask, label, pid, BORDER)
    with h5py.File(path, "r+") as mat:
        for name, value in dict(stored).items():
            del mat["cjdata"][name]
            if value is not None:
                mat["cjdata"][name] = value
    return path


def write_patients(folder, cvind=True):
    """A small set of 15 patients of two slices, five of each label; fold 1 to 5 within each label."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(30):
        write_mat(folder / f"{n + 1}.mat", label=n // 10 + 1, pid=f"P{n // 2}", image=np.roll(IMAGE, n, axis=1))
    if cvind:
        write_cvind(folder / "cvind.mat", [n // 2 % 5 + 1 for n in range(30)])
    return folder


def prepared_of(folder, out, size=16, **settings):
    return prepare(folder, out, size, **({"workers": 1, "progress": False} | settings))


def refusal(function, *args, **settings):
    """The message of the DatasetError that function(*args) raises."""
    with pytest.raises(DatasetError) as caught:
        function(*args, **settings)
    return str(caught.value)


def lacks(message, *words):
    return [word for word in words if str(word) not in message]


# One figshare file.


def test_slice_is_read_as_it_was_written(tmp_path):
    one = read_slice(write_mat(tmp_path / "30.mat", label=2, pid="MR040240B"))
    assert (one.file, one.pid, one.label) == (30, "MR040240B", 2)
    assert np.array_equal(one.image, IMAGE) and one.image.dtype == np.int16
    assert np.array_equal(one.mask, MASK) and one.mask.dtype == bool
    assert one.border.tolist() == [[19, 6], [22, 6], [22, 12], [19, 12]]
    assert (one.fold, one.plane, one.spacing_mm) == (None, None, None)


def test_slice_is_upright_though_hdf5_holds_it_transposed(tmp_path):
    image = np.zeros((SIDE, SIDE), np.int16)
    image[2, 20:30] = 100  # a stroke at the upper right
    path = write_mat(tmp_path / "1.mat", image=image)
    with h5py.File(path) as mat:
        assert mat["cjdata/image"][20:30, 2].tolist() == [100] * 10
    one = read_slice(path)
    assert one.image[2, 20:30].tolist() == [100] * 10
    # the border's x goes right and its y down, in pixels counted from 1
    rows, columns = np.nonzero(one.mask)
    assert (one.border.min(0) - 1).tolist() == [columns.min(), rows.min()]
    assert (one.border.max(0) - 1).tolist() == [columns.max(), rows.max()]


NAN = IMAGE.astype(float)
NAN[3, 4] = np.nan
FAULTS = {
    "no-image": ({"image": None}, ["image", "missing"]),
    "no-mask": ({"tumorMask": None}, ["tumorMask", "missing"]),
    "no-label": ({"label": None}, ["label", "missing"]),
    "no-pid": ({"PID": None}, ["PID", "missing"]),
    "no-border": ({"tumorBorder": None}, ["tumorBorder", "missing"]),
    "text-for-image": ({"image": "a slice"}, ["image", "expected numbers"]),
    "three-dimensions": ({"image": np.ones((SIDE, SIDE, 3))}, ["image", "(3, 32, 32)", "expected a square"]),
    "one-dimension": ({"image": IMAGE.ravel()}, ["image", "(1024,)", "expected a square"]),
    "not-square": ({"image": IMAGE[:20]}, ["image", "(32, 20)", "expected a square"]),
    "tiny-image": ({"image": IMAGE[:8, :8]}, ["image", "(8, 8)", "16 x 16"]),
    "empty-image": ({"image": np.ones((0, 0))}, ["image", "(0, 0)", "expected 1 to"]),
    "nan": ({"image": NAN}, ["image", "NaN", "expected finite"]),
    "infinite": ({"image": np.where(np.isnan(NAN), np.inf, NAN)}, ["image", "infinite", "expected finite"]),
    "constant": ({"image": np.full((SIDE, SIDE), 7)}, ["image", "every pixel is 7", "expected an MR slice"]),
    "other-mask-shape": ({"tumorMask": MASK[:31, :31]}, ["tumorMask", "(31, 31)", "expected the image's (32, 32)"]),
    "mask-of-2": ({"tumorMask": MASK * 2}, ["tumorMask", "other than 0 and 1"]),
    "mask-of-halves": ({"tumorMask": MASK * 0.5}, ["tumorMask", "other than 0 and 1"]),
    "empty-mask": ({"tumorMask": MASK * 0}, ["tumorMask", "empty", "expected a tumor"]),
    "label-0": ({"label": [[0.0]]}, ["label", "0", "expected 1 (meningioma), 2 (glioma) or 3 (pituitary tumor)"]),
    "label-4": ({"label": [[4.0]]}, ["label", "4", "expected 1 (meningioma)"]),
    "label-between": ({"label": [[1.5]]}, ["label", "1.5", "expected 1 (meningioma)"]),
    "label-nan": ({"label": [[np.nan]]}, ["label", "nan", "expected 1 (meningioma)"]),
    "two-labels": ({"label": [[1.0, 2.0]]}, ["label", "expected one number"]),
    "pid-control-codes": ({"PID": np.array([[49], [7]], np.uint16)}, ["PID", "expected up to 64 printable"]),
    "pid-space": ({"PID": np.array([[49], [32]], np.uint16)}, ["PID", "expected up to 64 printable"]),
    "pid-long": ({"PID": np.full((65, 1), 49, np.uint16)}, ["PID", "expected up to 64 printable"]),
    "pid-fractions": ({"PID": [[49.5]]}, ["PID", "expected up to 64 printable"]),
    "odd-border": ({"tumorBorder": [BORDER[:7]]}, ["tumorBorder", "7 values", "expected x1 y1 x2 y2"]),
    "short-border": ({"tumorBorder": [BORDER[:4]]}, ["tumorBorder", "4 values", "three finite points"]),
    "nan-border": ({"tumorBorder": [[np.nan] * 6]}, ["tumorBorder", "three finite points"]),
}


@pytest.mark.parametrize("case", FAULTS)
def test_fault_is_told_with_file_field_and_what_was_expected(tmp_path, case):
    stored, words = FAULTS[case]
    path = write_mat(tmp_path / "7.mat", stored=stored)
    message = refusal(read_slice, path)
    assert message.startswith(f"{path}: {words[0]}: ") and not lacks(message, *words)
    assert message.count(f"{path}: ") == 1  # no other field is blamed


def test_file_with_several_faults_tells_them_all(tmp_path):
    stored = {"tumorBorder": [BORDER[:7]], "tumorMask": MASK * 3, "PID": None}
    path = write_mat(tmp_path / "7.mat", label=9, stored=stored)
    message = refusal(read_slice, path)
    assert not lacks(message, "label: is 9", "tumorBorder: holds 7", "tumorMask: holds", "PID: is missing")
    assert message.count(str(path)) == 4


def test_file_without_the_struct_is_told(tmp_path):
    with h5py.File(tmp_path / "1.mat", "w") as mat:
        mat["image"] = IMAGE
    assert not lacks(refusal(read_slice, tmp_path / "1.mat"), tmp_path / "1.mat", "cjdata is missing", "expected")
    with h5py.File(tmp_path / "2.mat", "w") as mat:
        mat["cjdata"] = IMAGE
    assert not lacks(refusal(read_slice, tmp_path / "2.mat"), tmp_path / "2.mat", "cjdata", "struct")


@pytest.mark.parametrize("share", [0, 0.3, 0.7, 0.99])
def test_truncated_file_is_told(tmp_path, share):
    path = write_mat(tmp_path / "1.mat")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert not lacks(refusal(read_slice, path), path, "cut short", "HDF5")


@pytest.mark.parametrize("content", [b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(500), b"<html>not found</html>"])
def test_file_that_is_not_hdf5_is_told(tmp_path, content):
    (tmp_path / "1.mat").write_bytes(content)
    assert not lacks(refusal(read_slice, tmp_path / "1.mat"), tmp_path / "1.mat", "MATLAB v7.3 (HDF5)")


def test_damage_inside_a_file_is_told(tmp_path):
    image = np.random.default_rng(1).integers(0, 2000, (128, 128)).astype(np.int16)
    path = write_mat(tmp_path / "1.mat", image=image, mask=np.ones((128, 128)))
    with h5py.File(path) as mat:
        start = mat["cjdata/image"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[start : start + 200] = bytes(200)
    path.write_bytes(content)
    assert not lacks(refusal(read_slice, path), path, "cannot be read", "download it again")


# What a hostile file could do through HDF5: lead to other files, take any memory, or have it read beyond its own.


def replaced(path, name, make):
    """A good slice whose field `name` is made anew by make(group, name)."""
    write_mat(path, stored={name: None})
    with h5py.File(path, "r+") as mat:
        make(mat["cjdata"], name)
    return path


def chunk(stored, chunks=(SIDE, SIDE), **settings):
    """Makes a field of one chunk with these bytes, whatever the field declares."""

    def make(group, name):
        settings.setdefault("maxshape", (None, None))
        group.create_dataset(name, (SIDE, SIDE), np.int16, chunks=chunks, **settings)
        group[name].id.write_direct_chunk((0, 0), stored)

    return make


def virtual(group, name):
    layout = h5py.VirtualLayout((SIDE, SIDE), np.int16)
    layout[...] = h5py.VirtualSource(".", f"/cjdata/{name}", (SIDE, SIDE))  # of itself: HDF5 would follow it for ever
    group.create_virtual_dataset(name, layout)


def other_type(group, name):
    kind = h5py.h5t.STD_I16LE.copy()
    kind.set_precision(12)
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk((SIDE, SIDE))
    h5py.h5d.create(group.id, name.encode(), kind, h5py.h5s.create_simple((SIDE, SIDE)), settings)


GZIP = {"compression": "gzip"}
STORED = {
    "link-to-another-file": (
        lambda group, name: group.update({name: h5py.ExternalLink("2.mat", "/cjdata/image")}),
        "missing",
    ),
    "link-inside": (lambda group, name: group.update({name: h5py.SoftLink("/cjdata/tumorMask")}), "missing"),
    "values-in-another-file": (
        lambda group, name: group.create_dataset(name, (SIDE, SIDE), "i2", external=[("/etc/hostname", 0, 2048)]),
        "refers to values elsewhere",
    ),
    "virtual": (virtual, "refers to values elsewhere"),
    "never-stored": (lambda group, name: group.create_dataset(name, (4096, 4096), "f8"), "stores 0 bytes"),
    "some-chunks": (chunk(bytes(512), (16, 16)), "stores 1 pieces; expected 4"),
    "short-chunk": (chunk(zlib.compress(b"short"), **GZIP), "a piece has 5 bytes; expected 2048"),
    "bomb": (chunk(zlib.compress(bytes(10**6)), **GZIP), "cut short, or has over 2048 bytes"),
    "damaged-chunk": (chunk(zlib.compress(bytes(2048))[:-3], **GZIP), "cut short, or has over 2048 bytes"),
    "long-plain-chunk": (chunk(bytes(3000)), "has 3000 bytes; expected 2048"),
    "short-plain-chunk": (chunk(bytes(40)), "has 40 bytes; expected 2048"),
    "huge-chunk": (chunk(bytes(9), (30_000, 30_000), **GZIP), "in 1 pieces of 1800000000 bytes"),
    "tiny-chunks": (
        lambda group, name: group.create_dataset(name, (4096, 4096), "u1", chunks=(1, 1)),
        "in 16777216 pieces",
    ),
    "other-compression": (chunk(bytes(9), compression="lzf"), "in a way that MATLAB does not use"),
    "checksum-only": (chunk(bytes(9), fletcher32=True), "in a way that MATLAB does not use"),
    "numbers-of-12-bits": (other_type, "in a way that MATLAB does not use"),
}


@pytest.mark.parametrize("case", STORED)
def test_field_that_is_not_plainly_in_the_file_is_refused(tmp_path, case):
    make, words = STORED[case]
    write_mat(tmp_path / "2.mat")
    path = replaced(tmp_path / "1.mat", "image", make)
    assert not lacks(refusal(read_slice, path), path, "image", words)


@pytest.mark.parametrize("settings", [{}, GZIP, GZIP | {"shuffle": True}], ids=["plain", "gzip", "shuffled"])
@pytest.mark.parametrize("dtype", ["<i2", ">i2", "u1", "<f8", ">f4"])
def test_field_in_chunks_is_read_as_hdf5_would(tmp_path, settings, dtype):
    image = (IMAGE // 8).astype(dtype)

    def make(group, name):
        group.create_dataset(name, data=image, chunks=(7, 20), **settings)

    one = read_slice(replaced(tmp_path / "1.mat", "image", make))
    assert np.array_equal(one.image, image.T) and one.image.dtype == np.dtype(dtype).newbyteorder("=")


def test_chunk_that_was_not_compressed_is_read(tmp_path):
    def make(group, name):
        group.create_dataset(name, data=IMAGE, chunks=(16, SIDE), compression="gzip")
        group[name].id.write_direct_chunk((0, 0), IMAGE[:16].tobytes(), filter_mask=1)  # HDF5 does so with noise

    assert np.array_equal(read_slice(replaced(tmp_path / "1.mat", "image", make)).image, IMAGE.T)


def test_mask_of_yes_and_no_in_chunks_is_read(tmp_path):
    def make(group, name):
        group.create_dataset(name, data=MASK.T.astype(bool), chunks=(7, 20), compression="gzip")

    assert np.array_equal(read_slice(replaced(tmp_path / "1.mat", "tumorMask", make)).mask, MASK)


@pytest.mark.parametrize("size", [0, 2**64 - 16])
def test_heap_that_hdf5_would_read_for_ever_is_refused(tmp_path, size):
    path = replaced(tmp_path / "1.mat", "image", virtual)
    content = bytearray(path.read_bytes())
    at = content.index(b"GCOL") + 16
    content[at : at + 16] = (1 if size else 0).to_bytes(8, "little") + size.to_bytes(8, "little")
    path.write_bytes(content)
    code = "import sys; from braintumor.data.prepared import read_slice; read_slice(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=60)
    assert not lacks(done.stderr, "DatasetError", str(path), "a heap of this HDF5 file has objects of no size")


def test_struct_that_is_a_link_is_not_followed(tmp_path):
    write_mat(tmp_path / "2.mat")
    with h5py.File(tmp_path / "1.mat", "w") as mat:
        mat["cjdata"] = h5py.ExternalLink("2.mat", "/cjdata")
    assert not lacks(refusal(read_slice, tmp_path / "1.mat"), "cjdata is missing")


@pytest.mark.parametrize("low, high", [(-1e300, 1e300), (0, 1e16), (0, 1e-20), (5e-324, 1e-323)])
def test_intensities_that_cannot_be_scaled_are_refused(tmp_path, low, high):
    image = np.where(MASK, high, low)
    message = refusal(read_slice, write_mat(tmp_path / "1.mat", stored={"image": image}))
    assert not lacks(message, "image: intensities are from", f"to {high:g}", "none over 1e+15")


def test_pipe_is_not_waited_for(tmp_path):
    for name in ("1.mat", "cvind.mat"):
        os.mkfifo(tmp_path / name)
    assert not lacks(refusal(read_slice, tmp_path / "1.mat"), tmp_path / "1.mat", "no such file")
    assert not lacks(refusal(read_cvind, tmp_path), tmp_path / "cvind.mat", "no such file")


@pytest.mark.parametrize("name", ["slice.mat", "1a.mat", "-1.mat", "1.5.mat", "1234567890.mat"])
def test_file_not_named_by_a_number_is_told(tmp_path, name):
    assert not lacks(refusal(read_slice, write_mat(tmp_path / name)), name, "such as 30.mat")


# A folder.


def test_slices_are_found_by_number_in_subfolders_too(tmp_path):
    for name in ("10.mat", "a/9.mat", "b/c/2.mat", "a/notes.mat", "a/README.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    write_cvind(tmp_path / "cvind.mat", [1] * 10)
    found = find_slices(tmp_path)
    assert [source.file for source in found] == [2, 9, 10]
    assert [source.path for source in found] == [tmp_path / name for name in ("b/c/2.mat", "a/9.mat", "10.mat")]


@pytest.mark.parametrize("other", ["sub/1.mat", "01.mat"])
def test_file_number_twice_is_refused(tmp_path, other):
    (tmp_path / "sub").mkdir()
    for name in ("1.mat", other):
        write_mat(tmp_path / name)
    assert not lacks(refusal(find_slices, tmp_path), tmp_path / "1.mat", tmp_path / other, "number 1 is there twice")


def test_no_such_folder(tmp_path):
    assert not lacks(refusal(find_slices, tmp_path / "none"), tmp_path / "none", "no such folder", "slices.csv")
    (tmp_path / "file").touch()
    assert "no such folder" in refusal(find_slices, tmp_path / "file")


def test_folder_without_slices(tmp_path):
    words = (tmp_path, "holds no slices", "1.mat", "slices.csv", "image, mask, label, patient")
    assert not lacks(refusal(find_slices, tmp_path), *words)
    write_cvind(tmp_path / "cvind.mat", [1])
    assert not lacks(refusal(prepared_of, tmp_path, tmp_path / "out"), *words)


def test_cvind_is_read_in_the_order_of_the_file_numbers(tmp_path):
    assert read_cvind(tmp_path) is None
    write_cvind(tmp_path / "cvind.mat", [5, 1, 3, 3])
    assert read_cvind(tmp_path).tolist() == [5, 1, 3, 3]


@pytest.mark.parametrize("values", [[1, 2, 0], [1, 6, 2], [1.5, 2], [np.nan, 1]])
def test_cvind_with_other_values_is_refused(tmp_path, values):
    write_cvind(tmp_path / "cvind.mat", values)
    message = refusal(read_cvind, tmp_path)
    assert not lacks(message, tmp_path / "cvind.mat", "cvind holds values other than 1 to 5", "expected")


def test_cvind_that_cannot_be_read_is_refused(tmp_path):
    path = tmp_path / "cvind.mat"
    path.write_bytes(b"no HDF5")
    assert not lacks(refusal(read_cvind, tmp_path), path, "field cvind cannot be read", "expected MATLAB v7.3")
    with h5py.File(path, "w") as mat:
        mat["other"] = [1.0]
    assert not lacks(refusal(read_cvind, tmp_path), path, "cvind: is missing")
    with h5py.File(path, "w") as mat:
        mat["cvind"] = "five"
    assert not lacks(refusal(read_cvind, tmp_path), path, "cvind")


def test_cvind_that_does_not_cover_the_files_is_refused(tmp_path):
    folder = write_patients(tmp_path / "set")
    write_cvind(folder / "cvind.mat", [1, 2, 3, 4, 5] * 5)
    message = refusal(prepared_of, folder, tmp_path / "out")
    assert not lacks(message, folder / "cvind.mat", "covers file numbers 1 to 25", "30.mat", "expected one entry")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("make", [STORED[case][0] for case in ("link-to-another-file", "virtual", "short-chunk")])
def test_cvind_that_is_not_plainly_in_the_file_is_refused(tmp_path, make):
    with h5py.File(tmp_path / "cvind.mat", "w") as mat:
        make(mat, "cvind")
    assert not lacks(refusal(read_cvind, tmp_path), tmp_path / "cvind.mat", "cvind")


def test_links_in_a_folder(tmp_path):
    """A folder of links to slices elsewhere is usual; a link to nothing, or in a circle, is a broken file."""
    (tmp_path / "set").mkdir()
    write_mat(tmp_path / "1.mat")
    (tmp_path / "set/1.mat").symlink_to(tmp_path / "1.mat")
    assert read_slice(find_slices(tmp_path / "set")[0]).label == 1
    (tmp_path / "set/2.mat").symlink_to(tmp_path / "none")
    (tmp_path / "set/3.mat").symlink_to(tmp_path / "set/3.mat")
    (tmp_path / "set/cvind.mat").symlink_to(tmp_path / "none")
    (tmp_path / "set/round").symlink_to(tmp_path / "set")
    faults = check(tmp_path / "set", progress=False)["faults"]
    assert [Path(path).name for path, _ in faults] == ["2.mat", "3.mat", "cvind.mat"]
    assert all("no such file" in fault for _, fault in faults)


# check


def test_check_of_a_whole_folder_finds_nothing_wrong(phantom_folder):
    report = check(phantom_folder, workers=1, progress=False)
    assert sum(report["found"].values()) == len(find_slices(phantom_folder))
    assert min(report["found"].values()) > 20 and set(report["found"]) == set(dataset.LABELS.values())
    assert (report["missing"], report["notes"], report["faults"]) == ([], [], [])


def test_check_lists_all_faults_of_all_files_and_missing_numbers(tmp_path):
    write_mat(tmp_path / "1.mat")
    write_mat(tmp_path / "3.mat", label=9, mask=MASK * 0)
    (tmp_path / "4.mat").write_bytes(b"cut")
    write_mat(tmp_path / "6.mat", label=3, stored={"image": None})
    write_mat(tmp_path / "7.mat", label=3, pid="P2")
    write_cvind(tmp_path / "cvind.mat", [1] * 8)
    report = check(tmp_path, progress=False)
    assert report["found"] == {"meningioma": 1, "glioma": 0, "pituitary tumor": 1}
    assert report["missing"] == [2, 5, 8]
    assert [(Path(path).name, fault.split(":")[0]) for path, fault in report["faults"] if "4.mat" not in path] == [
        ("3.mat", "label"),
        ("3.mat", "tumorMask"),
        ("6.mat", "image"),
    ]
    assert [fault for path, fault in report["faults"] if path.endswith("4.mat") and "cut short" in fault]
    assert len(report["faults"]) == 4 and report["notes"] == []


def test_check_notes_a_missing_cvind(tmp_path):
    write_mat(tmp_path / "1.mat")
    report = check(tmp_path, progress=False)
    assert len(report["notes"]) == 1 and not lacks(report["notes"][0], "cvind.mat is not there", "by family")
    assert report["missing"] == [] and report["faults"] == []


def test_check_tells_faults_of_the_folder_itself(tmp_path):
    assert "no such folder" in check(tmp_path / "none", progress=False)["faults"][0][1]
    write_mat(tmp_path / "3.mat")
    write_cvind(tmp_path / "cvind.mat", [1, 2])
    (fault,) = check(tmp_path, progress=False)["faults"]
    assert fault[0].endswith("cvind.mat") and "covers file numbers 1 to 2" in fault[1]


def test_check_changes_nothing(phantom_folder):
    before = sorted((path, path.stat().st_mtime_ns) for path in phantom_folder.rglob("*"))
    check(phantom_folder, workers=1, progress=False)
    assert sorted((path, path.stat().st_mtime_ns) for path in phantom_folder.rglob("*")) == before


# The prepared set.


def test_scaling_puts_the_percentiles_at_black_and_white():
    image = np.arange(10_000, dtype=np.int16).reshape(100, 100)
    got = scaled(image, 100)
    assert got.dtype == np.uint8
    assert (got == 0).mean() == pytest.approx(0.01, abs=0.003)
    assert (got == 255).mean() == pytest.approx(0.005, abs=0.003)
    middle = (np.arange(10_000) - 99.99) / (9949.005 - 99.99) * 255
    assert np.abs(got.ravel() - np.clip(middle, 0, 255)).max() <= 0.51


def test_scaling_does_not_depend_on_the_scanners_scale():
    image = np.random.default_rng(0).random((64, 64))
    assert np.array_equal(scaled(image * 3000 + 17, 32), scaled(image, 32))


def test_scaling_of_a_few_bright_pixels_uses_their_range():
    image = np.zeros((64, 64))
    image[3, 3] = 9
    assert scaled(image, 64)[3, 3] == 255 and scaled(image, 64).sum() == 255


def test_scaling_from_least_to_greatest_clips_nothing():
    image = np.arange(10_000, dtype=np.int16).reshape(100, 100) - 700
    got = scaled(image, 100, (0, 100))
    assert np.abs(got - (image + 700.0) / 9999 * 255).max() <= 0.51
    assert got[0, 0] == 0 and got[-1, -1] == 255
    outlier = np.where(image == 9299, 30_000, image)  # one pixel; the default's percentiles do not see it
    assert scaled(outlier, 100, (0, 100))[-1, -2] == round(9998 / 30_700 * 255)
    assert scaled(outlier, 100)[-1, -2] == 255


def test_resizing_averages_areas_and_a_mask_needs_half_of_the_pixel():
    image = np.zeros((4, 4))
    image[:2, :2] = [[0, 4], [4, 8]]
    image[2:, 2:] = 8
    assert scaled(image, 2).tolist() == [[128, 0], [0, 255]]
    mask = np.zeros((4, 4), bool)
    mask[0, :2] = mask[2, 2] = True
    got = scaled_mask(mask, 2)
    assert got.tolist() == [[1, 0], [0, 0]] and got.dtype == np.uint8


def test_index_of_the_phantom(phantom_folder, prepared):
    index = prepared.index
    assert set(index.columns) == {
        *("file", "pid", "family", "label", "plane", "fold", "size", "spacing_mm", "spacing_assumed"),
        *("tumor_area", "border", "mask_bits"),
    }
    planes = pd.read_csv(phantom_folder / "planes.csv").set_index("file")["plane"]
    assert index["file"].tolist() == list(range(1, len(planes) + 1))
    assert index["plane"].tolist() == planes.loc[index["file"]].tolist() and index["plane"].nunique() == 3
    assert np.array_equal(index["fold"], read_cvind(phantom_folder))
    assert {("MR990001", "MR990001"), ("MR990001B", "MR990001")} <= set(zip(index["pid"], index["family"], strict=True))
    one = read_slice(phantom_folder / "40.mat")
    row = index.iloc[39]
    assert (row["pid"], row["label"], row["size"]) == (one.pid, one.label, one.image.shape[0])
    assert row["tumor_area"] == one.mask.sum()
    assert np.array_equal(row["border"], one.border.ravel())


def test_prepared_arrays_are_the_scaled_slices(phantom_folder, prepared):
    count = len(find_slices(phantom_folder))
    assert prepared.images.shape == prepared.masks.shape == (count, 64, 64)
    assert prepared.images.dtype == prepared.masks.dtype == np.uint8
    assert isinstance(prepared.images, np.memmap) and set(np.unique(prepared.masks)) == {0, 1}
    for row in (0, 70, count - 1):
        one = read_slice(phantom_folder / f"{row + 1}.mat")
        assert np.array_equal(prepared.images[row], scaled(one.image, 64))
        assert np.array_equal(prepared.masks[row], scaled_mask(one.mask, 64))


def test_native_masks_come_back_at_the_size_they_were_drawn(phantom_folder, prepared):
    sizes = set()
    for row in range(len(prepared.index)):
        mask = prepared.native_mask(row)
        assert mask.dtype == bool
        assert np.array_equal(mask, read_slice(phantom_folder / f"{row + 1}.mat").mask)
        sizes.add(mask.shape)
    assert sizes == {(64, 64), (32, 32)}


def test_about_says_what_was_prepared(phantom_folder, prepared):
    about = prepared.about
    assert (about["kind"], about["size"], about["slices"]) == ("phantom", 64, len(prepared.index))
    assert about["source"] == str(phantom_folder) and len(about["digest"]) == 64


def test_about_and_digest_tell_the_percentiles_of_the_scaling(phantom_folder, prepared, tmp_path):
    other = prepared_of(phantom_folder, tmp_path / "out", 64, percentiles=(0, 100))
    assert (prepared.about["percentiles"], other.about["percentiles"]) == ([1, 99.5], [0, 100])
    assert np.array_equal(other.images[40], scaled(read_slice(phantom_folder / "41.mat").image, 64, (0, 100)))
    assert not np.array_equal(other.images, prepared.images) and np.array_equal(other.masks, prepared.masks)
    assert other.about["digest"] != prepared.about["digest"]
    assert open_prepared(tmp_path / "out").about == other.about


def test_spacing_of_512_pixels_is_published_and_of_256_assumed(tmp_path):
    rows, columns = np.mgrid[:512, :512]
    for number, side in ((1, 512), (2, 256)):
        write_mat(tmp_path / f"{number}.mat", image=(rows + columns)[:side, :side], mask=rows[:side, :side] > 200)
    (tmp_path / "phantom.json").write_text("{}")
    write_cvind(tmp_path / "cvind.mat", [1, 2])
    index = prepared_of(tmp_path, tmp_path / "out").index
    assert index["spacing_mm"].tolist() == pytest.approx([0.49, 0.98])
    assert index["spacing_assumed"].tolist() == [False, True]


def test_own_mat_files_have_no_spacing_and_no_plane(tmp_path):
    index = prepared_of(write_patients(tmp_path / "set"), tmp_path / "out").index
    assert index["spacing_mm"].isna().all() and not index["spacing_assumed"].any()
    assert index["plane"].eq("unknown").all()
    assert open_prepared(tmp_path / "out").about["kind"] == "folder"


def test_folds_are_made_by_patient_where_none_are_given(tmp_path):
    index = prepared_of(write_patients(tmp_path / "set", cvind=False), tmp_path / "out").index
    assert set(index["fold"]) == {1, 2, 3, 4, 5}
    assert index.groupby("pid")["fold"].nunique().eq(1).all()
    assert index.groupby("fold")["label"].nunique().eq(3).all()


def test_too_few_patients_to_make_folds_of(tmp_path):
    write_mat(tmp_path / "1.mat")
    assert not lacks(refusal(prepared_of, tmp_path, tmp_path / "out"), "label 1 has 1 patients", "at least 5")


def test_folder_with_some_of_the_files_works(tmp_path):
    folder = write_patients(tmp_path / "set")
    for number in (1, 2, 17, 30):
        (folder / f"{number}.mat").unlink()
    some = prepared_of(folder, tmp_path / "out").index
    assert len(some) == 26
    assert some.set_index("file")["fold"].loc[[3, 16, 29]].tolist() == [2, 3, 5]


def test_digest_tells_equal_data_from_changed_pixels(tmp_path):
    folder = write_patients(tmp_path / "set")
    first = prepared_of(folder, tmp_path / "a", 32).about["digest"]
    shutil.copytree(folder, tmp_path / "copy")
    assert prepared_of(tmp_path / "copy", tmp_path / "b", 32).about["digest"] == first
    changed = IMAGE.copy()
    changed[9, 9] = 1000 if IMAGE[9, 9] < 500 else 100
    write_mat(folder / "1.mat", pid="P0", image=changed)
    assert prepared_of(folder, tmp_path / "c", 32).about["digest"] != first


@pytest.mark.parametrize("changes", [{"mask": np.roll(MASK, 1)}, {"pid": "P00"}], ids=["mask", "pid"])
def test_digest_tells_changed_masks_and_patients(tmp_path, changes):
    folder = write_patients(tmp_path / "set")
    first = prepared_of(folder, tmp_path / "a").about["digest"]
    write_mat(folder / "1.mat", **({"pid": "P0"} | changes))
    assert prepared_of(folder, tmp_path / "b").about["digest"] != first


def test_digest_tells_a_native_mask_that_looks_the_same_when_small(tmp_path):
    folder = write_patients(tmp_path / "set")
    one = prepared_of(folder, tmp_path / "a")
    mask = MASK.copy()
    mask[6, 19], mask[4, 18] = 0, 1  # the same area, and no small pixel gains or loses half
    write_mat(folder / "1.mat", pid="P0", mask=mask)
    other = prepared_of(folder, tmp_path / "b")
    assert np.array_equal(one.masks, other.masks) and one.about["digest"] != other.about["digest"]


def test_two_workers_give_the_same_bytes_as_one(phantom_folder, prepared, tmp_path):
    other = prepared_of(phantom_folder, tmp_path / "out", 64, workers=2)
    assert other.about["digest"] == prepared.about["digest"]
    first = Path(prepared.images.filename).parent
    for name in ("images.npy", "masks.npy", "index.parquet", "prepared.json"):
        assert (tmp_path / "out" / name).read_bytes() == (first / name).read_bytes()


def test_failure_leaves_nothing_behind_and_keeps_the_older_set(tmp_path):
    folder = write_patients(tmp_path / "set")
    (tmp_path / "sets").mkdir()
    older = prepared_of(folder, tmp_path / "sets/16").about
    write_mat(folder / "30.mat", label=3, pid="P14", mask=MASK * 0)
    assert "30.mat: tumorMask" in refusal(prepared_of, folder, tmp_path / "sets/16")
    assert "30.mat: tumorMask" in refusal(prepared_of, folder, tmp_path / "sets/new")
    assert [path.name for path in (tmp_path / "sets").iterdir()] == ["16"]
    assert open_prepared(tmp_path / "sets/16").about == older


def test_preparing_again_replaces_the_set(tmp_path):
    folder = write_patients(tmp_path / "set")
    prepared_of(folder, tmp_path / "out")
    (folder / "30.mat").unlink()
    assert len(prepared_of(folder, tmp_path / "out").index) == 29
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "set"]


def test_folder_that_holds_something_else_is_not_overwritten(tmp_path):
    folder = write_patients(tmp_path / "set")
    assert not lacks(refusal(prepared_of, folder, folder), folder, "prepared set")
    assert len(find_slices(folder)) == 30


@pytest.mark.parametrize("size", [0, 15, 5000])
def test_image_size_out_of_range_is_refused(tmp_path, size):
    message = refusal(prepared_of, write_patients(tmp_path / "set"), tmp_path / "out", size)
    assert not lacks(message, size, "expected 16 to 4096 pixels")


def test_patient_with_slices_of_two_labels_is_refused(tmp_path):
    folder = write_patients(tmp_path / "set")
    write_mat(folder / "30.mat", label=1, pid="P14")
    assert not lacks(refusal(prepared_of, folder, tmp_path / "out"), folder, "patient P14", "different labels")


def test_opening_what_is_not_a_prepared_set(tmp_path):
    assert not lacks(refusal(open_prepared, tmp_path), tmp_path, "is not a prepared set")
    (tmp_path / "prepared.json").write_text("{")
    assert not lacks(refusal(open_prepared, tmp_path), tmp_path, "is not a prepared set")


def test_check_goes_on_after_a_number_that_is_there_twice(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("1.mat", "sub/1.mat"):
        write_mat(tmp_path / name)
    (tmp_path / "2.mat").write_bytes(b"cut")
    faults = check(tmp_path, progress=False)["faults"]
    assert len(faults) == 2 and "file number 1 is there twice" in faults[0][1] and "2.mat" in faults[1][0]


@pytest.mark.parametrize("cvind, folds", [(True, "cvind"), (False, "made")])
def test_prepared_set_says_where_its_folds_are_from(tmp_path, cvind, folds):
    assert prepared_of(write_patients(tmp_path / "set", cvind), tmp_path / "out").about["folds"] == folds


# open_data


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "ROOT", tmp_path)
    return tmp_path


@pytest.fixture
def preparations(monkeypatch):
    """The folders that were prepared, in order."""
    calls = []

    def counted(directory, *args, **settings):
        calls.append(directory.name)
        return prepare(directory, *args, **settings)

    monkeypatch.setattr(dataset, "prepare", counted)
    return calls


def test_data_is_prepared_once_a_size(root, preparations):
    write_patients(root / "mine")
    first = open_data("mine", 16)
    assert open_data(str(root / "mine"), 16).about == first.about
    assert preparations == ["mine"]
    assert open_data("mine", 32).images.shape == (30, 32, 32)
    assert preparations == ["mine", "mine"]


def test_sets_of_two_scalings_live_beside_each_other(root, preparations):
    write_patients(root / "mine")
    default, whole = open_data("mine", 16), open_data("mine", 16, (0, 100))
    assert preparations == ["mine", "mine"] and default.about["digest"] != whole.about["digest"]
    for one in (default, whole):
        # as a list too: so prepared.json and run.json have them
        for percentiles in (one.about["percentiles"], tuple(one.about["percentiles"])):
            assert open_data("mine", 16, percentiles).about == one.about
    assert open_data("mine", 16).about == default.about
    assert preparations == ["mine", "mine"]


@pytest.mark.parametrize("change", ["slice", "cvind", "removed", "added"])
def test_data_is_prepared_again_when_its_files_change(root, preparations, change):
    folder = write_patients(root / "mine")
    first = open_data("mine", 16)
    if change == "slice":
        write_mat(folder / "1.mat", pid="P0", image=IMAGE[::-1])
    elif change == "cvind":
        write_cvind(folder / "cvind.mat", [5 - n // 2 % 5 for n in range(30)])
    elif change == "removed":
        (folder / "4.mat").unlink()
    else:
        (folder / "sub").mkdir()
        write_cvind(folder / "cvind.mat", [n // 2 % 5 + 1 for n in range(40)])
        write_mat(folder / "sub/31.mat", pid="P15")
    second = open_data("mine", 16)
    assert preparations == ["mine", "mine"] and second.about["digest"] != first.about["digest"]
    assert len(second.index) == {"removed": 29, "added": 31}.get(change, 30)


def test_two_folders_of_one_name_have_their_own_sets(root):
    write_patients(root / "a/mine")
    write_patients(root / "b/mine")
    (root / "b/mine/30.mat").unlink()
    assert [len(open_data(f"{place}/mine", 16).index) for place in "aba"] == [30, 29, 30]


def test_phantom_is_drawn_on_first_use(root, monkeypatch):
    drawn = []

    def draw(directory):
        drawn.append(directory)
        write_patients(directory)
        (directory / "phantom.json").write_text("{}")

    monkeypatch.setattr("braintumor.data.phantom.write_phantom", draw)
    assert open_data("phantom", 16).about["kind"] == "phantom"
    open_data("phantom", 16)
    assert drawn == [root / "data/phantom"]


def test_data_that_is_not_there(root):
    assert not lacks(refusal(open_data, "none", 16), root / "none", "no such folder")


def test_one_slice_is_read_by_its_number(root):
    write_patients(root / "mine")
    one = slice_by_number("mine", 21)
    assert (one.file, one.pid, one.label) == (21, "P10", 3)
    assert not lacks(refusal(slice_by_number, "mine", 31), root / "mine", "no slice 31")


# A reader's own PNG pairs.


def write_pairs(folder, **columns):
    """Fifteen patients of two PNG pairs each and slices.csv; `columns` are added to, or replace, its own."""
    (folder / "png").mkdir(parents=True, exist_ok=True)
    rows = []
    for n in range(30):
        Image.fromarray(np.roll(IMAGE // 8, n, axis=1).astype(np.uint8)).save(folder / f"png/{n}.png")
        Image.fromarray(MASK * 255).save(folder / f"png/{n}-mask.png")
        label = ("Meningioma", "glioma", "3")[n // 10]
        rows.append({"image": f"png/{n}.png", "mask": f"png/{n}-mask.png", "label": label, "patient": f"Q{n // 2}"})
    table = pd.DataFrame(rows).assign(**columns)
    table.to_csv(folder / "slices.csv", index=False)
    return table


def change_row(folder, number, **values):
    """Change values in one row (counted from 1) of slices.csv."""
    table = pd.read_csv(folder / "slices.csv", dtype=str, keep_default_na=False)
    for name, value in values.items():
        table.loc[number - 1, name] = value
    table.to_csv(folder / "slices.csv", index=False)


def test_png_pairs_are_prepared(tmp_path):
    write_pairs(tmp_path / "set")
    own = prepared_of(tmp_path / "set", tmp_path / "out", SIDE)
    index = own.index
    assert own.about["kind"] == "folder" and len(index) == 30
    assert index["label"].tolist() == [1] * 10 + [2] * 10 + [3] * 10
    assert index["pid"].tolist() == [f"Q{n // 2}" for n in range(30)]
    assert index.groupby("pid")["fold"].nunique().eq(1).all() and set(index["fold"]) == {1, 2, 3, 4, 5}
    assert index["plane"].eq("unknown").all() and index["spacing_mm"].isna().all()
    assert np.array_equal(own.masks[0], MASK) and np.array_equal(own.native_mask(0), MASK)
    assert np.array_equal(own.images[0], scaled(IMAGE // 8, SIDE))


def test_png_pairs_with_fold_plane_and_spacing(tmp_path):
    folds = [n // 2 % 5 + 1 for n in range(30)]
    planes = ["axial", "Coronal", "sagittal"] * 10
    write_pairs(tmp_path / "set", fold=folds, plane=planes, spacing_mm=[0.5, ""] * 15)
    index = prepared_of(tmp_path / "set", tmp_path / "out").index
    assert index["fold"].tolist() == folds
    assert index["plane"].tolist() == ["axial", "coronal", "sagittal"] * 10
    assert index["spacing_mm"][::2].eq(0.5).all() and index["spacing_mm"][1::2].isna().all()
    assert not index["spacing_assumed"].any()  # the reader gave it


def first_slice(folder):
    return read_slice(find_slices(folder)[0])


def test_png_slice_stays_upright_with_a_box_for_its_border(tmp_path):
    write_pairs(tmp_path)
    one = first_slice(tmp_path)
    assert np.array_equal(one.image, IMAGE // 8) and np.array_equal(one.mask, MASK)
    assert one.border.tolist() == [[19, 6], [22, 6], [22, 12], [19, 12]]


def test_16_bit_png_keeps_its_depth(tmp_path):
    write_pairs(tmp_path)
    Image.fromarray(IMAGE.astype(np.uint16) * 20).save(tmp_path / "png/0.png")
    assert np.array_equal(first_slice(tmp_path).image, IMAGE.astype(int) * 20)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "0-1"])
def test_mask_of_any_paint_program_is_taken(tmp_path, mode):
    write_pairs(tmp_path)
    mask = Image.fromarray(MASK) if mode == "0-1" else Image.fromarray(MASK * 255).convert(mode)
    mask.save(tmp_path / "png/0-mask.png")
    assert np.array_equal(first_slice(tmp_path).mask, MASK)


def test_slice_that_is_not_square_is_padded_not_stretched(tmp_path):
    write_pairs(tmp_path)
    Image.fromarray((IMAGE // 8 + 3).astype(np.uint8)[:20]).save(tmp_path / "png/0.png")
    Image.fromarray(MASK[:20] * 255).save(tmp_path / "png/0-mask.png")
    one = first_slice(tmp_path)
    assert one.image.shape == one.mask.shape == (32, 32)
    assert np.array_equal(one.image[:20], IMAGE[:20] // 8 + 3) and np.array_equal(one.mask[:20], MASK[:20])
    assert not one.mask[20:].any() and np.all(one.image[20:] == one.image[:20].min())


@pytest.mark.parametrize(
    "values, words",
    [
        ({"image": "png/none.png"}, ["image", "png/none.png cannot be read"]),
        ({"mask": "png/none.png"}, ["mask", "png/none.png cannot be read"]),
        ({"image": "png/pipe.png"}, ["image", "png/pipe.png cannot be read"]),
        ({"image": "png/loop.png"}, ["image", "png/loop.png is no name of a file"]),
        ({"image": "png/link.png"}, ["image", "png/link.png lies outside"]),
        ({"image": "x" * 300}, ["image", "x" * 300]),
        ({"patient": "P" * 65}, ["patient", "has 65 characters", "up to 64"]),
        ({"image": ""}, ["image", "cannot be read"]),
        ({"image": "../outside.png"}, ["image", "../outside.png lies outside"]),
        ({"mask": "/etc/hostname"}, ["mask", "/etc/hostname lies outside"]),
        ({"image": "png/text.png"}, ["image", "png/text.png cannot be read as an image"]),
        ({"mask": "png/half.png"}, ["mask", "png/half.png cannot be read as an image"]),
        ({"mask": "png/small.png"}, ["mask", "has shape (20, 20)", "expected the image's (32, 32)"]),
        ({"mask": "png/empty.png"}, ["tumorMask", "is empty", "expected a tumor"]),
        ({"mask": "png/gray.png"}, ["tumorMask", "other than 0 and 1"]),
        ({"image": "png/empty.png"}, ["image", "every pixel is 0"]),
        ({"patient": " "}, ["patient", "is empty", "identifier"]),
        ({"label": "tumor"}, ["label", "tumor", "expected 1 (meningioma), 2 (glioma)"]),
        ({"label": "4"}, ["label", "4", "expected 1 (meningioma)"]),
        ({"label": ""}, ["label", "expected 1 (meningioma)"]),
        ({"fold": "0"}, ["fold", "'0'", "expected 1 to 5"]),
        ({"fold": "6"}, ["fold", "'6'", "expected 1 to 5"]),
        ({"fold": "two"}, ["fold", "'two'", "expected 1 to 5"]),
        ({"plane": "oblique"}, ["plane", "'oblique'", "axial, coronal, sagittal, unknown"]),
        ({"spacing_mm": "0"}, ["spacing_mm", "'0'", "millimetres"]),
        ({"spacing_mm": "half"}, ["spacing_mm", "'half'", "millimetres"]),
        ({"spacing_mm": "nan"}, ["spacing_mm", "'nan'", "millimetres"]),
    ],
)
def test_bad_row_is_told_with_its_number_and_field(tmp_path, values, words):
    folder = tmp_path / "set"
    write_pairs(folder, fold=1, plane="axial", spacing_mm=1)
    Image.fromarray(MASK * 255).save(tmp_path / "outside.png")
    (folder / "png/link.png").symlink_to(tmp_path / "outside.png")
    os.mkfifo(folder / "png/pipe.png")
    (folder / "png/loop.png").symlink_to(folder / "png/loop.png")
    (folder / "png/text.png").write_text("no image")
    (folder / "png/half.png").write_bytes((folder / "png/0.png").read_bytes()[:300])
    Image.fromarray(MASK[:20, :20] * 255).save(folder / "png/small.png")
    Image.fromarray(MASK * 0).save(folder / "png/empty.png")
    Image.fromarray((IMAGE // 8).astype(np.uint8)).save(folder / "png/gray.png")
    change_row(folder, 3, **values)
    message = refusal(prepared_of, folder, tmp_path / "out")
    assert not lacks(message, folder / "slices.csv", f"row 3: {words[0]}: ", *words)
    ((where, fault),) = check(folder, progress=False)["faults"]
    assert "row 3" in where and not lacks(fault, *words)


def test_row_with_several_faults_tells_them_all(tmp_path):
    write_pairs(tmp_path, fold=1)
    change_row(tmp_path, 2, label="x", patient="", fold="9", image="none.png")
    change_row(tmp_path, 5, label="y")
    faults = check(tmp_path, progress=False)["faults"]
    assert [(where[-5:], fault.split(":")[0]) for where, fault in faults] == [
        *(("row 2", field) for field in ("image", "label", "patient", "fold")),
        ("row 5", "label"),
    ]


@pytest.mark.parametrize("column", ["image", "mask", "label", "patient"])
def test_missing_column_is_told(tmp_path, column):
    write_pairs(tmp_path).drop(columns=column).to_csv(tmp_path / "slices.csv", index=False)
    message = refusal(find_slices, tmp_path)
    assert not lacks(message, tmp_path / "slices.csv", f"['{column}']", "expected image, mask, label, patient")


@pytest.mark.parametrize("content", ["", "image,mask,label,patient\n", 'image,mask\n"a', b"\xff\xfe\x00image"])
def test_table_without_rows_or_that_is_no_table_is_told(tmp_path, content):
    (tmp_path / "slices.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert not lacks(refusal(find_slices, tmp_path), tmp_path / "slices.csv")
    assert len(check(tmp_path, progress=False)["faults"]) == 1


@pytest.mark.parametrize("value", ["a\0.png", "a\n.png", "\x1b[31mred", "x" * 501])
def test_cell_that_cannot_be_told_in_a_line_is_refused(tmp_path, value):
    write_pairs(tmp_path)
    change_row(tmp_path, 4, mask=value)
    message = refusal(find_slices, tmp_path)
    assert not lacks(message, tmp_path / "slices.csv", "row 4: mask: expected up to 500 printable characters")
    assert message.isprintable()


def test_rows_with_more_cells_than_columns_are_not_read_one_column_off(tmp_path):
    write_pairs(tmp_path)
    lines = (tmp_path / "slices.csv").read_text().splitlines()
    (tmp_path / "slices.csv").write_text("\n".join([lines[0], *(f"{line},1" for line in lines[1:])]))
    assert not lacks(refusal(find_slices, tmp_path), tmp_path / "slices.csv", "more cells than the first line")


def test_image_in_two_rows_is_told(tmp_path):
    write_pairs(tmp_path)
    change_row(tmp_path, 7, image="png/3.png")
    assert not lacks(refusal(find_slices, tmp_path), tmp_path / "slices.csv", "png/3.png is there twice")


def test_fold_for_some_rows_only_is_told(tmp_path):
    write_pairs(tmp_path / "set", fold=[1] * 29 + [""])
    message = refusal(prepared_of, tmp_path / "set", tmp_path / "out")
    assert not lacks(message, "slices.csv", "fold is given for some rows only")


def test_png_patient_with_two_labels_is_told(tmp_path):
    write_pairs(tmp_path / "set")
    change_row(tmp_path / "set", 1, label="2")
    message = refusal(prepared_of, tmp_path / "set", tmp_path / "out")
    assert not lacks(message, "patient Q0", "different labels", "expected one")


def test_png_pairs_are_prepared_again_when_an_image_changes(root):
    write_pairs(root / "mine")
    first = open_data("mine", 16)
    Image.fromarray((IMAGE // 9).astype(np.uint8)).save(root / "mine/png/4.png")
    assert open_data("mine", 16).about["digest"] != first.about["digest"]
    (root / "mine/png/4.png").unlink()
    assert not lacks(refusal(open_data, "mine", 16), "row 5", "png/4.png cannot be read")


# The original study's export.


def test_export_has_the_original_names_and_mat2grays_values(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    ramp = np.arange(SIDE * SIDE).reshape(SIDE, SIDE) * 3 - 700
    write_mat(folder / "30.mat", label=1, image=ramp)
    write_mat(folder / "7.mat", label=3)
    assert export_png(folder, tmp_path / "out", progress=False) == 2
    names = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png"))
    assert names == ["1/30.matlabel=1.png", "3/7.matlabel=3.png"]
    with Image.open(tmp_path / "out/1/30.matlabel=1.png") as png:
        assert png.mode == "L"
        gray = np.asarray(png)
    assert (gray[0, 0], gray[-1, -1]) == (0, 255)
    exact = (ramp - ramp.min()) / (ramp.max() - ramp.min()) * 255
    assert np.abs(gray - exact).max() <= 0.5 + 1e-9
    assert len(np.unique(gray)) == 256


def test_scaling_from_least_to_greatest_is_that_of_the_export(tmp_path):
    # an odd range: then no intensity lies just between two grays, where the last bit would decide
    noise = np.random.default_rng(1).integers(-300, 4000, (SIDE, SIDE))
    noise[0, :2] = -301, 4000
    ramp = np.arange(SIDE * SIDE).reshape(SIDE, SIDE) * 3 - 700
    (tmp_path / "set").mkdir()
    for number, image in enumerate((noise, ramp), 1):
        write_mat(tmp_path / f"set/{number}.mat", image=image)
    export_png(tmp_path / "set", tmp_path / "out", progress=False)
    for number, image in enumerate((noise, ramp), 1):
        with Image.open(tmp_path / f"out/1/{number}.matlabel=1.png") as png:
            gray = np.asarray(png)
        assert (gray.min(), gray.max()) == (0, 255)
        assert np.array_equal(scaled(image, SIDE, (0, 100)), gray)


# The real slices, where they are at hand.


@pytest.mark.skipif(not FIGSHARE.exists(), reason=f"needs a copy of figshare's slices in {FIGSHARE}")
def test_real_slices(tmp_path):
    command = [sys.executable, str(FIGSHARE / "make_mats.py"), str(tmp_path / "set"), "--files", "1-20,955"]
    subprocess.run(command, check=True)
    report = check(tmp_path / "set", workers=1, progress=False)
    assert report["faults"] == [] and len(report["missing"]) == 3064 - 21
    real = prepared_of(tmp_path / "set", tmp_path / "out", 64)
    index = real.index.set_index("file")
    assert real.about["kind"] == "figshare-jpeg" and index.index.tolist() == [*range(1, 21), 955]
    assert index.loc[955, ["size", "spacing_mm", "spacing_assumed"]].tolist() == [256, pytest.approx(0.98), True]
    assert index.loc[1, ["size", "spacing_mm", "spacing_assumed"]].tolist() == [512, pytest.approx(0.49), False]
    table = pd.read_csv(Path(dataset.__file__).with_name("figshare.csv"), dtype={"pid": str}).set_index("file")
    assert index["plane"].tolist() == table["plane"].loc[index.index].tolist()
    assert index["pid"].tolist() == table["pid"].loc[index.index].tolist()
    assert index["family"].tolist() == index["pid"].tolist()
    assert index["fold"].loc[[1, 955]].tolist() == [3, 1]
    for row in (0, 20):  # the mask lies where the border says, so image and mask are upright
        x, y = index["border"].iloc[row][0::2] - 1, index["border"].iloc[row][1::2] - 1
        rows, columns = np.nonzero(real.native_mask(row))
        assert [columns.min(), columns.max()] == pytest.approx([x.min(), x.max()], abs=1.5)
        assert [rows.min(), rows.max()] == pytest.approx([y.min(), y.max()], abs=1.5)


def test_committed_table_of_figshares_slices_is_whole():
    table = pd.read_csv(Path(dataset.__file__).with_name("figshare.csv"), dtype={"pid": str})
    assert table["file"].tolist() == list(range(1, 3065)) and table["pid"].nunique() == 233
    assert table["label"].value_counts().to_dict() == {1: 708, 2: 1426, 3: 930}
    assert table.groupby("pid")["label"].nunique().eq(1).all()
    assert set(table["plane"]) <= set(dataset.PLANES)


@pytest.mark.skipif(not FIGSHARE.exists(), reason=f"needs figshare's index in {FIGSHARE}")
def test_committed_table_agrees_with_figshares_index():
    table = pd.read_csv(Path(dataset.__file__).with_name("figshare.csv"), dtype={"pid": str})
    index = pd.read_csv(FIGSHARE / "index.csv", dtype={"pid": str})
    assert table[["file", "pid", "label"]].equals(index[["file", "pid", "label"]])


def test_check_reports_a_patient_with_two_labels(tmp_path):
    write_mat(tmp_path / "1.mat", label=1, pid="P1")
    write_mat(tmp_path / "2.mat", label=2, pid="P1")
    report = check(tmp_path, progress=False)
    assert any("patient P1 has slices of different labels" in fault for _, fault in report["faults"])


def test_slices_in_hidden_folders_are_not_found(tmp_path):
    write_mat(tmp_path / "1.mat")
    (tmp_path / ".download").mkdir()
    write_mat(tmp_path / ".download" / "2.mat")
    assert [source.file for source in find_slices(tmp_path)] == [1]


def test_unknown_plane_in_planes_csv_is_named(tmp_path):
    for n in range(1, 16):
        write_mat(tmp_path / f"{n}.mat", label=1 + n % 3, pid=f"P{n}")
    (tmp_path / "planes.csv").write_text("file,plane\n1,axial\n2,oblique\n")
    with pytest.raises(DatasetError, match="planes.csv.*oblique.*expected axial"):
        prepare(tmp_path, tmp_path / "out", 16, workers=1, progress=False)
