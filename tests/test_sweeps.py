"""Sweeps: what a profile with lists stands for, and what is refused; a cluster's profile; hours before a run."""

import json
import shutil
import subprocess
import sys

import nbformat
import pandas as pd
import pytest
import yaml

from braintumor import cli
from braintumor.core.errors import ParameterError
from braintumor.core.files import ROOT
from braintumor.data import phantom
from braintumor.data import prepared as dataset
from braintumor.evaluation import scores as evaluate
from braintumor.workflow_engine import estimate, execution, sweeps

pytestmark = pytest.mark.usefixtures("alone_here")
BOTH = {"protocol": "official", "folds": [1, 2], "seed": 1, "both": {"crop_to": 0, "epochs": 1, "filters": 4}}


@pytest.fixture
def write(tmp_path):
    """A profile written for the test: `write(**values)` changes BOTH and returns the path of the file."""

    def written(**values):
        profile = {name: value for name, value in (BOTH | values).items() if value != "removed"}
        path = tmp_path / "pytest-sweep.yaml"
        path.write_text(yaml.safe_dump(profile, sort_keys=False))
        return path

    yield written
    for folder in (ROOT / "results", ROOT / "book/runs"):
        shutil.rmtree(folder / "pytest-sweep-phantom", ignore_errors=True)


def test_each_combination_is_a_run_with_a_folder_that_names_it(write):
    path = write(sweep={"seed": [1, 2], "image_size": [96, 64]})
    runs = sweeps.combinations(execution.read_profile(path) | {"name": "x", "data": "phantom"})
    assert list(runs) == [f"seed-{seed}+image_size-{size}" for seed in (1, 2) for size in (96, 64)]
    given = [parameters for run in runs.values() for _, _, parameters in execution.trainings(run)]
    assert [(one["seed"], one["image_size"], one["fold"]) for one in given] == [
        (seed, size, fold) for seed in (1, 2) for size in (96, 64) for fold in (1, 2)
    ]
    assert given[2]["results"] == "results/x/seed-1+image_size-64" and len({str(one) for one in given}) == 8


def test_parameter_reaches_the_sections_whose_notebook_has_it(write):
    alone = {"classify": {"image_size": 64}, "segment": {"image_size": 64}, "both": "removed", "folds": [1, 2, 3, 4, 5]}
    profile = execution.read_profile(write(**alone, sweep={"filters": [4, 8], "protocol": ["official"], "seed": [3]}))
    for folder, run in sweeps.combinations(profile).items():
        assert "sweep" not in run and run["segment"]["seed"] == run["classify"]["seed"] == 3
        assert f"filters-{run['segment']['filters']}+" in folder and "filters" not in run["classify"]


def test_profile_without_a_sweep_is_one_run():
    profile = execution.read_profile(ROOT / "config/quick.yaml")
    assert sweeps.combinations(profile) == {"": profile}


@pytest.mark.parametrize(
    "values, named",
    [
        (
            {"both": {"image_size": 64}, "sweep": {}},
            "sweep is {}; expected names of parameters, with a list of values for each",
        ),
        ({"sweep": [64]}, "both is {'crop_to': 0, 'epochs': 1, 'filters': 4}; expected the parameters of its notebook"),
        ({"sweep": {"image_size": []}}, "sweep, image_size is []; expected a list of at least one value, none twice"),
        ({"sweep": {"image_size": 64}}, "sweep, image_size is 64; expected a list"),
        ({"sweep": {"image_size": [64, 64]}}, "sweep, image_size is [64, 64]; expected a list"),
        ({"sweep": {"image_size": [64, "96"]}}, "sweep, image_size is [64, '96'], which mixes int and str"),
        ({"sweep": {"image_size": [64], "loss": ["dice"]}}, "sweep, loss: no notebook of both has such a parameter"),
        ({"sweep": {"image_size": [64], "fold": [1, 2]}}, "sweep, fold: cannot be swept"),
        ({"sweep": {"image_size": [64], "data": ["a", "b"]}}, "sweep, data: cannot be swept"),
        ({"sweep": {"image_size": [64], "epochs": [1, 2]}}, "sweep, epochs: both gives a value as well; remove that"),
        ({"sweep": {"image_size": [64], "protocol": ["official", "slice"]}}, "would be tested on different slices"),
        ({"protocol": "slice", "sweep": {"image_size": [64], "seed": [1, 2]}}, "would be tested on different slices"),
        (
            {"original": {"image_size": 64}, "sweep": {"image_size": [64]}},
            "a sweep is of classify and segment, or of both alone; give other sections a profile of their own",
        ),
        (
            {"original": {"image_size": 64}, "sweep": {"seed": [1]}}
            | dict.fromkeys(("both", "protocol", "folds"), "removed"),
            "a sweep is of classify and segment, or of both alone",
        ),
    ],
)
def test_bad_sweep_is_refused(write, values, named):
    path = write(**values)
    with pytest.raises(ParameterError) as caught:
        execution.read_profile(path)
    assert named in str(caught.value) and str(path) in str(caught.value)


