"""Files that are either whole or not there."""

import errno
import glob
import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from mmap import ACCESS_READ, mmap
from pathlib import Path

from braintumor.core.errors import FullDiskError
from braintumor.core.processes import claim, release

ROOT = Path(__file__).resolve().parents[3]  # the project: notebooks/, config/, results/, data/


@contextmanager
def mapped(path):
    """Yield the bytes of a file, mapped into memory and to be read like a file: no read takes memory beyond its end,
    however many bytes a header declares. Raises ValueError if it is empty.
    """
    with Path(path).open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        yield content


@contextmanager
def atomic(path):
    """Yield a temporary path beside `path`; rename it to `path` if the block ends well, remove it if not.

    The parent folder is created. A reader never sees a half-written file, and an older one stays until
    the new one is whole. Raises FullDiskError if there is no room for it.
    """
    path = Path(path)
    # HDF5 can take the whole process down when it finds a disk full: the next network takes as much as the last
    like = path.parent.glob("*.h5") if path.suffix == ".h5" else ()
    with room_for(path, max((file.stat().st_size for file in like), default=0)):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix="".join(path.suffixes[-2:]), dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with room_for(path):
            yield temporary
        temporary.chmod(0o644)  # mkstemp gives 0600, which a teaching server's students could not read
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(out, what, needed=0):
    """Yield a temporary folder beside `out`; rename it to `out`, where nothing may be by then, if the block ends well.

    Only one process at a time gets it: a second one raises BusyError, which says `what` the first does. What a killed
    process left behind goes. Raises FullDiskError if there is no room for it; `needed` bytes are known to be needed.
    """
    with room_for(out, needed):
        lock = claim(out.with_name(f".{out.name}.lock"), what)
        try:
            prefix = f".{out.name}.unfinished-"
            for left in out.parent.glob(glob.escape(prefix) + "*"):
                shutil.rmtree(left)
            with tempfile.TemporaryDirectory(prefix=prefix, dir=out.parent, ignore_cleanup_errors=True) as temporary:
                with room_for(out, needed):  # told before the folder goes, which takes room
                    yield Path(temporary)
                os.chmod(temporary, 0o755)  # mkdtemp gives 0700
                os.rename(temporary, out)
        finally:
            release(lock)


@contextmanager
def room_for(path, needed=0):
    """Tell in words of a disk, or a quota, that is full when the block writes `path`: raise FullDiskError.

    It is raised before the block where the bytes known to be `needed` are not there.
    """
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    try:
        if needed > shutil.disk_usage(folder).free:
            raise OSError(errno.ENOSPC, "too little is free")
        yield
    except (OSError, RuntimeError) as error:
        full = (errno.ENOSPC, errno.EDQUOT)
        told = (f"errno = {number}," in str(error) for number in full)  # HDF5 has no number but in its text
        if isinstance(error, FullDiskError) or getattr(error, "errno", None) not in full and not any(told):
            raise
        total, _, free = (f"{size / 1e6:,.1f} MB" for size in shutil.disk_usage(folder))
        takes = f", which takes {needed / 1e6:,.1f} MB or more" if needed else ""
        raise FullDiskError(
            f"{folder}: the disk is full, {free} are free of {total}: no room for {path.name}{takes}. "
            "What was finished is kept; make room, and the same command goes on from there"
        ) from error


def write_json(path, value):
    """Write `value` as indented JSON with a final newline, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
