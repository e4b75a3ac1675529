"""The phantom: plausible anatomy, patients in folds, the same bytes from a seed."""

import csv
from collections import defaultdict

import numpy as np
import pytest
from skimage.draw import polygon2mask

from braintumor.core.files import sha256
from braintumor.data.figshare import read_cvind, read_mat
from braintumor.data.phantom import write_phantom

SIZE = 64


@pytest.fixture(scope="module")
def planes(phantom_folder):
    with (phantom_folder / "planes.csv").open() as file:
        return {int(row["file"]): row["plane"] for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def slices(phantom_folder, planes):
    return [read_mat(phantom_folder / f"{number}.mat") for number in planes]


def digests(folder):
    return {(path.name, sha256(path)) for path in folder.iterdir()}


@pytest.mark.slow
def test_bytes_depend_on_the_seed_and_not_on_n_jobs(phantom_folder, tmp_path):
    for seed, n_jobs in ((0, 2), (1, 1)):
        folder, settings = tmp_path / f"{seed}", dict(seed=seed, n_jobs=n_jobs)
        write_phantom(folder, 15, size=SIZE, **settings)
        n_same = len(digests(folder) & digests(phantom_folder))
        assert n_same == (len(digests(folder)) if seed == 0 else 0)


def test_files_are_complete_and_patients_in_one_fold(phantom_folder, planes, slices):
    assert len(slices) == len(read_cvind(phantom_folder))
    assert list(planes) == list(range(1, len(slices) + 1))
    assert set(planes.values()) == {"axial", "coronal", "sagittal"}
    assert {len(image.image) for image in slices} == {SIZE, SIZE // 2}
    assert min(image.image.max() for image in slices) > 300
    labels, patients = defaultdict(set), defaultdict(set)
    for image, fold in zip(slices, read_cvind(phantom_folder), strict=True):
        labels[fold].add(image.label)
        patients[image.pid].add(fold)
    assert labels == {fold: {1, 2, 3} for fold in range(1, 6)}
    assert len(patients) == 15 and all(len(fold) == 1 for fold in patients.values())
    assert patients["MR990001"] != patients["MR990001B"]  # a family in two folds


def test_anatomy_is_plausible(slices, planes):
    """In coronal slices there is air above the crown; the neck is cut off below."""
    images = [s.image for s in slices if planes[s.file] == "coronal"]
    assert np.median([image[:2].mean() / image.mean() for image in images]) < 0.4
    for image in slices:
        inside = polygon2mask(image.mask.shape, image.border[:, ::-1] - 1)
        assert (inside == image.mask).all(), image.file
    offsets = defaultdict(list)
    for image in slices:
        if planes[image.file] != "sagittal":
            column = np.nonzero(image.mask)[1].mean() / len(image.mask)
            offsets[image.label].append(abs(column - 0.5))
    assert np.mean(offsets[3]) < 0.06 < np.mean(offsets[2])


def test_existing_files_are_kept(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=str(tmp_path)):
        write_phantom(tmp_path, n_patients=15, size=SIZE)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
