"""Files and folders that are written whole or not at all."""

import gzip
import hashlib
import json
import os
import shutil
import uuid
from contextlib import contextmanager
from mmap import ACCESS_READ, mmap
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).resolve().parents[3]  # the project folder


@contextmanager
def memory_map(path):
    """Yield the bytes of a file as a memory map; an empty file raises ValueError."""
    if not os.path.isfile(path):  # opening a named pipe would block
        raise FileNotFoundError(f"{path}: no such file")
    with open(path, "rb") as f, mmap(f.fileno(), 0, access=ACCESS_READ) as content:
        yield content


def open_gzip(path):
    """Open a file for reading, decompressed if it is gzip."""
    with open(path, "rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if is_gzip else open(path, "rb")


@contextmanager
def atomic_write(path):
    """Yield a temporary path; rename it to `path` if the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = "".join(path.suffixes[-2:])  # Keras and nibabel check .weights.h5, .nii.gz
    temporary = path.with_name(f".{uuid.uuid4().hex}{suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def directory_lock(path):
    """Return the reentrant lock of the folder `path`; a second process waits."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_name(f".{path.name}.lock"), is_singleton=True)


@contextmanager
def atomic_directory(path):
    """Yield a temporary folder; it replaces `path` if the block succeeds."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.unfinished")
    with directory_lock(path):  # other processes wait
        shutil.rmtree(temporary, ignore_errors=True)  # left by a killed process
        temporary.mkdir()
        try:
            yield temporary
            shutil.rmtree(path, ignore_errors=True)
            temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def write_json(path, value):
    """Write `value` as indented JSON, atomically; NaN and infinity raise ValueError."""
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False)
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def sha256(path):
    """Return the SHA-256 of a file as a hexadecimal string."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
