"""Fetch the figshare brain tumor dataset: four zips and cvind.mat, checked by MD5, unpacked flat.

Source: Cheng, Jun (2017), *brain tumor dataset*, figshare, https://doi.org/10.6084/m9.figshare.1512427,
CC BY 4.0. `FIGSHARE_FILES` holds what figshare's record of the article publishes (file id, MD5, size in
bytes), as several public projects that fetched it have noted it down.

figshare could not be reached from the machine where this was written: the real addresses have not been tried,
the code was run against a local server that cuts connections, sends wrong bytes, and refuses.
"""

import errno
import json
import os
import re
import shutil
import stat
import time
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import pooch
import requests
from tqdm import tqdm

from braintumor.core.errors import DatasetError
from braintumor.core.files import write_json

DOI = "https://doi.org/10.6084/m9.figshare.1512427"
FIGSHARE = "https://ndownloader.figshare.com/files"


class RemoteFile(NamedTuple):
    """A file to fetch: a zip of .mat files, or a .mat that is taken as it is."""

    name: str
    path: str  # below the base address
    md5: str
    size: int  # bytes


ZIP = "brainTumorDataPublic_"
FIGSHARE_FILES = (
    RemoteFile(f"{ZIP}1-766.zip", "3381290", "74b949ad33f042e6e103523091cd1428", 214401279),
    RemoteFile(f"{ZIP}767-1532.zip", "3381296", "7e8a875500d2c8a346f270538e29890e", 217848429),
    RemoteFile(f"{ZIP}1533-2298.zip", "3381293", "8227bf6080cb71f15a88be8d25c79ae7", 215563856),
    RemoteFile(f"{ZIP}2299-3064.zip", "3381302", "b378a80d6174e5317d59eb28430c6652", 231679762),
    RemoteFile("cvind.mat", "7005344", "5ea82eb3212c9fcb84290ccf0beb486d", 5736),
)

TRIES = 5  # per file and call
PAUSE = 2.0  # seconds before the second try; grows with every further one
TIMEOUT = (10, 60)  # seconds to connect, and between two pieces
CHUNK = 1 << 16
UNPACKED = 1.1  # estimate: the .mat files are compressed inside, so a zip grows little when unpacked
MAX_MEMBER = 64 << 20  # a real .mat has well under 1 MiB
MAX_TOTAL = 4 << 30
WANTED = re.compile(r"[1-9][0-9]*\.mat|cvind\.mat")


def download(directory, base_url=FIGSHARE, files=FIGSHARE_FILES, progress=True):
    """Fetch `files` from `base_url` and leave 1.mat, 2.mat, ... and cvind.mat in `directory`.

    One file after the other is fetched with pooch into `directory`/.download, checked by MD5, unpacked, and
    removed. What is complete is remembered in .download/done.json (MD5; name and size of each .mat): a
    further call fetches only what is missing, and continues a file that was cut if the server allows it. A
    zip put into .download by hand is taken if its MD5 is right. What the .mat files hold is not looked at.

    Returns the names of the files that it fetched, [] if all was there.

    Raises DatasetError, which names the file and what to do: too little free disk (before the first byte) or
    a full one, a server that is gone or refuses, a wrong MD5, a zip with members that do not belong in it. A
    .mat is never half-written, and what was complete before stays.
    """
    directory = Path(directory).expanduser()
    store = directory / ".download"
    task = "preparing"
    try:
        store.mkdir(parents=True, exist_ok=True)
        done = _read_done(store)
        missing = [file for file in files if not _is_done(file, done, directory)]
        if missing:
            _check_free_disk(directory, missing, store)
        for file in missing:
            task = f"fetching {file.name}"
            local = _fetch(file, f"{base_url.rstrip('/')}/{file.path}", store, progress)
            task = f"unpacking {file.name}"
            members = _take(local, directory, store / "unpack")
            done[file.name] = {"md5": file.md5, "members": members}
            write_json(store / "done.json", done)
            local.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DatasetError(
                f"{task}: the disk of {directory} is full. What was complete is kept, the rest was removed: "
                "make room, then run the same command again"
            ) from error
        raise DatasetError(f"{task}: {error}. Choose another folder, or see to its permissions") from error
    if progress:
        fetched = f"fetched {', '.join(file.name for file in missing)}" if missing else "nothing to fetch"
        print(f"{directory}: {fetched}; all {len(files)} files of the dataset are complete")
    return [file.name for file in missing]


