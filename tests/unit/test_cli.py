"""The command `braintumor`: output, exit codes and error messages."""

import json
import os
import shutil
import signal
from functools import cache

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from samples import write_patients

from braintumor import cli
from braintumor.core.files import ROOT
from braintumor.data.labels import LABELS
from braintumor.inference import predictor, report
from braintumor.inference.formats import read_image

NAMES = ["two words", "it's; so?", "$(touch x)`y`", "größe-脑", "{x}%s", "-n", "a\nb"]
NAMES.append("脑" * 83)

pytestmark = pytest.mark.usefixtures("deterministic")
load_once = cache(predictor.Predictor)


@pytest.fixture(autouse=True)
def networks_loaded_once(monkeypatch):
    monkeypatch.setattr(predictor, "Predictor", load_once)


@pytest.fixture
def folder(phantom_folder, tmp_path):
    """Slice 1 of the phantom under unusual names."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.mat").write_bytes((phantom_folder / "1.mat").read_bytes())
    return folder


def run_json(capsys, *arguments):
    code = cli.main(["predict", "--json", *map(str, arguments)])
    output = capsys.readouterr()
    return code, [json.loads(line) for line in output.out.splitlines()], output.err


def test_predict_takes_files_of_any_name_and_writes_reports(folder, tmp_path, capsys):
    out = tmp_path / "new"
    assert cli.main(["predict", str(folder), "--out", str(out)]) == 0
    output = capsys.readouterr()
    assert report.NOTICE in output.err
    lines = output.out.splitlines()
    assert lines[0] == report.HEADER and len(lines) == 1 + len(NAMES)
    assert all(line.isprintable() for line in lines)
    names = {path.name for path in out.iterdir()}
    assert {"-n.mat.html", "-n.mat.mask.png", "-n.mat.overlay.png"} <= names
    assert len(names) == 3 * len(NAMES)


def test_predict_goes_on_after_an_unreadable_file(phantom_folder, tmp_path, capsys):
    (tmp_path / "letter.png").write_text("Dear doctor")
    good = phantom_folder / "1.mat"
    code, (result,), errors = run_json(capsys, tmp_path / "letter.png", good, good)
    assert code == 1 and "letter.png" in errors
    assert result["path"] == str(good)
    assert result["true_class"] == LABELS[read_image(good).label]
    # of a patient who is not in the dataset
    code, results, errors = run_json(capsys, "--held-out", good)
    assert (code, results) == (1, []) and "1.mat" in errors


@pytest.mark.parametrize("place", ["out", "-n.mat", "-n.mat/out"])
def test_reports_need_a_folder_apart_from_the_images(folder, capsys, place):
    assert cli.main(["predict", str(folder), "--out", str(folder / place)]) == 1
    assert str(folder / place) in capsys.readouterr().err
    assert len(list(folder.iterdir())) == len(NAMES)


def test_data_check_reports_problems_and_missing_slices(tmp_path, capsys):
    folder = write_patients(tmp_path / "set")
    assert cli.main(["data", "check", str(folder)]) == 0
    assert "found" in capsys.readouterr().out
    (folder / "2.mat").unlink()
    assert cli.main(["data", "check", str(folder)]) == 0
    assert "missing" in capsys.readouterr().out
    (folder / "1.mat").write_text("no HDF5")
    assert cli.main(["data", "check", str(folder)]) == 1
    assert "problem  " in capsys.readouterr().out


def test_data_phantom_is_exported_as_png(tmp_path, capsys):
    phantom, out = tmp_path / "phantom", tmp_path / "png"
    options = ["--patients", "15", "--size", "64"]
    assert cli.main(["data", "phantom", str(phantom), *options]) == 0
    assert cli.main(["data", "export-png", str(phantom), str(out)]) == 0
    n_slices = len(list(out.rglob("*.png")))
    assert len(list(phantom.glob("[0-9]*.mat"))) == n_slices
    assert f"wrote {n_slices} slices" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command",
    [
        "data check FILE",
        "data phantom FILE",
        "data download FILE",
        "data export-png FILE out",
        f"predict {__file__} --out FILE",
    ],
)
def test_file_in_place_of_a_folder_is_one_line(tmp_path, capsys, command):
    path = tmp_path / "a\nb"
    path.touch()
    assert cli.main([str(path) if s == "FILE" else s for s in command.split()]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "nb" in line and "expected a folder" in line and "Errno" not in line


BAD_NUMBERS = ["app --port 99999", "app --port 0", "app --port http"]
BAD_NUMBERS += [f"data phantom x --{o}" for o in ("patients 14", "size 62", "seed -1")]
BAD_NUMBERS += ["data prepare phantom --size 0"]


@pytest.mark.parametrize("command", BAD_NUMBERS)
def test_number_out_of_range_is_named_with_its_option(capsys, command):
    with pytest.raises(SystemExit):
        cli.main(command.split())
    *_, option, value = command.split()
    assert f"{option}: got {value}, " in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption_is_one_line_and_exit_code_130(monkeypatch, capsys, number):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(cli, "_check", lambda args: os.kill(os.getpid(), number))
    assert cli.main(["data", "check", "x"]) == 130
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_evaluate_scores_what_can_be_read_and_lists_the_rest(tmp_path, capsys):
    folder, out = tmp_path / "set", tmp_path / "a{x}"
    folder.mkdir()
    for name in ("1.png", "2.png", "3.png", "4.png", "../outside.png"):
        shutil.copy(ROOT / "tests/data/phantom.png", folder / name)
    gray = np.pad(np.full((9, 9), 255, np.uint8), 20)
    Image.fromarray(gray).save(folder / "small.png")
    rows = ["image,label,mask", "1.png,1.0,", "2.png,giloma,", "3.png,,small.png"]
    rows += ["../outside.png,1,", "missing.png,2,", "4.png,2,"]
    (folder / "slices.csv").write_text("\n".join(rows))
    assert cli.main(["evaluate", str(folder), "--out", str(out)]) == 0
    table = pd.read_csv(out / "predictions.csv")
    assert table["prob_glioma"].notna().tolist() == [True] + [False] * 4 + [True]
    reasons = ("giloma", "the image's", "such as img/1.png", "got none")
    for reason, text in zip(reasons, table["warnings"][1:5], strict=True):
        assert reason in text
    html = (out / "report.html").read_text()
    assert "<title>report</title>" in html and "<script" not in html
    assert "(external)=" not in html and "2 slices</strong> of 2 patients" in html

    (folder / "slices.csv").write_text("image\nmissing.png")
    assert cli.main(["evaluate", str(folder), "--out", str(out)]) == 1
    assert "missing.png" in capsys.readouterr().err
