"""Download of the figshare dataset 1512427 (Cheng 2017, CC BY 4.0)."""

import os
import zipfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pooch
import requests

from braintumor.core.errors import DatasetError, shorten
from braintumor.core.files import atomic_write

DOI = "https://doi.org/10.6084/m9.figshare.1512427"
FIGSHARE_URL = "https://ndownloader.figshare.com/files"
RETRIES = 4  # per file


class RemoteFile(NamedTuple):
    name: str
    path: str  # below the base URL
    md5: str
    size: int  # bytes
    members: list  # .mat files in the zip, or the file itself


def _zip_of(first, last, *record):
    members = [f"{number}.mat" for number in range(first, last + 1)]
    return RemoteFile(f"brainTumorDataPublic_{first}-{last}.zip", *record, members)


CVIND = "cvind.mat", "7005344", "5ea82eb3212c9fcb84290ccf0beb486d", 5736
FIGSHARE_FILES = [  # as figshare's record lists them; the server was not reached
    _zip_of(1, 766, "3381290", "74b949ad33f042e6e103523091cd1428", 214401279),
    _zip_of(767, 1532, "3381296", "7e8a875500d2c8a346f270538e29890e", 217848429),
    _zip_of(1533, 2298, "3381293", "8227bf6080cb71f15a88be8d25c79ae7", 215563856),
    _zip_of(2299, 3064, "3381302", "b378a80d6174e5317d59eb28430c6652", 231679762),
    RemoteFile(*CVIND, members=["cvind.mat"]),
]


def download_figshare(directory, base_url=FIGSHARE_URL, files=FIGSHARE_FILES):
    """Download what is missing of the .mat files; return the names of the downloads.

    Partial ones in `directory`/.download continue; a zip put there by hand is used.
    """
    directory = Path(directory).expanduser()
    store = directory / ".download"
    store.mkdir(parents=True, exist_ok=True)
    fetched = []
    for file in files:
        if not all((directory / name).is_file() for name in file.members):
            _fetch(file, f"{base_url}/{file.path}", store)
            _unpack(store / file.name, file.members)
            fetched.append(file.name)
    return fetched


def _fetch(file, url, store):
    def resume(url, output_file, server):
        part = store / f"{file.name}.part"
        with part.open("ab") as stream:
            if (start := stream.tell()) < file.size:
                headers = {"Range": f"bytes={start}-", "Accept-Encoding": "identity"}
                pooch.HTTPDownloader(True, headers=headers)(url, stream, server)
        os.replace(part, output_file)  # pooch checks the MD5, and retries from zero

    server = pooch.create(store, "", retry_if_failed=RETRIES)
    server.registry, server.urls = {file.name: f"md5:{file.md5}"}, {file.name: url}
    try:
        server.fetch(file.name, downloader=resume)
    except (ValueError, requests.RequestException) as error:
        problem = f"cannot be downloaded from {url} ({shorten(error)})"
        remedy = f"Run the command again, or download it from {DOI} to {store}"
        raise DatasetError(f"{file.name}: {problem}. {remedy}.") from error


def _unpack(path, members):
    """Move the .mat files of a download, flat, to the folder above it."""
    if path.suffix == ".mat":
        os.replace(path, path.parents[1] / path.name)
        return
    with zipfile.ZipFile(path) as archive:
        stored = {PurePosixPath(name).name: name for name in archive.namelist()}
        for name in members:
            with atomic_write(path.parents[1] / name) as temporary:
                temporary.write_bytes(archive.read(stored[name]))
    path.unlink()