def _read_done(store):
    try:
        return json.loads((store / "done.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # none yet, or damaged: fetch again rather than guess
        return {}


def _is_done(file, done, directory):
    entry = done.get(file.name, {})
    return entry.get("md5") == file.md5 and all(
        (directory / name).is_file() and (directory / name).stat().st_size == size
        for name, size in entry["members"].items()
    )


def _check_free_disk(directory, missing, store):
    """Room for all that is to be unpacked and for the largest zip, less what is already fetched."""
    fetched = sum(path.stat().st_size for path in store.iterdir() if path.suffix in (".zip", ".part"))
    needed = UNPACKED * sum(file.size for file in missing) + max(file.size for file in missing) - fetched
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise DatasetError(
            f"{directory}: about {needed / 1e9:.3f} GB are needed for {', '.join(f.name for f in missing)}, "
            f"{free / 1e9:.3f} GB are free. Make room or choose a folder on another disk"
        )


def _fetch(file, url, store, progress):
    """Path of `file` in `store`, fetched by pooch unless it is there with the right MD5."""
    part = store / f"{file.name}.part"

    def downloader(url, output_file, _pooch):
        _fetch_part(file, url, part, progress)
        os.replace(part, output_file)  # pooch checks it, and removes it if its MD5 is wrong

    for left in store.glob("tmp*"):  # pooch's own, of a process that was killed
        left.unlink()
    try:
        return Path(pooch.retrieve(url, f"md5:{file.md5}", file.name, store, downloader=downloader))
    except DatasetError:
        raise
    except ValueError as error:
        raise DatasetError(
            f"{file.name}: wrong bytes from {url}: {error} Run the same command again, it starts this file "
            f"afresh; if it stays so, {_by_hand(file, store)}"
        ) from error


def _fetch_part(file, url, part, progress):
    """Fill `part` from `url`, going on where it ends; what arrived stays for the next try or call."""
    for attempt in range(TRIES):
        time.sleep(PAUSE * attempt)
        have = part.stat().st_size if part.exists() else 0
        if have == file.size:
            return
        if have > file.size:  # not of this file
            part.unlink()
            have = 0
        # identity: a Range counts bytes of the file, not of a compressed transfer
        headers = {"Accept-Encoding": "identity", "User-Agent": f"pooch{pooch.__version__}"}
        if have:
            headers["Range"] = f"bytes={have}-"
        try:
            with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
                status = response.status_code
                if status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                    mode = "ab"
                elif status == 200:
                    mode, have = "wb", 0  # the server ignores Range: from the start
                else:
                    reason = f"HTTP status {status} {response.reason}"
                    if status in (206, 416):  # it does not fit what is here
                        part.unlink(missing_ok=True)
                    elif 400 <= status < 500 and status not in (408, 429):
                        break  # trying again would not help
                    continue
                _write(response, part, mode, have, file, progress)
                if "Content-Length" in response.headers or part.stat().st_size >= file.size:
                    return  # requests has raised if it was shorter than announced
                reason = "the connection was cut"
        except requests.RequestException as error:
            reason = f"{type(error).__name__}: {error}"
            if isinstance(error, ValueError):  # no valid address
                break
    raise DatasetError(
        f"{file.name}: {url} could not be fetched ({reason}). Check the network and run the same command "
        f"again, it goes on where it stopped; or {_by_hand(file, part.parent)}"
    )


def _write(response, part, mode, have, file, progress):
    bar = tqdm(total=file.size, initial=have, desc=file.name, unit="B", unit_scale=True, disable=not progress)
    try:
        with bar, open(part, mode) as out:
            for chunk in response.iter_content(CHUNK):
                out.write(chunk)
                bar.update(len(chunk))
                if out.tell() > file.size:  # not our file: the MD5 will say so
                    break
    except requests.RequestException:
        raise
    except OSError:  # a full disk, most likely: give the room back
        part.unlink(missing_ok=True)
        raise


def _by_hand(file, store):
    return f"download {file.name} by hand from {DOI}, put it in {store} and run the command again"


def _take(local, directory, staging):
    """Move the .mat files of `local` into `directory` when all of them are whole; {name: size}.

    They are unpacked in `staging`, which is removed in any case. A zip that is refused is removed too.
    """
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        if local.suffix == ".zip":
            with zipfile.ZipFile(local) as archive:
                for name, member in _safe_members(archive, local.name).items():
                    with archive.open(member) as source, open(staging / name, "wb") as out:
                        shutil.copyfileobj(source, out, CHUNK)  # never more than the declared size
        else:
            os.replace(local, staging / local.name)
        sizes = {path.name: path.stat().st_size for path in staging.iterdir()}
        for name in sizes:
            os.replace(staging / name, directory / name)
        return sizes
    except (DatasetError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        local.unlink(missing_ok=True)
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(
            f"{local.name} cannot be unpacked: {error}. It was removed, and nothing of it is left: compare "
            f"its MD5 and size with those at {DOI}"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _safe_members(archive, name):
    """{flat file name: member} of the .mat files in a zip, which may hold nothing else but a README."""
    wanted, total = {}, 0
    for member in archive.infolist():
        path, kind = member.filename, stat.S_IFMT(member.external_attr >> 16)
        base = path.rstrip("/").rpartition("/")[2]
        total += member.file_size
        if path.startswith("/") or "\\" in path or ":" in path or ".." in path.split("/"):
            fault = "its path leads out of the folder"
        elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            fault = "it is a link or a special file"
        elif member.is_dir():
            continue
        elif member.file_size > MAX_MEMBER or total > MAX_TOTAL:
            fault = f"it, or the whole, is too large ({MAX_MEMBER >> 20} MiB, {MAX_TOTAL >> 30} GiB)"
        elif base.upper().startswith("README"):
            continue
        elif not WANTED.fullmatch(base):
            fault = "only <number>.mat, cvind.mat and a README are expected"
        elif base in wanted:
            fault = f"there are two {base}"
        else:
            wanted[base] = member
            continue
        raise DatasetError(
            f"{name}: member {path!r} is refused: {fault}. The zip was removed, and nothing of it is left: "
            f"do not use this source, the dataset is at {DOI}"
        )
    return wanted
