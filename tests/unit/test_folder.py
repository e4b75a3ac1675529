"""Folders of .mat files and of image pairs: found, read, checked, exported."""

import os

import numpy as np
import pytest
from PIL import Image
from samples import (
    IMAGE,
    MASK,
    SIDE,
    change_row,
    write_pairs,
    write_patients,
    write_sample,
)

from braintumor.core.errors import DatasetError
from braintumor.data.figshare import write_cvind
from braintumor.data.folder import check_folder, export_png, find_slices, read_slice
from braintumor.data.labels import LABELS


def first_slice(folder):
    return read_slice(find_slices(folder)[0])


def test_files_are_found_by_number_in_subfolders_too(tmp_path):
    names = ("b/c/2.mat", "a/9.mat", "10.mat")
    for name in (*names, "a/notes.mat", "a/README.txt", ".download/3.mat", "cvind.mat"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    sources = find_slices(tmp_path)
    assert [source.file for source in sources] == [2, 9, 10]
    assert [source.path for source in sources] == [tmp_path / name for name in names]
    (tmp_path / "02.mat").touch()
    with pytest.raises(DatasetError, match="2.mat: file number"):
        find_slices(tmp_path)


@pytest.mark.parametrize("name", ["none", "file", "empty"])
def test_folder_must_exist_and_hold_slices(tmp_path, name):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    write_cvind(tmp_path / "empty/cvind.mat", [1])
    (tmp_path / "empty/1-766.zip").touch()
    expected = "1-766.zip.*slices.csv" if name == "empty" else "expected a folder"
    with pytest.raises(DatasetError, match=f"{name}: .*{expected}"):
        check_folder(tmp_path / name)


def test_links_are_followed_and_broken_links_reported(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    (tmp_path / "far").mkdir()
    write_sample(tmp_path / "far/1.mat")
    targets = {"part": "far", "again": "far", "2.mat": "none", "3.mat": "set/3.mat"}
    for name, target in (targets | {"loop": "set", "cvind.mat": "none"}).items():
        (folder / name).symlink_to(tmp_path / target)
    assert [source.file for source in find_slices(folder)] == [1, 2, 3]
    files = " ".join(file for file, _ in check_folder(folder)["problems"])
    assert all(name in files for name in ("2.mat", "3.mat", "cvind.mat"))


def test_check_counts_slices_and_lists_all_problems(phantom_folder, tmp_path):
    report = check_folder(phantom_folder)
    assert sum(report["found"].values()) == len(find_slices(phantom_folder))
    assert list(report["found"]) == list(LABELS.values())
    assert report["missing"] == report["notes"] == report["problems"] == []
    write_sample(tmp_path / "1.mat")
    write_sample(tmp_path / "3.mat", label=9, mask=MASK * 0)
    (tmp_path / "4.mat").write_bytes(b"half")
    write_sample(tmp_path / "7.mat", label=3, pid="P2")
    write_cvind(tmp_path / "cvind.mat", [1] * 8)
    report = check_folder(tmp_path)
    assert report["found"] == {"meningioma": 1, "glioma": 0, "pituitary tumor": 1}
    assert report["missing"] == [2, 5, 6, 8] and report["notes"] == []
    (file, problem), (other_file, _) = report["problems"]
    assert file.endswith("3.mat") and other_file.endswith("4.mat")
    assert "label: " in problem and "tumorMask: " in problem


def test_check_notes_that_cvind_is_missing_or_too_short(tmp_path):
    write_patients(tmp_path, cvind=False)
    report = check_folder(tmp_path)
    assert report["problems"] == [] and len(report["notes"]) == 1
    write_cvind(tmp_path / "cvind.mat", [1, 2])
    ((file, _),) = check_folder(tmp_path)["problems"]
    assert file.endswith("cvind.mat")


@pytest.mark.parametrize(
    "columns, expected",
    [
        ({"patient": [f"Q{n // 10 * 4 + n % 4}" for n in range(30)]}, "4 patients"),
        ({"fold": [n // 2 % 3 + 1 for n in range(30)]}, "[4, 5]"),
        ({"fold": [n % 5 + 1 for n in range(30)]}, "Q0, "),
        ({"fold": [1] * 29 + [""]}, "fold"),
    ],
)
def test_check_reports_folds_that_no_run_can_use(tmp_path, columns, expected):
    ((place, problem),) = check_folder(write_pairs(tmp_path, **columns))["problems"]
    assert place.startswith(str(tmp_path)) and expected in problem


# PNG pairs


def test_pair_is_upright_and_its_mask_is_turned_as_its_image(tmp_path):
    item = first_slice(write_pairs(tmp_path))
    assert np.array_equal(item.image, IMAGE // 8) and np.array_equal(item.mask, MASK)
    assert item.border.tolist() == [[19, 6], [22, 6], [22, 12], [19, 12]]
    assert (item.file, item.pid, item.label) == (1, "Q0", 1)
    assert (item.fold, item.plane, item.spacing_mm) == (None, None, None)
    write_pairs(tmp_path)
    Image.fromarray((IMAGE // 8).astype(np.uint8)[:20]).save(tmp_path / "png/0.png")
    for mask, is_valid in ((MASK[:20], True), (MASK[:20].T, False)):
        Image.fromarray(mask).save(tmp_path / "png/0-mask.png")
        problems = [
            problem.split(":")[0] for _, problem in check_folder(tmp_path)["problems"]
        ]
        assert problems == ([] if is_valid else ["mask"])


@pytest.fixture
def broken_pairs(tmp_path):
    """Pairs beside files that no row should name."""
    folder = write_pairs(tmp_path / "set", fold=1, plane="axial", spacing_mm=1)
    png = folder / "png"
    os.mkfifo(png / "pipe.png")
    (png / "loop.png").symlink_to(png / "loop.png")
    (png / "text.png").write_text("no image")
    (png / "half.png").write_bytes((png / "0.png").read_bytes()[:300])
    white, gray = MASK * 255, (IMAGE // 8).astype(np.uint8)
    images = {"../../outside.png": white, "picture.webp": white, "gray.png": gray}
    images |= {"small.png": white[:20, :20], "inverted.png": 255 - white}
    for name, pixels in (images | {"empty.png": white * 0}).items():
        Image.fromarray(pixels).save(png / name)
    return folder


FILES = ("none", "pipe", "loop", "text", "half", "a\0b")
FILES = [f"png/{name}.png" for name in FILES] + ["../outside.png", "", "x" * 300]
FILES += ["png/picture.webp", r"C:\png\0.png", r"\\server\png\0.png", "/png/0.png"]
BAD_MASKS = [f"png/{name}.png" for name in ("empty", "small", "gray", "inverted")]
BROKEN = {
    "image": [*FILES, "png/empty.png"],
    "mask": [*FILES, *BAD_MASKS],
    "patient": [" ", "P" * 65, "a\x1bb"],
    "label": ["tumor", "4", ""],
    "fold": ["0", "6", "two", "1.5"],
    "plane": ["oblique"],
    "spacing_mm": ["0", "half", "nan", "10"],
}


@pytest.mark.parametrize(
    "field, value", [(field, value) for field in BROKEN for value in BROKEN[field]]
)
def test_broken_row_is_named_with_its_field(broken_pairs, field, value):
    change_row(broken_pairs, 3, **{field: value})
    ((source, problem),) = check_folder(broken_pairs)["problems"]
    assert source.endswith("slices.csv, row 3") and problem.startswith(f"{field}: ")


def test_problem_of_many_rows_is_one(broken_pairs):
    for number in range(1, 6):
        change_row(broken_pairs, number, mask="png/gray.png")
    ((place, problem),) = check_folder(broken_pairs)["problems"]
    assert "row 1 and 4 more (row 2," in place and "png/gray.png" in problem


TABLE = "image,mask,label,patient,spacing_mm\npng/0.png,png/0-mask.png,3,Zoë,0.5\n"
SEMICOLON = TABLE.replace(",", ";").replace("0.5", "0,5")
TABLES = {
    "semicolons and decimal commas": SEMICOLON,
    "a line for Excel": "sep=;\n" + SEMICOLON,
    "tabs": TABLE.replace(",", "\t"),
    "BOM and Windows line ends": "\ufeff" + TABLE.replace("\n", "\r\n"),
    "spaces, capitals, quotes": TABLE.replace(",", " , ").replace("image", ' "Image"'),
    "rows of commas": TABLE + ",,,,\n\n  ,,,,,,\n",
    "trailing commas": TABLE.replace("\n", ",,\n"),
    "backslashes": TABLE.replace("/", "\\"),
    "index and floats": f",{TABLE.replace(',3,', ',3.0,')}".replace("\n", "\n0,", 1),
    "other order": "patient,label,spacing_mm,mask,image\n"
    "Zoë,pituitary tumor,0.5,png/0-mask.png,png/0.png\n",
}


@pytest.mark.parametrize("case", TABLES)
def test_tables_of_excel_windows_and_pandas_are_read(tmp_path, case):
    (write_pairs(tmp_path) / "slices.csv").write_bytes(TABLES[case].encode())
    (source,) = find_slices(tmp_path)
    item = read_slice(source)
    assert (item.pid, item.label, item.spacing_mm) == ("Zoë", 3, 0.5)


def test_ignored_files_and_columns_are_noted(tmp_path):
    folder = write_pairs(tmp_path, age=40)
    (folder / "notes.xlsx").touch()
    (folder / ".DS_Store").touch()
    notes = " ".join(check_folder(folder)["notes"])
    assert "1 file (notes.xlsx)" in notes and "columns age" in notes


HEADER = b"image,mask,label,patient\n"
BAD_TABLES = {
    "nothing": b"",
    "no row": HEADER + b",,,\n",
    "no column patient": b"image,mask,label\na.png,m.png,1\n",
    "column twice": b"Image," + HEADER + b"a.png,b.png,m.png,1,P\n",
    "open quote": b'image,mask\n"a',
    "UTF-16": "image".encode("utf-16"),
    "Latin-1": HEADER + "1.png,m.png,2,Zoë\n".encode("latin-1"),
    "workbook": b"PK\x03\x04\xff",
    "more cells": HEADER + b"1.png,m.png,2,Doe, J\n",
    "image twice": HEADER + b"a/1.png,m.png,1,P\na\\1.png,n.png,1,P\n",
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_bad_table_is_refused(tmp_path, case):
    (tmp_path / "slices.csv").write_bytes(BAD_TABLES[case])
    with pytest.raises(DatasetError, match="slices.csv[:,] "):
        find_slices(tmp_path)


def test_export_has_the_names_and_intensities_of_the_original_study(tmp_path):
    ramp = np.arange(SIDE * SIDE).reshape(SIDE, SIDE) * 3 - 700
    write_sample(tmp_path / "set/30.mat", label=1, image=ramp)
    write_sample(tmp_path / "set/7.mat", label=3)
    out = tmp_path / "out"
    assert export_png(tmp_path / "set", out) == 2
    names = sorted(str(path.relative_to(out)) for path in out.rglob("*.png"))
    assert names == ["1/30.matlabel=1.png", "3/7.matlabel=3.png"]
    with Image.open(out / names[0]) as png:
        gray = np.asarray(png)
    exact = (ramp - ramp.min()) / (ramp.max() - ramp.min()) * 255
    assert np.abs(gray - exact).max() <= 0.51
