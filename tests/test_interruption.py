"""A training that is killed at random moments, finds its disk full, or has fewer threads ends as one left alone."""

import errno
import random
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from multiprocessing import get_context

import keras
import pandas as pd
import pytest
from test_training import PARAMETERS, train, without_seconds, write_notebook

from braintumor.core.errors import BusyError, FullDiskError
from braintumor.data.prepared import open_prepared, prepare
from braintumor.training import loop as training
from braintumor.training import provenance
from braintumor.training.augmentation import as_input, plain_batches, steps, training_batches
from braintumor.training.loop import FoldRun, read_table

KILLS, EPOCHS = 20, 8


@contextmanager
def full_disk_as_exit_code():
    try:
        yield
    except FullDiskError:
        sys.exit(errno.ENOSPC)


def train_in_a_process_of_its_own(root, folder, threads):
    """What a kernel does, with the smallest network that has a state beside its weights; it speaks to said.txt."""
    provenance.ROOT = training.ROOT = root
    prepared = open_prepared(folder)
    images, labels = prepared.images, prepared.index["label"].to_numpy() - 1
    with full_disk_as_exit_code(), open(root / "said.txt", "a", buffering=1) as sys.stdout:
        run = FoldRun("tiny", PARAMETERS | {"results": "results/classify"}, prepared)
        training.start(0, threads)
        parts = [keras.layers.Flatten(), keras.layers.Dropout(0.3), keras.layers.Dense(3, activation="softmax")]
        model = keras.Sequential([keras.layers.Input((64, 64, 1)), *parts])
        model.compile("adam", "sparse_categorical_crossentropy")
        batches = lambda first_epoch: training_batches(images, labels, 4, EPOCHS, 0, None, first_epoch)  # noqa: E731
        validation = plain_batches(images[:16], labels[:16])
        training.fit(model, run.work, batches, steps(len(images), 4), validation, EPOCHS)
        table = pd.DataFrame(model.predict(as_input(images), verbose=0), columns=["p1", "p2", "p3"])
        run.finish(model, prepared.index[["file", "pid"]].join(table))


@pytest.fixture(scope="module")
def start(phantom_folder, tmp_path_factory):
    """Start a training below a folder: its process. They are forked from one that has loaded TensorFlow already."""
    folder = tmp_path_factory.mktemp("killed") / "64"
    prepare(phantom_folder, folder, 64, workers=1, progress=False)
    context = get_context("forkserver")
    context.set_forkserver_preload([training.__name__])

    def start(root, threads=2):
        process = context.Process(target=train_in_a_process_of_its_own, args=(root, folder, threads))
        process.start()
        return process

    return start


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory):
    """A training left alone: its folder, and the seconds that it took."""
    root = tmp_path_factory.mktemp("undisturbed")
    write_notebook(root)
    start(root).join()  # the first waits until TensorFlow is loaded
    shutil.rmtree(root / "results")
    began = time.monotonic()
    start(root).join()
    return root / "results/classify/fold-1", time.monotonic() - began


def test_training_killed_at_20_random_moments_is_the_undisturbed_one(start, undisturbed, tmp_path):
    whole, seconds = undisturbed
    draw, killed = random.Random(1), 0
    write_notebook(tmp_path)
    folder = tmp_path / "results/classify/fold-1"
    while not folder.exists() or killed < KILLS:
        if folder.exists():  # it came to its end between the kills: from the start again
            assert (folder / "predictions.csv").read_bytes() == (whole / "predictions.csv").read_bytes()
            shutil.rmtree(folder)
            (tmp_path / "said.txt").unlink()
        process = start(tmp_path)
        process.join(draw.uniform(0, seconds) if killed < KILLS else None)
        killed += process.is_alive()
        process.kill()
        process.join()
        # an epoch that was said to be done is never trained again: the one under way is all that a kill costs
        said = tmp_path / "said.txt"
        epochs = re.findall(r"^epoch +(\d+)/", said.read_text() if said.exists() else "", re.M)
        assert len(epochs) == len(set(epochs))
    assert (folder / "predictions.csv").read_bytes() == (whole / "predictions.csv").read_bytes()
    histories = [without_seconds(read_table(path / "history.csv")) for path in (folder, whole)]
    assert histories[0].equals(histories[1])
    assert sorted(path.name for path in folder.parent.iterdir()) == ["fold-1"]
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}


