"""The files of folders, with what an operating system adds left out."""

import os
import re
from pathlib import Path

from braintumor.core.errors import DatasetError, shorten

SYSTEM_FILES = re.compile(r"\.|(__MACOSX|Thumbs\.db|desktop\.ini)$", re.IGNORECASE)


def list_files(folder):
    """List the visible files below a folder in natural order; links are followed.

    A folder is read once, however many links lead to it. A folder that cannot be
    opened and a link that leads nowhere are listed as files.
    """
    if not os.path.isdir(folder):
        got = "a file" if os.path.lexists(folder) else "no such folder"
        raise DatasetError(f"{folder}: got {got}, expected a folder. Check the name.")
    files, visited = [], set()

    def add_unreadable(error):
        files.append(Path(error.filename))

    for parent, folders, names in os.walk(folder, True, add_unreadable, True):
        real = os.path.realpath(parent)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not SYSTEM_FILES.match(name))
        files += [Path(parent, n) for n in names if not SYSTEM_FILES.match(n)]
    return sorted(files, key=_natural_order)


def _natural_order(path):
    """Return a key that sorts 2.mat before 10.mat."""
    parts = re.split(r"(\d+)", str(path))
    return [int(part) if part.isdecimal() else part for part in parts]


def list_names(files, folder):
    """Return the number of files and their names below `folder`, on one line."""
    names = shorten(", ".join(os.path.relpath(path, folder) for path in files))
    return f"{len(files)} file{'s' * (len(files) != 1)} ({names})"