def test_sweep_of_protocols_takes_all_five_folds(write):
    profile = execution.read_profile(
        write(folds=[1, 2, 3, 4, 5], sweep={"image_size": [64], "protocol": ["official", "slice"]})
    )
    assert len(sweeps.combinations(profile)) == 2


def test_value_that_its_notebook_refuses_is_told_before_data_is_prepared(write, tmp_path):
    path = write(sweep={"image_size": ["small", "large"]})
    with pytest.raises(ParameterError, match="image_size: is 'small' .str.; expected int"):
        execution.run(path, str(tmp_path / "no-data"), 1)


def test_sweep_is_run_and_compared_on_one_page(write, phantom_folder, monkeypatch, only_pages):
    pages, results = ROOT / "book/runs/pytest-sweep-phantom", ROOT / "results/pytest-sweep-phantom"
    runs = ["image_size-64+seed-1", "image_size-64+seed-2"]
    wanted = [pages / "04_evaluate.ipynb", pages / runs[1] / "04_evaluate.ipynb"]
    only_pages(wanted)
    monkeypatch.setattr(execution, "build_book", lambda profile: profile)
    path = write(folds=[1], sweep={"image_size": [64], "seed": [1, 2]})
    profile = execution.run(path, str(phantom_folder), 2)
    assert profile["name"] == "pytest-sweep-phantom" and all((results / run / "scores.json").exists() for run in runs)
    assert all((pages / run / "08_both-fold-1.ipynb").exists() for run in runs)
    shown = str(nbformat.read(wanted[0], 4).cells)
    assert "accuracy by slice, less the first" in shown and all(run in shown for run in runs)
    assert "no other run was named" in str(nbformat.read(wanted[1], 4).cells)
    sections = execution._sweep_sections(profile)
    assert [one["title"] for one in sections] == ["image_size 64, seed 1", "image_size 64, seed 2"]

    said = estimate.dry_run(path, str(phantom_folder), 2)
    assert said.count(" trained already\n") == 2 and "to train" not in said and "0.00 core hours" in said
    shutil.rmtree(results / runs[1] / "segment/fold-1")
    said = estimate.dry_run(path, str(phantom_folder), 2)
    line = next(line for line in said.splitlines() if line.startswith(f"{runs[1]}/08_both-fold-1 "))
    assert "to train, about" in line and f"results/pytest-sweep-phantom/{runs[0]}/classify/fold-1/run.json" in line

    table = evaluate.comparison([f"results/pytest-sweep-phantom/{run}" for run in runs[:1]], draws=5)
    assert table.index.tolist() == runs[:1] and "seed" not in table  # one run differs in nothing


def write_run(folder, filters, dice, seconds=60, protocol="official", folds=((1, (1, 2)), (2, (3, 4)))):
    """A run of four slices of four patients, in two folds, as notebooks 02 and 03 leave it."""
    for fold, files in folds:
        rows = pd.DataFrame({"file": files, "pid": [f"p{file}" for file in files], "fold": fold})
        rows["label"] = [1 + file % 3 for file in files]
        classify = rows.assign(p1=0.9, p2=0.05, p3=0.05)
        segment = rows.assign(dice=[dice[file - 1] for file in files])
        for task, notebook, table in (("classify", "02_classify", classify), ("segment", "03_segment", segment)):
            place = folder / task / f"fold-{fold}"
            place.mkdir(parents=True)
            table.to_csv(place / "predictions.csv", index=False)
            given = {"fold": fold, "protocol": protocol, "image_size": 64, "threads": fold}
            given |= {"filters": filters} if task == "segment" else {}
            record = {"digest": f"{fold}", "notebook": notebook, "parameters": given, "data": {"digest": "d"}}
            (place / "run.json").write_text(json.dumps(record | {"seconds": seconds, "finished": ""}))
    return str(folder)


@pytest.mark.filterwarnings("ignore:y_pred contains classes")  # four patients: some draws lack a class
def test_comparison_shows_what_differs_and_paired_gains(tmp_path):
    runs = [
        write_run(tmp_path / "one", 8, (0.1, 0.9, 0.4, 0.6)),
        write_run(tmp_path / "two", 16, (0.2, 1.0, 0.5, 0.7), seconds=90),
        write_run(
            tmp_path / "other-folds", 8, (0.1, 0.9, 0.4, 0.6), protocol="slice", folds=((1, (1, 4)), (2, (2, 3)))
        ),
    ]
    table = evaluate.comparison(runs, draws=50)
    assert table.index.tolist() == ["one", "two", "other-folds"]
    assert list(table)[:2] == ["protocol", "filters"] and table["filters"].tolist() == ["8", "16", "8"]
    assert table["mean Dice"].tolist() == ["0.500", "0.600", "0.500"]
    gains = table["mean Dice, less the first"].tolist()
    assert gains == ["", "+0.100 (+0.100 to +0.100)", "+0.000 (+0.000 to +0.000)"]
    assert table["minutes"].tolist() == ["4.0", "6.0", "4.0"]


