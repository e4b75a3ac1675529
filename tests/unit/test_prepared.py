"""Prepared sets: complete, with a digest of their data, and never out of date."""

import multiprocessing
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from samples import FIGSHARE, IMAGE, MASK, write_pairs, write_patients, write_sample

from braintumor.core.errors import DatasetError
from braintumor.data import prepared as module
from braintumor.data.figshare import load_figshare_index, read_mat, write_cvind
from braintumor.data.labels import PHANTOM_VERSION
from braintumor.data.prepared import (
    cache_dir,
    check_data,
    open_data,
    open_prepared,
    prepare_data,
    read_slice_by_number,
    resolve_data,
)
from braintumor.data.preprocessing import preprocess_slice, resize_mask


def prepare(folder, out, image_size=16):
    return prepare_data(folder, out, image_size)


def visible(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))


def test_index_and_arrays_are_those_of_the_files(phantom_folder, prepared):
    index = prepared.index
    planes = pd.read_csv(phantom_folder / "planes.csv").set_index("file")["plane"]
    assert index["file"].tolist() == list(range(1, len(planes) + 1))
    assert index["plane"].tolist() == planes.loc[index["file"]].tolist()
    assert (prepared.info["kind"], prepared.info["folds"]) == ("phantom", "cvind")
    assert isinstance(prepared.images, np.memmap)
    for number, row in index.iloc[::4].iterrows():
        item = read_mat(phantom_folder / f"{row['file']}.mat")
        assert (row["pid"], row["label"]) == (item.pid, item.label)
        assert (row["size"], row["tumor_area"]) == (len(item.image), item.mask.sum())
        assert np.array_equal(row["border"], item.border.ravel())
        image = preprocess_slice(item.image, 64)
        assert np.array_equal(prepared.images[number], image)
        assert np.array_equal(prepared.masks[number], resize_mask(item.mask, 64))
        assert np.array_equal(prepared.native_mask(number), item.mask)
    assert set(index.loc[::4, "size"]) == {64, 32}


def test_spacing_is_published_at_512_pixels_and_assumed_at_256(tmp_path):
    rows, columns = np.mgrid[:512, :512]
    for number, side in ((1, 512), (2, 256)):
        image, mask = (rows + columns)[:side, :side], rows[:side, :side] > 200
        write_sample(tmp_path / f"{number}.mat", image=image, mask=mask)
    (tmp_path / "phantom.json").write_text("{}")
    write_cvind(tmp_path / "cvind.mat", [1, 2])
    index = prepare(tmp_path, tmp_path / "out").index
    assert index["spacing_mm"].tolist() == pytest.approx([0.49, 0.98])
    assert index["spacing_assumed"].tolist() == [False, True]


@pytest.mark.parametrize("write", [write_patients, write_pairs])
def test_own_slices_have_no_spacing_no_plane_and_grouped_folds(tmp_path, write):
    folder = write(tmp_path / "set")
    (folder / "cvind.mat").unlink(missing_ok=True)
    data = prepare(folder, tmp_path / "out")
    assert (data.info["kind"], data.info["folds"]) == ("folder", "made")
    assert data.index["label"].tolist() == [1] * 10 + [2] * 10 + [3] * 10
    assert data.index["spacing_mm"].isna().all()
    assert data.index["plane"].eq("unknown").all()
    assert set(data.index["fold"]) == {1, 2, 3, 4, 5}
    assert data.index.groupby("pid")["fold"].nunique().eq(1).all()


