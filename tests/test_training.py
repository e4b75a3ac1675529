"""A fold's run: recognised by its digest, stopped and continued without a trace, shown only when whole."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import keras
import nbformat
import numpy as np
import pandas as pd
import pytest

from braintumor.core.errors import ParameterError
from braintumor.training import loop as training
from braintumor.training import provenance
from braintumor.training.augmentation import as_input, plain_batches, steps, training_batches
from braintumor.training.loop import FoldRun, read_predictions

pytestmark = pytest.mark.usefixtures("deterministic")

PARAMETERS = {
    "protocol": "official",
    "data": "phantom",
    "results": "results/tiny",
    "threads": 2,
    "fold": 1,
    "seed": 0,
    "epochs": 4,
}
# no epoch counts as progress, so the learning rate falls after every second one
IMPATIENT = {"monitor": "val_entropy", "min_delta": 100, "factor": 0.3, "patience": 1, "cooldown": 1, "min_lr": 2e-4}
CELLS = [
    ("# A title", [], "markdown"),
    ('"""Trains."""\nmodel = cnn(64)  # the network\n', ["train"], "code"),
    ("fit(unet(64))", ["train-segment"], "code"),
    ("plot(history)", [], "code"),
]


def write_notebook(root, cells=CELLS, name="tiny"):
    new = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    made = [new[kind](source, metadata={"tags": tags}) for source, tags, kind in cells]
    (root / "notebooks").mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=made), root / f"notebooks/{name}.ipynb")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project of its own with one tiny notebook."""
    for module in (provenance, training):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    write_notebook(tmp_path)
    return tmp_path


