"""The phantom: plausible anatomy, patients in folds, the same bytes from a seed."""

import csv
import hashlib
import json
from collections import defaultdict

import numpy as np
import pytest
from skimage.draw import polygon2mask

from braintumor.core.errors import ParameterError
from braintumor.data.figshare import read_cvind, read_mat
from braintumor.data.phantom import GLIOMA, Head, SlicePlane, Tumor, write_phantom

SIZE = 64


@pytest.fixture(scope="module")
def slices(phantom_folder):
    n_slices = json.loads((phantom_folder / "phantom.json").read_text())["slices"]
    return [
        read_mat(phantom_folder / f"{number}.mat") for number in range(1, n_slices + 1)
    ]


@pytest.fixture(scope="module")
def planes(phantom_folder):
    with (phantom_folder / "planes.csv").open() as file:
        return {int(row["file"]): row["plane"] for row in csv.DictReader(file)}


def digests(folder):
    paths = [path for path in folder.iterdir() if path.is_file()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.mark.slow
def test_same_seed_same_bytes_for_any_n_jobs(phantom_folder, tmp_path):
    again = write_phantom(tmp_path / "a", 15, size=SIZE, progress=False, n_jobs=2)
    assert digests(again) == digests(phantom_folder)


@pytest.mark.slow
def test_other_seed_gives_other_slices(phantom_folder, tmp_path):
    other = write_phantom(tmp_path / "b", 15, seed=1, size=SIZE, progress=False)
    assert not set(digests(other).values()) & set(digests(phantom_folder).values())


def test_slices_have_two_sizes_and_int16_intensities(slices):
    assert {len(image.image) for image in slices} == {SIZE, SIZE // 2}
    assert all(image.image.dtype == np.int16 for image in slices)
    assert min(image.image.max() for image in slices) > 300


def test_head_is_upright(slices, planes):
    """In coronal slices there is air above the crown; the neck is cut off below."""
    images = [s.image for s in slices if planes[s.file] == "coronal"]
    assert np.median([image[:2].mean() / image.mean() for image in images]) < 0.4


def test_mask_is_the_inside_of_the_border(slices):
    for image in slices:
        inside = polygon2mask(image.mask.shape, image.border[:, ::-1] - 1)
        assert (inside == image.mask).all(), image.file


def test_pituitary_tumors_are_midline_and_gliomas_are_not(slices, planes):
    offsets = defaultdict(list)
    for image in slices:
        if planes[image.file] != "sagittal":
            column = np.nonzero(image.mask)[1].mean() / len(image.mask)
            offsets[image.label].append(abs(column - 0.5))
    assert np.mean(offsets[3]) < 0.06 < np.mean(offsets[2])


def test_folds_have_every_class_and_complete_patients(phantom_folder, slices):
    folds = read_cvind(phantom_folder)
    labels, patients = defaultdict(set), defaultdict(set)
    for image, fold in zip(slices, folds, strict=True):
        labels[fold].add(image.label)
        patients[image.pid].add(fold)
    assert labels == {fold: {1, 2, 3} for fold in range(1, 6)}
    assert len(patients) == 15 and all(len(fold) == 1 for fold in patients.values())
    assert patients["MR990001"] != patients["MR990001B"]  # a family in two folds


def test_planes_cover_all_files(slices, planes):
    assert list(planes) == [image.file for image in slices]
    assert set(planes.values()) == {"axial", "coronal", "sagittal"}


def test_render_outlines_the_tumor_on_any_plane():
    rng = np.random.default_rng(0)
    head = Head(rng)
    tumor = Tumor(GLIOMA, head, rng)
    plane = SlicePlane.through(tumor.center, "axial", fov=24.5, size=64)
    image, distance = head.render(plane, tumor)
    assert image.shape == distance.shape == (64, 64)
    assert 0.002 < (distance < 0).mean() < 0.2
    _, distance = head.render(plane.move(8), tumor)
    assert not (distance < 0).any()


def test_existing_files_are_kept(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=str(tmp_path)):
        write_phantom(tmp_path, n_patients=15, size=SIZE)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    "name, value",
    [
        ("n_patients", 14),
        ("n_patients", 20.0),
        ("seed", -1),
        ("size", 62),
        ("size", 65),
        ("size", True),
    ],
)
def test_argument_out_of_range_is_named(tmp_path, name, value):
    with pytest.raises(ParameterError, match=name):
        write_phantom(tmp_path / "set", **{"n_patients": 15, "size": SIZE, name: value})
    assert not list(tmp_path.iterdir())