@pytest.mark.parametrize("threads, tolerance", [(2, 0), (1, 1e-4), (4, 1e-4)])
def test_short_training_depends_on_threads_within_the_tolerance_that_the_book_states(
    start, undisturbed, tmp_path, threads, tolerance
):
    write_notebook(tmp_path)
    start(tmp_path, threads).join()
    tables = [
        read_table(folder / "predictions.csv") for folder in (tmp_path / "results/classify/fold-1", undisturbed[0])
    ]
    one, other = (table[["p1", "p2", "p3"]].to_numpy() for table in tables)
    assert abs(one - other).max() <= tolerance


@pytest.mark.usefixtures("deterministic")
def test_second_training_of_a_fold_is_told_of_the_first(start, prepared, tmp_path, monkeypatch):
    for module in (provenance, training):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    write_notebook(tmp_path)
    process = start(tmp_path)
    lock = tmp_path / "results/classify/.fold-1.lock"
    while not (lock.exists() and lock.read_text()):  # the file is there a moment before it is locked
        time.sleep(0.01)
    with pytest.raises(BusyError, match=rf"fold-1 is being trained by another process \({process.pid} on"):
        train(prepared, epochs=1)  # with other parameters, too
    process.kill()
    process.join()
    assert train(prepared, epochs=1)[0].done


@pytest.fixture
def small_disk(tmp_path):
    """A disk of a given number of kilobytes: mount(size), once more to make it larger."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(size):
        again = ["-o", f"remount,size={size}k"] if disk.is_mount() else ["-o", f"size={size}k"]
        done = subprocess.run(["mount", "-t", "tmpfs", *again, "tmpfs", disk], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
        return disk

    yield mount
    if disk.is_mount():
        subprocess.run(["umount", "--lazy", disk], check=True)


def files_of(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_preparing_on_a_full_disk_ends_in_a_sentence_and_loses_nothing(phantom_folder, small_disk):
    disk = small_disk(700)
    prepare(phantom_folder, disk / "32", 32, workers=1, progress=False)
    before = files_of(disk)
    with pytest.raises(FullDiskError, match="the disk is full, .* of 0.7 MB: no room for 64, which takes 1.3 MB"):
        prepare(phantom_folder, disk / "64", 64, workers=1, progress=False)
    assert files_of(disk) == before
    small_disk(8000)
    prepare(phantom_folder, disk / "64", 64, workers=1, progress=False)


def test_training_on_a_full_disk_stops_in_words_and_goes_on_from_there(start, undisturbed, small_disk):
    disk = small_disk(8000)
    write_notebook(disk)
    process = start(disk)
    said, other = disk / "said.txt", disk / "other.bin"
    while process.is_alive() and not (said.exists() and re.search("epoch +2/", said.read_text())):
        time.sleep(0.002)
    other.write_bytes(bytes(shutil.disk_usage(disk).free - 8192))
    process.join()
    assert process.exitcode == errno.ENOSPC  # not a crash: HDF5 has those on full disks
    kept = [path.name for path in disk.glob("results/classify/.fold-1-*/*") if path.is_file()]
    assert re.search(r"epoch-\d.weights.h5 .*history.csv", " ".join(sorted(kept)))
    assert not any(name.startswith(".") for name in kept)
    other.unlink()
    start(disk).join()
    content = (disk / "results/classify/fold-1/predictions.csv").read_bytes()
    assert content == (undisturbed[0] / "predictions.csv").read_bytes()