def network(task, seed):
    """A small compiled network with all that has a state: weights, Adam, batch normalisation, dropout."""
    training.start(seed, threads=2)
    body = [
        keras.layers.Input((64, 64, 1)),
        keras.layers.Conv2D(4, 3, 2, "same", activation="relu", kernel_regularizer=keras.regularizers.L2(0.01)),
        keras.layers.Dropout(0.3),
        keras.layers.BatchNormalization(),
    ]
    if task == "classify":
        head = [keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")]
    else:
        head = [keras.layers.Conv2DTranspose(1, 2, 2, activation="sigmoid")]
    model = keras.Sequential(body + head)
    if task == "classify":
        loss, metric = "sparse_categorical_crossentropy", keras.metrics.SparseCategoricalCrossentropy("entropy")
    else:
        loss, metric = "binary_crossentropy", keras.metrics.BinaryCrossentropy("entropy")
    model.compile("adam", loss, metrics=[metric])
    return model


def train(prepared, task="classify", epochs=4, **parameters):
    """One fold of a tiny task, as a notebook runs it; returns the FoldRun and the model."""
    parameters = PARAMETERS | {"epochs": epochs, "results": f"results/{task}"} | parameters
    run = FoldRun("tiny", parameters, prepared)
    targets = prepared.index["label"].to_numpy() - 1 if task == "classify" else prepared.masks
    train, held_out, test = slice(0, None, 5), slice(1, None, 15), slice(2, None, 15)

    def batches(first_epoch):
        augmentation = {"zoom": (0.9, 1.1), "flip": 0.5}
        return training_batches(
            prepared.images[train], targets[train], 8, epochs, parameters["seed"], augmentation, first_epoch
        )

    count = len(prepared.images[train])
    model = network(task, parameters["seed"])
    validation = plain_batches(prepared.images[held_out], targets[held_out])
    training.fit(model, run.work, batches, steps(count, 8), validation, epochs, plateau=IMPATIENT, tensorboard=True)
    values = model(as_input(prepared.images[test])).numpy().reshape(len(prepared.images[test]), -1)
    table = prepared.index[["file", "pid"]].iloc[test].reset_index(drop=True)
    run.finish(model, table.join(pd.DataFrame(values[:, :3], columns=["p1", "p2", "p3"])))
    return run, model


def without_seconds(history):
    return history.drop(columns="seconds")


def only_older(folder):
    """The names beside each other under results/: no hidden folder is left."""
    return sorted(path.name for path in folder.parent.iterdir())


@pytest.fixture(scope="module")
def undisturbed(prepared, tmp_path_factory):
    """A finished, undisturbed run of each task: its FoldRun and its model; tests only read it."""
    root = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        for module in (provenance, training):
            patch.setattr(module, "ROOT", root)
        write_notebook(root)
        return {task: train(prepared, task) for task in ("classify", "segment")}


# The finished result.


def test_finished_run_is_whole(undisturbed):
    run, _ = undisturbed["classify"]
    assert run.done
    files = sorted(path.name for path in run.folder.iterdir())
    assert files == ["history.csv", "model.keras", "predictions.csv", "run.json", "tensorboard"]
    assert only_older(run.folder) == ["fold-1"]


def test_record_says_what_was_run(undisturbed, prepared):
    run, _ = undisturbed["classify"]
    record = json.loads((run.folder / "run.json").read_text())
    assert record == run.record
    assert (record["digest"], record["notebook"], record["epochs"]) == (run.digest, "tiny", 4)
    assert record["parameters"] == PARAMETERS | {"results": "results/classify"}
    about = prepared.about
    assert record["data"] == {name: about[name] for name in training.DATA_RECORD}
    assert record["seconds"] == pytest.approx(run.history()["seconds"].sum(), abs=0.06)
    assert record["threads"] == 2 and record["processor"] and record["peak_memory_mb"] > 100
    assert record["packages"]["keras"] == keras.__version__ and set(record["packages"]) == set(provenance.PACKAGES)
    assert set(record["git"]) == {"commit", "clean"} and record["finished"].endswith("UTC")


def test_history_has_one_row_an_epoch(undisturbed):
    history = undisturbed["classify"][0].history()
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    assert {"loss", "val_loss", "seconds"} <= set(history.columns)
    assert history["loss"].nunique() == 4


def test_learning_rate_falls_without_progress_but_not_under_the_floor(undisturbed):
    rates = undisturbed["classify"][0].history()["learning_rate"]
    assert rates.tolist() == pytest.approx([1e-3, 1e-3, 3e-4, 2e-4])


def test_weights_are_those_of_the_best_epoch(prepared, root):
    """Validated on wrong labels, a network that learns gets worse."""
    images, labels = prepared.images[::5], prepared.index["label"].to_numpy()[::5] - 1
    wrong = plain_batches(images, (labels + 1) % 3)
    run, model = FoldRun("tiny", PARAMETERS, prepared), network("classify", 0)
    batches = lambda first_epoch: training_batches(images, labels, 8, 4, 0)  # noqa: E731
    training.fit(model, run.work, batches, steps(len(images), 8), wrong, 4)
    losses = pd.read_csv(run.work / "history.csv")["val_loss"]
    assert losses.idxmin() != 3
    assert model.evaluate(wrong, verbose=0)[0] == pytest.approx(losses.min(), rel=1e-5)


def test_no_epochs_and_a_loss_that_is_not_finite_are_told(prepared, tmp_path):
    images, labels = prepared.images[:16], prepared.index["label"].to_numpy()[:16] - 1
    same = plain_batches(images, labels)

    def fit(epochs, rate):
        model = network("classify", 0)
        model.compile(keras.optimizers.SGD(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
        batches = training_batches(images, labels, 8, 3, 0)
        training.fit(model, tmp_path / "work", lambda _: batches, 2, same, epochs, "val_accuracy")

    with pytest.raises(ParameterError, match="epochs is 0; expected 1 or more"):
        fit(0, 0.01)
    with pytest.raises(FloatingPointError, match="loss is nan in epoch .*: lower learning_rate"):
        fit(3, 1e30)


def test_best_epoch_can_be_that_of_the_greatest_accuracy(prepared, tmp_path):
    images, labels = prepared.images[::5], prepared.index["label"].to_numpy()[::5] - 1
    model = network("classify", 0)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    batches, same = training_batches(images, labels, 8, 5, 0), plain_batches(images, labels)
    training.fit(model, tmp_path / "work", lambda _: batches, steps(len(images), 8), same, 5, "val_accuracy")
    accuracies = pd.read_csv(tmp_path / "work" / "history.csv")["val_accuracy"]
    assert accuracies.max() > accuracies.min()
    assert model.evaluate(same, verbose=0)[1] == pytest.approx(accuracies.max())


def test_kept_model_gives_the_kept_predictions(undisturbed, prepared):
    run, _ = undisturbed["classify"]
    table = run.predictions()
    assert table["pid"].tolist() == prepared.index["pid"].iloc[2::15].tolist()  # as text
    model = keras.models.load_model(run.folder / "model.keras")
    probabilities = model(as_input(prepared.images[2::15])).numpy()
    assert np.abs(table[["p1", "p2", "p3"]].to_numpy() - probabilities).max() < 1e-5
    assert read_predictions(run.folder).equals(table)


def test_same_seed_gives_the_same_bytes_and_another_does_not(undisturbed, prepared, root):
    first, _ = undisturbed["classify"]
    same, _ = train(prepared)
    assert (same.folder / "predictions.csv").read_bytes() == (first.folder / "predictions.csv").read_bytes()
    assert without_seconds(same.history()).equals(without_seconds(first.history()))
    other, _ = train(prepared, seed=1)
    assert (other.folder / "predictions.csv").read_bytes() != (first.folder / "predictions.csv").read_bytes()


# Stopped and continued.


class Stop(BaseException):
    """Not an Exception, as a KeyboardInterrupt is not."""


def stop_before_epoch_3(patch):
    def stopped(self, epoch, logs=None):
        if epoch == 2:
            raise Stop
        begin(self, epoch, logs)

    begin = training._Keeper.on_epoch_begin
    patch.setattr(training._Keeper, "on_epoch_begin", stopped)


def stop_within_epoch_3(patch):
    def stopped(self, batch, logs=None):
        if len(self.history) == 2 and batch == 1:
            raise Stop

    patch.setattr(training._Keeper, "on_train_batch_end", stopped)


def stop_while_keeping_epoch_2(patch):
    """The weights are there, the history does not say so yet."""

    def stopped(self, path):
        save(self, path)
        if path.name == "epoch-2.weights.h5":
            raise Stop

    save = training._Keeper._save
    patch.setattr(training._Keeper, "_save", stopped)


def stop_now(*args):
    raise Stop


def stop_after_the_last_epoch(patch):
    patch.setattr(FoldRun, "finish", stop_now)


def stop_before_the_record(patch):
    patch.setattr(provenance, "machine", stop_now)


@pytest.mark.parametrize(
    "task, stop, kept",
    [
        ("classify", stop_before_epoch_3, 2),
        ("classify", stop_within_epoch_3, 2),
        ("classify", stop_while_keeping_epoch_2, 1),
        ("classify", stop_after_the_last_epoch, 4),
        ("classify", stop_before_the_record, 4),
        ("segment", stop_within_epoch_3, 2),
    ],
)
def test_stopped_and_continued_run_is_the_undisturbed_one(undisturbed, prepared, root, capsys, task, stop, kept):
    whole, whole_model = undisturbed[task]
    with pytest.MonkeyPatch.context() as patch:
        stop(patch)
        with pytest.raises(Stop):
            train(prepared, task)
    assert not (root / f"results/{task}/fold-1").exists()
    capsys.readouterr()
    run, model = train(prepared, task)
    assert f"continuing after epoch {kept}" in capsys.readouterr().out
    assert run.done and run.digest == whole.digest
    assert (run.folder / "predictions.csv").read_bytes() == (whole.folder / "predictions.csv").read_bytes()
    history = [without_seconds(pd.read_csv(r.folder / "history.csv", dtype=str)) for r in (run, whole)]
    assert history[0].equals(history[1])
    for one, other in zip(model.get_weights(), whole_model.get_weights(), strict=True):
        assert np.array_equal(one, other)
    assert only_older(run.folder) == ["fold-1"]


def test_run_stopped_before_its_folder_was_renamed_is_done_at_the_next_look(prepared, root):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FoldRun, "_publish", stop_now)
        with pytest.raises(Stop):
            train(prepared, epochs=1)
    assert not (root / "results/classify/fold-1").exists()
    run = FoldRun("tiny", PARAMETERS | {"epochs": 1, "results": "results/classify"}, prepared)
    assert run.done and len(run.history()) == 1


def test_older_result_stays_until_the_new_one_is_whole(prepared, root):
    older, _ = train(prepared, epochs=1)
    before = {path.name: path.read_bytes() for path in older.folder.glob("*.*")}
    with pytest.MonkeyPatch.context() as patch:
        stop_after_the_last_epoch(patch)
        with pytest.raises(Stop):
            train(prepared, epochs=1, seed=1)
    assert {path.name: path.read_bytes() for path in older.folder.glob("*.*")} == before
    assert older.done
    newer, _ = train(prepared, epochs=1, seed=1)
    assert newer.done and not older.done and newer.folder == older.folder
    assert only_older(newer.folder) == ["fold-1"]


def test_folds_lie_beside_each_other(prepared, root):
    for fold in (1, 2):
        folder = root / f"results/classify/fold-{fold}"
        folder.mkdir(parents=True)
        (folder / "run.json").write_text("{}")
    run, _ = train(prepared, epochs=1, fold=2)
    assert run.folder == folder and run.done
    assert (root / "results/classify/fold-1/run.json").read_text() == "{}"


def test_finished_part_leaves_the_stopped_training_of_another_alone(prepared, root):
    results = root / "results/original"
    stopped, given_up = (results / f".{part}-{digit * 12}" for part, digit in (("bce-dice", "a"), ("bce", "b")))
    for folder in (stopped, given_up):
        folder.mkdir(parents=True)
    train(prepared, epochs=1, results="results/original", part="bce")
    assert only_older(results / "bce") == [stopped.name, "bce"]


def test_run_is_not_done_before_it_ran_nor_with_other_parameters(undisturbed, prepared, root):
    parameters = PARAMETERS | {"results": "results/classify"}
    run = FoldRun("tiny", parameters, prepared)
    assert not run.done and run.record == {}
    whole, _ = undisturbed["classify"]
    shutil.copytree(whole.folder, run.folder)
    assert run.done
    assert not FoldRun("tiny", parameters | {"epochs": 5}, prepared).done


# The digest.

DATA = SimpleNamespace(about={"digest": "d1", "kind": "phantom", "size": 64, "slices": 9})


def digest(parameters=PARAMETERS, data=DATA):
    return provenance.run_digest("tiny", parameters, data)


@pytest.mark.parametrize("change", [{"seed": 1}, {"fold": 2}, {"epochs": 5}, {"filters": 16}])
def test_digest_changes_with_parameters(root, change):
    assert digest(PARAMETERS | change) != digest()


@pytest.mark.parametrize("change", [{"data": "/elsewhere"}, {"results": "results/other"}, {"threads": 1}])
def test_digest_does_not_change_with_what_is_only_for_show(root, change):
    assert digest(PARAMETERS | change) == digest()


def test_digest_does_not_depend_on_the_order_of_parameters(root):
    assert digest(dict(reversed(PARAMETERS.items()))) == digest()


def test_digest_changes_with_the_data_only_by_its_pixels(root):
    assert digest(data=SimpleNamespace(about=DATA.about | {"digest": "d2"})) != digest()
    assert digest(data=SimpleNamespace(about=DATA.about | {"source": "/elsewhere"})) == digest()


def test_digest_differs_between_notebooks(root):
    write_notebook(root, name="other")
    assert provenance.run_digest("other", PARAMETERS, DATA) != digest()


@pytest.mark.parametrize(
    "source, same",
    [
        ("model = cnn(64)", True),
        ('"""Trains the network."""\n\nmodel = cnn(\n    64\n)  # a comment', True),
        ("# only a comment more\nmodel = cnn(64)", True),
        ("model = cnn(65)", False),
        ("model = cnn(64)\nmodel.summary()", False),
        ("", False),
    ],
)
def test_digest_changes_with_the_code_of_train_cells_but_not_its_wording(root, source, same):
    first = digest()
    write_notebook(root, [CELLS[0], (source, ["train"], "code"), *CELLS[2:]])
    assert (digest() == first) == same


def test_digest_does_not_change_with_other_cells(root):
    first = digest()
    text, trained, *_ = CELLS
    write_notebook(root, [text, ("import seaborn", ["setup"], "code"), trained, ("plot(history, 'red')", [], "code")])
    assert digest() == first


@pytest.fixture
def library(root, tmp_path, monkeypatch):
    """A copy of lib/braintumor that the digest is taken of."""
    copy = tmp_path / "braintumor"
    shutil.copytree(Path(provenance.__file__).parents[1], copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "__file__", str(copy / "training/provenance.py"))
    return copy


def test_digest_changes_with_cells_of_its_own_task_only(root):
    classify, segment = (PARAMETERS | {"task": task} for task in ("classify", "segment"))
    before = digest(classify), digest(segment)
    write_notebook(root, [*CELLS[:2], ("fit(unet(65))", ["train-segment"], "code")])
    assert digest(classify) == before[0] and digest(segment) != before[1]


@pytest.mark.parametrize(
    "module, reached, line",
    [
        ("models/original", "cnn", "    _check_size(size)\n"),  # by name
        ("models/original", "_check_size", "    if size < 64:\n"),  # through cnn
        ("models/original", "CLASSES", "CLASSES = 3\n"),
    ],
)
def test_digest_changes_with_the_code_that_is_reached_but_not_its_wording(library, module, reached, line):
    first = digest()
    path = library / f"{module}.py"
    source = path.read_text()
    assert line in source
    path.write_text('"""Another docstring."""\n# and a comment\n' + source)
    assert digest() == first
    path.write_text(source.replace(line, line.replace("3", "4").replace("64", "65").replace("(size)", "(size + 1)")))
    assert digest() != first


def test_digest_does_not_change_with_code_that_is_not_reached(library):
    first = digest()
    path = library / "models/original.py"
    path.write_text(path.read_text().replace("filters * 16)", "filters * 32)") + "\nMORE = 1\n")
    assert digest() == first  # neither the U-Net nor what is new is asked for
    assert digest(PARAMETERS | {"task": "segment"}) != first


def test_digest_does_not_change_with_docstrings_of_functions(library):
    path = library / "models/original.py"
    first, source = digest(), path.read_text()
    changed = source.replace("The original study's classifier:", "Reworded:")
    assert changed != source
    path.write_text(changed)
    assert digest() == first
    path.write_text(source.replace("layers.Dropout(0.3)", "layers.Dropout(0.4)"))
    assert digest() != first


def test_digest_does_not_change_with_code_that_only_shows(library):
    first = digest()
    path = library / "plots/figures.py"
    path.write_text(path.read_text() + "\nMORE = 1\n")
    assert digest() == first


# What a page says of it.


def test_line_of_a_run_says_what_made_the_numbers(undisturbed):
    record = undisturbed["classify"][0].record
    line = provenance.run_line(record).data
    for word in (
        record["digest"][:12],
        "official split, tested on fold 1,",
        "seed 0",
        "4 epochs",
        "2 threads",
        record["processor"],
        keras.__version__,
    ):
        assert word in line
    assert "commit `not from git`" in line


@pytest.mark.parametrize(
    "clean, expected", [(True, "commit `0123456789`,"), (False, "commit `0123456789 and changes`,")]
)
def test_line_of_a_run_tells_uncommitted_changes(undisturbed, clean, expected):
    record = undisturbed["classify"][0].record | {"git": {"commit": "0123456789abcdef" * 2, "clean": clean}}
    assert expected in provenance.run_line(record).data


def test_line_of_a_run_ends_with_its_note(undisturbed):
    record = undisturbed["classify"][0].record | {"note": "answered anew"}
    assert provenance.run_line(record).data.endswith("UTC (answered anew).*")


def test_table_of_runs_has_a_row_for_each_training(undisturbed):
    record = undisturbed["classify"][0].record
    other = record | {"parameters": record["parameters"] | {"fold": 2, "seed": 5}, "note": "answered anew"}
    both = provenance.run_table([record, record | {"digest": "f" * 64}, other]).data
    rows = [line for line in both.splitlines() if line.startswith("| tiny")]
    assert [row.split("|")[1].strip() for row in rows] == ["tiny, fold 1", "tiny, fold 2"]
    assert record["digest"][:12] in rows[0] and "`ffffffffffff`" in rows[0]
    assert both.count("answered anew") == 1 and "*tiny, fold 2: answered anew.*" in both
    assert "seed 0, 5," in both and record["processor"] in both
    assert provenance.run_table([record]).data == provenance.run_line(record).data
    third = other | {"parameters": other["parameters"] | {"fold": 3}}
    assert "*tiny, fold 2; tiny, fold 3: answered anew.*" in provenance.run_table([other, third]).data
    trials = [record | {"seconds": n, "parameters": record["parameters"] | {"change": f"trial {n}"}} for n in (1, 2)]
    assert "| tiny, fold 1, trial 1 |" in (said := provenance.run_table(trials).data) and "fold 1, trial 2 |" in said


@pytest.mark.parametrize("kind", ["phantom", "figshare", "figshare-jpeg", "folder"])
def test_banner_says_which_data_a_page_shows(kind):
    about = {"kind": kind, "slices": 3064, "size": 512, "digest": "0123456789abcdef"}
    banner = provenance.data_banner(about | {"folds": "cvind"}).data
    assert (
        "folds from cvind.mat" in banner
        and "3,064 slices" in banner
        and "512 pixels" in banner
        and "0123456789ab" in banner
    )
    assert ("synthetic phantom" in banner) == (kind == "phantom")
    assert ("figshare" in banner) == kind.startswith("figshare")


@pytest.mark.parametrize(
    "seconds, said", [(4, "4 s"), (119, "119 s"), (150, "2.5 min"), (7200, "2.0 h"), (90000, "25.0 h")]
)
def test_time_left_is_told_in_a_fitting_unit(seconds, said):
    assert training._duration(seconds) == said
