"""The command `braintumor`: output, exit codes and error messages."""

import json
import os
import signal
import sys
from functools import cache

import numpy as np
import pytest
from PIL import Image

from braintumor import cli
from braintumor.data import prepared as prepared_module
from braintumor.data.labels import LABELS
from braintumor.inference import predictor as predictor_module
from braintumor.inference import report
from braintumor.inference.formats import read_image

NAMES = (
    "two words",
    "it's; so?",
    "$(touch x)`y`",
    "größe-脑",
    "{fold}%s",
    "-n",
    "a\nb",
)

pytestmark = pytest.mark.usefixtures("deterministic")
load_once = cache(predictor_module.Predictor)


@pytest.fixture(autouse=True)
def networks_loaded_once(monkeypatch):
    monkeypatch.setattr(predictor_module, "Predictor", load_once)


@pytest.fixture
def copies(phantom_folder, tmp_path):
    """Copy slice 1 of the phantom to some names; returns their folder."""

    def copy(names):
        folder = tmp_path / "images"
        folder.mkdir()
        for name in names:
            (folder / name).write_bytes((phantom_folder / "1.mat").read_bytes())
        return folder

    return copy


def run_json(capsys, *arguments):
    code = cli.main(["predict", "--json", *map(str, arguments)])
    output = capsys.readouterr()
    return code, [json.loads(line) for line in output.out.splitlines()], output.err


def test_predict_prints_a_table_and_writes_reports(phantom_folder, tmp_path, capsys):
    out = tmp_path / "new"
    paths = [str(phantom_folder / f"{n}.mat") for n in (1, 2)]
    assert cli.main(["predict", *paths, "--out", str(out)]) == 0
    output = capsys.readouterr()
    assert report.NOTICE in output.err
    assert output.out.splitlines()[0] == report.HEADER
    assert len(output.out.splitlines()) == 3
    suffixes = ("html", "mask.png", "overlay.png")
    expected = {f"{n}.mat.{suffix}" for n in (1, 2) for suffix in suffixes}
    assert {path.name for path in out.iterdir()} == expected
    mask = np.asarray(Image.open(out / "1.mat.mask.png"))
    assert mask.shape == read_image(paths[0]).pixels.shape


def test_predict_takes_folders_of_more_than_a_batch(copies, phantom_folder, capsys):
    folder = copies([f"{n}.mat" for n in range(18)])
    code, results, _ = run_json(capsys, folder)
    assert code == 0
    assert [result["image"] for result in results] == [f"{n}.mat" for n in range(18)]
    label = read_image(phantom_folder / "1.mat").label
    assert {result["true_class"] for result in results} == {LABELS[label]}


def test_predict_goes_on_after_an_unreadable_file(phantom_folder, tmp_path, capsys):
    (tmp_path / "letter.png").write_text("Dear doctor")
    good = phantom_folder / "1.mat"
    code, (result,), errors = run_json(capsys, tmp_path / "letter.png", good, good)
    assert code == 1
    assert result["path"] == str(good)
    assert "letter.png" in errors


def test_predict_takes_files_of_any_name(copies, tmp_path, capsys):
    folder = copies([f"{name}.mat" for name in (*NAMES, "脑" * 83)])
    arguments = ["predict", str(folder), "--out", str(tmp_path / "out")]
    assert cli.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(NAMES)
    assert all(line.isprintable() for line in lines)
    assert len(list((tmp_path / "out").iterdir())) == 3 * (1 + len(NAMES))


def test_held_out_needs_a_patient_of_the_dataset(phantom_folder, capsys):
    code, results, errors = run_json(capsys, "--held-out", phantom_folder / "1.mat")
    assert (code, results) == (1, [])
    assert "1.mat" in errors


def test_volume_needs_the_option_slice(tmp_path, capsys):
    pages = [Image.fromarray(np.full((32, 32), n, np.uint8)) for n in range(3)]
    pages[0].save(tmp_path / "volume.tif", save_all=True, append_images=pages[1:])
    code, _, errors = run_json(capsys, tmp_path / "volume.tif")
    assert code == 1
    assert "volume.tif" in errors
    assert "--slice" in errors


@pytest.mark.parametrize("place", ["images/out", "images/1.mat", "images/1.mat/out"])
def test_reports_need_a_folder_apart_from_the_images(copies, tmp_path, capsys, place):
    folder = copies(["1.mat"])
    assert cli.main(["predict", str(folder), "--out", str(tmp_path / place)]) == 1
    assert str(tmp_path / place) in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["1.mat"]


def test_data_check_reports_problems(phantom_folder, tmp_path, capsys):
    assert cli.main(["data", "check", str(phantom_folder)]) == 0
    assert "found" in capsys.readouterr().out
    (tmp_path / "1.mat").write_text("no HDF5")
    assert cli.main(["data", "check", str(tmp_path)]) == 1
    assert "problem  " in capsys.readouterr().out


def test_data_check_reports_missing_slices(phantom_folder, tmp_path, capsys):
    for name in ("cvind.mat", "1.mat", "2.mat"):
        (tmp_path / name).symlink_to(phantom_folder / name)
    cli.main(["data", "check", str(tmp_path)])
    assert "missing" in capsys.readouterr().out


def test_data_phantom_is_exported_as_png(tmp_path, capsys):
    phantom, out = tmp_path / "phantom", tmp_path / "png"
    options = ["--patients", "15", "--size", "64", "--seed", "1"]
    assert cli.main(["data", "phantom", str(phantom), *options]) == 0
    assert cli.main(["data", "export-png", str(phantom), str(out)]) == 0
    n_slices = len(list(phantom.glob("[0-9]*.mat")))
    assert len(list(out.rglob("*.png"))) == n_slices
    assert f"wrote {n_slices} slices" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "percentiles"), [([], None), (["--minmax"], (0, 100))]
)
def test_data_prepare_makes_what_notebooks_open(
    phantom_folder, tmp_path, monkeypatch, options, percentiles
):
    monkeypatch.setattr(prepared_module, "ROOT", tmp_path)
    arguments = ["data", "prepare", str(phantom_folder), "--size", "64", *options]
    assert cli.main(arguments) == 0
    given = () if percentiles is None else (percentiles,)
    folder = prepared_module.cache_dir(phantom_folder, 64, *given)
    assert folder.is_relative_to(tmp_path)
    assert len(prepared_module.open_prepared(folder).images)


def test_errors_are_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prepared_module, "ROOT", tmp_path)
    assert cli.main(["data", "prepare", str(tmp_path / "a\nb"), "--size", "64"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_app_runs_the_server_of_the_project(monkeypatch):
    commands = []
    monkeypatch.setattr(os, "execv", lambda *command: commands.append(command))
    cli.main(["app", "--data", "slices", "--port", "9000"])
    ((program, arguments),) = commands
    assert program == sys.executable
    assert arguments[1].endswith("app/serve.py")
    assert arguments[2:] == ["slices", "9000"]


def test_app_refuses_an_impossible_port(capsys):
    assert cli.main(["app", "--port", "99999"]) == 1
    assert "--port" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption_is_one_line_and_exit_code_130(monkeypatch, capsys, number):
    old = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(cli, "_check", lambda args: os.kill(os.getpid(), number))
    try:
        assert cli.main(["data", "check", "x"]) == 130
    finally:
        for n, handler in old.items():
            signal.signal(n, handler)
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
