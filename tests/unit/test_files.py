"""Files that are complete or absent, and errors that keep what they know."""

import json
import os
import pickle

import pytest

from braintumor.core.errors import AmbiguousSliceError, DatasetError, shorten
from braintumor.core.files import (
    atomic_directory,
    atomic_write,
    memory_map,
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
    with pytest.raises(RuntimeError), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "text" and visible(path.parent) == [path.name]
    path = tmp_path / "run.json"
    write_json(path, {"b": [1.5], "a": "größe"})
    with pytest.raises(ValueError):
        write_json(path, float("nan"))
    assert json.loads(path.read_text()) == {"a": "größe", "b": [1.5]}


def test_directory_replaces_the_older_one_when_it_is_complete(tmp_path):
    (tmp_path / ".set.unfinished/part").mkdir(parents=True)  # of a killed process
    for text in ("older", "newer"):
        with atomic_directory(tmp_path / "set") as temporary:
            (temporary / text).touch()
    with pytest.raises(RuntimeError), atomic_directory(tmp_path / "set") as temporary:
        (temporary / "half").touch()
        raise RuntimeError
    assert visible(tmp_path) == ["set"] and visible(tmp_path / "set") == ["newer"]


def test_memory_map_reads_files_and_no_pipe(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with memory_map(path) as content:
        assert content[:] == b"content"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe"), memory_map(tmp_path / "pipe"):
        pass


def test_errors_are_one_short_line_and_survive_between_processes():
    message = str(DatasetError("a\nb\x1b[31m\u202e.mat: größe 脳"))
    assert message.isprintable() and message.endswith(".mat: größe 脳")
    assert shorten(ValueError("a\n  b")) == "a b"
    assert len(shorten("word " * 100)) <= 200
    error = AmbiguousSliceError("1.tif", 3)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error) and str(copy) == str(error)
    assert vars(copy) == vars(error)
