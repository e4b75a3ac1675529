"""Download of the figshare dataset 1512427 (Cheng 2017, CC BY 4.0).

Names, checksums and sizes are those of figshare's record. The real server could not be
reached where this was written; the code is tested against a local server.
"""

import json
import os
import re
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pooch
import requests

from braintumor.core.errors import DatasetError, shorten
from braintumor.core.files import atomic_write, write_json

DOI = "https://doi.org/10.6084/m9.figshare.1512427"
FIGSHARE_URL = "https://ndownloader.figshare.com/files"
FIGSHARE_TABLE = """
brainTumorDataPublic_1-766.zip     3381290 74b949ad33f042e6e103523091cd1428 214401279
brainTumorDataPublic_767-1532.zip  3381296 7e8a875500d2c8a346f270538e29890e 217848429
brainTumorDataPublic_1533-2298.zip 3381293 8227bf6080cb71f15a88be8d25c79ae7 215563856
brainTumorDataPublic_2299-3064.zip 3381302 b378a80d6174e5317d59eb28430c6652 231679762
cvind.mat                          7005344 5ea82eb3212c9fcb84290ccf0beb486d 5736
"""
RETRIES = 4  # per file
MAX_MEMBER = 64 << 20  # bytes; a .mat file of the dataset has under 1 MiB


class RemoteFile(NamedTuple):
    """A zip of .mat files or a single .mat file; `path` is relative to the base URL."""

    name: str
    path: str
    md5: str
    size: int  # bytes


FIGSHARE_FILES = [
    RemoteFile(name, path, md5, int(size))
    for name, path, md5, size in map(str.split, FIGSHARE_TABLE.strip().splitlines())
]


def download_figshare(
    directory, base_url=FIGSHARE_URL, files=FIGSHARE_FILES, progress=True
):
    """Download the missing files and unpack 1.mat, 2.mat, ... and cvind.mat.

    A partial download continues from `directory`/.download, and a file put there by
    hand is used if its MD5 is correct.

    Returns
    -------
    list of str
        Names of the files that were missing.

    Raises
    ------
    DatasetError
        A file cannot be downloaded or unpacked.
    """
    directory = Path(directory).expanduser()
    store = directory / ".download"
    store.mkdir(parents=True, exist_ok=True)
    base_url = base_url.rstrip("/")
    server = pooch.create(
        store,
        base_url,
        registry={file.name: f"md5:{file.md5}" for file in files},
        urls={file.name: f"{base_url}/{file.path}" for file in files},
        retry_if_failed=RETRIES,
    )
    fetched = []
    for file in files:
        record = store / f"{file.name}.json"  # what a complete file contains
        names = json.loads(record.read_text()) if record.exists() else []
        if not names or not all((directory / name).is_file() for name in names):
            path = _fetch(server, file, progress)
            write_json(record, _unpack(path, directory))
            path.unlink(missing_ok=True)
            fetched.append(file.name)
    return fetched


def _fetch(server, file, progress):
    def resume(url, output_file, _):
        part = server.abspath / f"{file.name}.part"
        with part.open("ab") as stream:
            if stream.tell() < file.size:
                headers = {"Range": f"bytes={stream.tell()}-"}
                headers["Accept-Encoding"] = "identity"  # Range counts stored bytes
                download = pooch.HTTPDownloader(progress, 1 << 16, headers=headers)
                download(url, stream, server)
        os.replace(part, output_file)  # pooch checks the MD5, and retries from zero

    try:
        return Path(server.fetch(file.name, downloader=resume))
    except (ValueError, requests.RequestException) as error:
        raise DatasetError(
            f"{file.name}: cannot be downloaded from {server.get_url(file.name)} "
            f"({shorten(error)}). Run the command again to continue, or download it "
            f"from {DOI} to {server.abspath}."
        ) from error


def _unpack(path, directory):
    """Move the .mat files, flat, to `directory`; return their names."""
    if path.suffix != ".zip":
        os.replace(path, directory / path.name)
        return [path.name]
    try:
        with zipfile.ZipFile(path) as archive:
            members = _check_members(archive)
            for name, member in members.items():
                with atomic_write(directory / name) as temporary:
                    temporary.write_bytes(archive.read(member))
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        path.unlink()
        raise DatasetError(
            f"{path.name}: got {shorten(error)}, expected only <number>.mat, cvind.mat "
            f"and README. Do not use this source; the dataset is at {DOI}."
        ) from error
    return list(members)


def _check_members(archive):
    """Map the flat names of the .mat files to the members of a zip."""
    members = {}
    for member in archive.infolist():
        name = PurePosixPath(member.filename).name  # never a path
        if member.is_dir() or name.upper().startswith("README"):
            continue
        is_mat = re.fullmatch(r"[1-9]\d*\.mat|cvind\.mat", name)
        if not is_mat or member.file_size > MAX_MEMBER:
            got = f"{member.filename!r} of {member.file_size} bytes"
            raise zipfile.BadZipFile(got)
        members[name] = member
    return members