def test_folds_planes_and_spacing_of_slices_csv_are_kept(tmp_path):
    folds = [n // 2 % 5 + 1 for n in range(30)]
    planes = ["axial", "Coronal", "sagittal"] * 10
    write_pairs(tmp_path / "set", fold=folds, plane=planes, spacing_mm=[0.5, ""] * 15)
    data = prepare(tmp_path / "set", tmp_path / "out")
    assert data.index["fold"].tolist() == folds and data.info["folds"] == "given"
    assert data.index["plane"].tolist() == ["axial", "coronal", "sagittal"] * 10
    assert data.index["spacing_mm"].fillna(0).tolist() == [0.5, 0] * 15


SMALL_CHANGE = MASK.copy()  # equal area, and equal at 16 pixels
SMALL_CHANGE[6, 19], SMALL_CHANGE[4, 18] = 0, 1
CHANGES = [{"image": IMAGE.T}, {"mask": SMALL_CHANGE}, {"pid": "P00"}]


def test_digest_is_that_of_the_data_in_any_folder_and_version(tmp_path):
    folders = write_patients(tmp_path / "set"), tmp_path / "copy"
    shutil.copytree(*folders)
    digests = {prepare(path, tmp_path / "out").info["digest"] for path in folders}
    # another digest would part all runs before from all runs after
    assert [digest[:16] for digest in digests] == ["dfcb44ad6096bab5"]
    for change in CHANGES:
        write_sample(folders[0] / "1.mat", **{"pid": "P0"} | change)
        digests.add(prepare(folders[0], tmp_path / "out").info["digest"])
    assert len(digests) == 1 + len(CHANGES)


# Written whole or not at all


def test_failure_keeps_the_older_set_and_other_files(tmp_path):
    folder = write_patients(tmp_path / "set")
    for function in (open_prepared, lambda folder: prepare(folder, folder)):
        with pytest.raises(DatasetError, match=f"{folder}: "):
            function(folder)
    assert len(list(folder.iterdir())) == 31
    folder = write_patients(tmp_path / "set")
    older = prepare(folder, tmp_path / "sets/16").info
    write_sample(folder / "30.mat", label=3, pid="P14", mask=MASK * 0)
    for name in ("16", "new"):
        with pytest.raises(DatasetError, match="30.mat: tumorMask"):
            prepare(folder, tmp_path / "sets" / name)
    assert visible(tmp_path / "sets") == ["16"]
    assert open_prepared(tmp_path / "sets/16").info == older


BROKEN = {
    "P14": lambda folder: write_sample(folder / "30.mat", label=1, pid="P14"),
    "cvind.mat": lambda folder: write_cvind(folder / "cvind.mat", [1, 2, 3, 4, 5] * 5),
    "sub/30.mat": lambda folder: write_sample(folder / "sub/30.mat"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_problem_between_files_is_named(tmp_path, name):
    folder = write_patients(tmp_path / "set")
    BROKEN[name](folder)
    with pytest.raises(DatasetError, match=name):
        prepare(folder, tmp_path / "out")
    assert visible(tmp_path) == ["set"]


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return tmp_path


def test_data_is_prepared_once_per_size_and_scaling(root, monkeypatch):
    write_patients(root / "mine")
    sets = [open_data("mine", *args) for args in ((16,), (16, (0, 100)), (32,))]
    assert [len(prepared.images[0]) for prepared in sets] == [16, 16, 32]
    monkeypatch.setattr(module, "prepare_data", None)
    assert open_data(str(root / "mine"), 16, [1, 99.5]).info == sets[0].info
    assert open_data("mine", 16, [0, 100]).info == sets[1].info
    assert len({prepared.info["digest"] for prepared in sets}) == 3


CHANGED_FILES = {
    "slice": lambda f: write_sample(f / "1.mat", pid="P0", image=IMAGE[::-1]),
    "cvind": lambda f: write_cvind(f / "cvind.mat", [1, 2, 3, 4, 5] * 6),
    "removed": lambda folder: (folder / "4.mat").unlink(),
    "added": lambda f: write_sample(f / "0/31.mat", pid="P15"),
    "image": lambda folder: shutil.copy(folder / "png/9.png", folder / "png/4.png"),
}


@pytest.mark.parametrize("change", CHANGED_FILES)
def test_data_is_prepared_again_if_files_change(root, change):
    folder = root / "mine"
    write_pairs(folder) if change == "image" else write_patients(folder, cvind=False)
    first = open_data("mine", 16)
    CHANGED_FILES[change](folder)
    assert open_data("mine", 16).info["digest"] != first.info["digest"]


def open_in_process(root):
    module.ROOT = root
    open_data(root / "mine", 16)
    return (cache_dir(root / "mine", 16) / "prepared.json").stat().st_mtime_ns


def test_second_process_waits_and_opens_what_the_first_prepared(root):
    write_patients(root / "mine")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        times = pool.map(open_in_process, [root] * 2, chunksize=1)
    assert len(set(times)) == 1


def test_phantom_is_generated_once_per_version(root, monkeypatch):
    calls, record = [], root / "data/phantom/phantom.json"

    def write_phantom(directory):
        calls.append(directory)
        write_patients(directory)
        record.write_text(f'{{"generator": {PHANTOM_VERSION}}}')

    monkeypatch.setattr("braintumor.data.phantom.write_phantom", write_phantom)
    for _ in range(2):
        assert open_data("phantom", 16).info["kind"] == "phantom"
    assert calls == [root / "data/phantom"] == [resolve_data("phantom")]
    record.write_text('{"generator": -1}')
    open_data("phantom", 16)
    assert len(calls) == 2


def test_relative_path_is_of_the_current_folder_then_of_the_project(root, monkeypatch):
    with pytest.raises(DatasetError, match=f"mistyped: .*{root}"):
        open_data("mistyped", 16)
    assert not list(root.iterdir())
    for name in ("here/mine", "mine", "yours"):
        (root / name).mkdir(parents=True)
    monkeypatch.chdir(root / "here")
    monkeypatch.setenv("HOME", str(root / "here"))
    assert resolve_data("mine") == resolve_data("~/mine/") == root / "here/mine"
    assert resolve_data("yours") == root / "yours"


def test_slices_are_read_by_number_and_checked_for_splits(root):
    folder = write_patients(root / "mine", cvind=False)
    item = read_slice_by_number("mine", 21)
    assert (item.file, item.pid, item.label) == (21, "P10", 3)
    with pytest.raises(DatasetError, match="31"):
        read_slice_by_number("mine", 31)
    for prepare_first in (False, True):
        if prepare_first:
            open_data("mine", 16)
        check_data("mine", {("official", 1, 1), ("family", 5, 1)})
    for number in range(1, 8):
        (folder / f"{number}.mat").unlink()
    with pytest.raises(DatasetError, match="mine: meningioma: got 2 patients"):
        check_data("mine", {("official", 1, 1)})


@pytest.mark.real
@pytest.mark.skipif(not FIGSHARE.exists(), reason=f"needs {FIGSHARE}")
def test_real_slices(tmp_path):
    script, folder = FIGSHARE / "make_mats.py", tmp_path / "set"
    command = [sys.executable, str(script), str(folder), "--files", "1-20,955"]
    subprocess.run(command, check=True)
    real = prepare(folder, tmp_path / "out", 64)
    index = real.index.set_index("file")
    assert real.info["kind"] == "figshare-jpeg" and len(index) == 21
    facts = index[["size", "spacing_assumed", "fold"]].to_numpy().tolist()
    assert (facts[0], facts[20]) == ([512, False, 3], [256, True, 1])
    known = load_figshare_index().loc[index.index]
    assert index["plane"].tolist() == known["plane"].tolist()
