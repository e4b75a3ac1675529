"""The phantom: the published file layout, patients in folds, and the same bytes from the same seed."""

import csv
import hashlib
import json
from collections import defaultdict

import h5py
import numpy as np
import pytest
from skimage.draw import polygon2mask

from braintumor.data.phantom import write_cvind, write_phantom, write_slice

SIZE = 64


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    return write_phantom(tmp_path_factory.mktemp("phantom") / "set", patients=15, size=SIZE, progress=False)


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def slices(folder):
    """Every slice as (file number, dict of the fields as stored)."""
    for number in range(1, json.loads((folder / "phantom.json").read_text())["slices"] + 1):
        with h5py.File(folder / f"{number}.mat") as file:
            yield number, {name: values[()] for name, values in file["cjdata"].items()}


def pid(fields):
    return "".join(map(chr, fields["PID"][:, 0]))


def test_same_seed_same_bytes_whatever_the_workers(phantom, tmp_path):
    again = write_phantom(tmp_path / "again", patients=15, size=SIZE, progress=False, workers=2)
    assert digests(again) == digests(phantom)


def test_another_seed_is_another_set(phantom, tmp_path):
    other = write_phantom(tmp_path / "other", patients=15, seed=1, size=SIZE, progress=False)
    assert not set(digests(other).values()) & set(digests(phantom).values())


def test_layout_as_published(phantom):
    with h5py.File(phantom / "1.mat") as file:
        assert file.userblock_size == 512
        assert {name: d.attrs["MATLAB_class"] for name, d in file["cjdata"].items()} == {
            "PID": b"char",
            "image": b"int16",
            "label": b"double",
            "tumorBorder": b"double",
            "tumorMask": b"logical",
        }
    assert (phantom / "1.mat").read_bytes().startswith(b"MATLAB 7.3 MAT-file")
    sizes = set()
    for _, fields in slices(phantom):
        size = len(fields["image"])
        sizes.add(size)
        assert {name: (v.dtype.str[1:], v.shape) for name, v in fields.items()} == {
            "PID": ("u2", (len(pid(fields)), 1)),
            "image": ("i2", (size, size)),
            "label": ("f8", (1, 1)),
            "tumorBorder": ("f8", (1, fields["tumorBorder"].size)),
            "tumorMask": ("u1", (size, size)),
        }
        assert fields["image"].min() >= 0 and fields["image"].max() > 300
    assert sizes == {SIZE, SIZE // 2}


def test_arrays_are_stored_transposed(tmp_path):
    image = np.arange(12).reshape(3, 4)
    write_slice(tmp_path / "1.mat", image, image > 5, 2, "MR1", [[1, 2], [3, 4]])
    with h5py.File(tmp_path / "1.mat") as file:
        assert (file["cjdata/image"][()] == image.T).all()
        assert (file["cjdata/tumorMask"][()] == (image > 5).T).all()
        assert file["cjdata/tumorBorder"][()].tolist() == [[1, 2, 3, 4]]


def test_head_is_upright(phantom):
    """In coronal slices there is air above the crown; the neck often leaves the picture below."""
    planes = dict(csv.reader((phantom / "planes.csv").open()))
    images = [fields["image"].T for number, fields in slices(phantom) if planes[str(number)] == "coronal"]
    assert np.median([image[:2].mean() / image.mean() for image in images]) < 0.4


def test_mask_is_the_inside_of_the_border(phantom):
    for number, fields in slices(phantom):
        mask = fields["tumorMask"].T
        xy = fields["tumorBorder"].reshape(-1, 2) - 1
        assert (polygon2mask(mask.shape, xy[:, ::-1]) == mask).all(), number
        assert mask.sum() >= (4 if len(mask) == SIZE else 1), number


def test_tumors_grow_where_they_should(phantom):
    """Pituitary tumors are midline in coronal slices, gliomas are not."""
    planes = dict(csv.reader((phantom / "planes.csv").open()))
    aside = defaultdict(list)
    for number, fields in slices(phantom):
        if planes[str(number)] != "sagittal":
            columns = np.nonzero(fields["tumorMask"].T)[1] / len(fields["image"])
            aside[fields["label"][0, 0]].append(abs(columns.mean() - 0.5))
    assert np.mean(aside[3]) < 0.06 < np.mean(aside[2])


def test_folds_hold_every_class_and_whole_patients(phantom):
    with h5py.File(phantom / "cvind.mat") as file:
        folds = file["cvind"][()]
    assert folds.dtype == np.float64 and folds.shape[0] == 1
    classes, homes = defaultdict(set), defaultdict(set)
    for number, fields in slices(phantom):
        fold = folds[0, number - 1]
        classes[fold].add(fields["label"][0, 0])
        homes[pid(fields)].add(fold)
    assert number == folds.size
    assert classes == {fold: {1, 2, 3} for fold in range(1, 6)}
    assert len(homes) == 15 and all(len(home) == 1 for home in homes.values())
    assert homes["MR990001"] != homes["MR990001B"]  # the family that the official folds split


def test_planes_and_provenance(phantom):
    rows = list(csv.DictReader((phantom / "planes.csv").open()))
    assert [int(row["file"]) for row in rows] == list(range(1, len(rows) + 1))
    assert {row["plane"] for row in rows} == {"axial", "coronal", "sagittal"}
    about = json.loads((phantom / "phantom.json").read_text())
    assert about["kind"] == "phantom" and about["slices"] == len(rows) == len(list(phantom.glob("*.mat"))) - 1


def test_cvind_layout(tmp_path):
    write_cvind(tmp_path / "cvind.mat", [1, 5, 2])
    with h5py.File(tmp_path / "cvind.mat") as file:
        assert file["cvind"][()].tolist() == [[1, 5, 2]]


def test_refuses_a_folder_with_anything_in_it(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not an empty folder"):
        write_phantom(tmp_path, patients=15, size=SIZE)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"patients": 14},
        {"patients": 20.0},
        {"seed": -1},
        {"size": 62},
        {"size": 65},
        {"size": True},
        {"workers": 0},
    ],
)
def test_says_which_argument_is_wrong(tmp_path, arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        write_phantom(tmp_path / "set", **{"patients": 15, "size": SIZE} | arguments)
    assert not list(tmp_path.iterdir())


def test_a_failed_phantom_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("braintumor.data.phantom.write_cvind", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_phantom(tmp_path / "set", patients=15, size=SIZE, progress=False)
    assert not list(tmp_path.iterdir())
