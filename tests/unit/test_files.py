"""Files and folders that are complete or absent."""

import hashlib
import json
import multiprocessing
import time

import pytest

from braintumor.core.files import (
    atomic_directory,
    atomic_write,
    directory_lock,
    memory_map,
    sha256,
    write_json,
)


def visible(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


def test_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "new/weights.tar.gz"
    with atomic_write(path) as temporary:
        temporary.write_text("text")
        assert temporary.name.endswith(".tar.gz") and not path.exists()
    assert path.read_text() == "text" and visible(path.parent) == [path.name]
    assert path.stat().st_mode & 0o044 == 0o044  # others may read it


def test_failure_keeps_the_older_file_and_leaves_no_other(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("older")
    with pytest.raises(RuntimeError), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "older" and visible(tmp_path) == ["scores.csv"]


def test_directory_replaces_the_older_one_when_it_is_complete(tmp_path):
    for text in ("older", "newer"):
        with atomic_directory(tmp_path / "set") as temporary:
            (temporary / text).touch()
    assert visible(tmp_path) == ["set"] and visible(tmp_path / "set") == ["newer"]


def test_failure_keeps_the_older_directory_and_leaves_no_other(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / ".set.unfinished/part").mkdir(parents=True)  # of a killed process
    with pytest.raises(RuntimeError), atomic_directory(tmp_path / "set") as temporary:
        assert visible(temporary) == []
        raise RuntimeError
    assert visible(tmp_path) == ["set"]


def write_slowly(path, text):
    with atomic_directory(path) as temporary:
        (temporary / text).touch()
        time.sleep(0.3)


def test_processes_write_a_directory_one_after_the_other(tmp_path):
    context = multiprocessing.get_context("spawn")
    with directory_lock(tmp_path / "set"):  # both wait
        processes = [
            context.Process(target=write_slowly, args=(tmp_path / "set", text))
            for text in ("a", "b")
        ]
        for process in processes:
            process.start()
        time.sleep(0.5)
        assert visible(tmp_path) == []
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(visible(tmp_path / "set")) == 1


def test_json_is_written_in_order_and_never_half(tmp_path):
    write_json(tmp_path / "run.json", {"b": [1.5], "a": "größe"})
    assert json.loads((tmp_path / "run.json").read_text()) == {"a": "größe", "b": [1.5]}
    with pytest.raises(ValueError):
        write_json(tmp_path / "run.json", float("nan"))
    assert "größe" in json.loads((tmp_path / "run.json").read_text())["a"]


def test_memory_map_and_hash_read_the_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with memory_map(path) as content:
        assert content[:] == b"content"
    assert sha256(path) == hashlib.sha256(b"content").hexdigest()
    path.write_bytes(b"")
    with pytest.raises(ValueError), memory_map(path):
        pass