# Hours before a run


def record(**values):
    given = {
        "image_size": 64,
        "crop_to": 0,
        "filters": 8,
        "network": "residual",
        "tasks": ["classify"],
        "task": "classify",
    }
    found = {
        "notebook": "08_both",
        "epochs": 10,
        "seconds": 100.0,
        "data": {"slices": 50},
        "path": "p",
        "processor": "x",
    }
    own = {name: values.pop(name) for name in list(values) if name in given}
    return found | values | {"parameters": given | own}


def test_time_is_judged_by_the_nearest_record_of_such_a_network():
    wanted = {
        "image_size": 128,
        "crop_to": 64,
        "filters": 8,
        "network": "residual",
        "tasks": ["classify"],
        "epochs": 20,
    }
    near, far = record(seconds=200.0), record(image_size=96, seconds=1.0)
    others = [record(filters=4), record(network="original"), record(notebook="02_classify"), record(epochs=1)]
    assert estimate.judges("08_both", wanted, [far, *others, near]) == [near]
    assert estimate.judges("08_both", wanted, others[:3]) == []
    assert estimate.seconds(wanted, 25, [near, record()]) == pytest.approx(150)  # twice the epochs, half the slices
    assert estimate.seconds(wanted | {"crop_to": 0}, 50, [near]) == pytest.approx(1600)  # and four times the pixels


def test_jobs_share_cores():
    assert estimate.wall([3, 1, 1, 1], 2) == 3 and estimate.wall([2, 2, 2], 2) == 4 and estimate.wall([], 2) == 0


def test_dry_run_writes_nothing_and_judges_all_sections(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(dataset, "ROOT", tmp_path)  # nothing is drawn or prepared
    before = sorted(ROOT.glob("results/*")) + sorted(ROOT.glob("book/runs/*"))
    assert cli.main(["run", "--profile", "leakage", "--dry-run", "--cores", "4"]) == 0
    said = capsys.readouterr().out
    assert "parts/06_leakage-segment-family-5 " in said and "by results/leakage/segment/" in said
    assert f"on {phantom.slice_count()} slices" in said and "hours on 4 cores" in said
    assert "07_original " in said and "what is trained already cannot be told" in said
    assert not list(tmp_path.iterdir())
    assert sorted(ROOT.glob("results/*")) + sorted(ROOT.glob("book/runs/*")) == before


def test_dry_run_says_where_no_earlier_run_tells(write, phantom_folder):
    said = estimate.dry_run(write(both={"filters": 3}, sweep={"image_size": [64]}), str(phantom_folder), 1)
    assert said.count("no earlier run of such a network to judge by") == 2
    assert "Not in it: 2 pages without an earlier run" in said


def test_slices_of_the_phantom_are_counted_without_drawing(phantom_folder):
    assert phantom.slice_count(patients=15) == dataset.count_slices(str(phantom_folder))


def test_no_cores_are_refused(capsys):
    assert cli.main(["run", "--dry-run", "--cores", "0"]) == 1
    assert "--cores is 0; expected 1 or more" in capsys.readouterr().err


# A cluster


def test_unknown_cluster_is_refused(capsys):
    assert cli.main(["run", "--cluster", "none"]) == 1
    assert "holds no profile of a cluster (config.yaml); there are slurm" in capsys.readouterr().err


def test_cluster_profile_gives_each_rule_memory_time_and_cores(write, phantom_folder, monkeypatch):
    """Snakemake reads it, and its jobs have what the profile gives, or more at the next attempt."""
    given = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    assert given["executor"] == "slurm" and given["retries"] >= 1
    assert set(given["default-resources"]) == {"mem_mb", "runtime", "cpus_per_task"}
    for resources in given["set-resources"].values():
        assert set(resources) <= set(given["default-resources"]) and "attempt" in resources["mem_mb"]
    calls = []
    monkeypatch.setattr(execution, "_python", lambda imported, call, *arguments: calls.append(arguments) or 1)
    profile = ROOT / "profiles/slurm"
    with pytest.raises(SystemExit):
        execution.run(write(sweep={"image_size": [64]}), str(phantom_folder), 2, profile)
    command = [sys.executable, "-m", "snakemake", *(str(word) for word in calls[0] if word not in ("--quiet", "rules"))]
    assert command[command.index("--profile") + 1] == str(profile)
    there = subprocess.run([*command, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    jobs = [job for job in there.split("\nrule ") if job.startswith(("08_both", "01_explore", "image_size-64/04"))]
    assert len({job.split(":")[0] for job in jobs}) == 3
    for job in jobs:
        memory = 4000 if job.startswith("08_both") else 2000
        assert f"mem_mb={memory}," in job and "runtime=" in job and "cpus_per_task=1" in job
    listed = subprocess.run([*command, "--list-rules"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(given["set-resources"]) - {"07_original"} <= set(
        listed.split()
    )  # that one is only where it is asked for
