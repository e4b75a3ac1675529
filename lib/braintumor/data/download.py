"""Download of the figshare dataset 1512427 (Cheng 2017, CC BY 4.0)."""

import os
import re
import zipfile
from pathlib import Path, PurePosixPath

import pandas as pd
import pooch
import requests

from braintumor.core.errors import DatasetError, shorten
from braintumor.core.files import atomic_write

DOI = "https://doi.org/10.6084/m9.figshare.1512427"
FIGSHARE_URL = "https://ndownloader.figshare.com/files"
# as figshare's record lists them, with MD5 and bytes; the server was not reached
FIGSHARE_FILES = Path(__file__).with_name("figshare_files.csv")
RETRIES = 4  # per file


def download_figshare(directory, base_url=FIGSHARE_URL, files=FIGSHARE_FILES):
    """Download what is missing of the .mat files, with their MD5s checked.

    Partial ones in `directory`/.download continue; a zip put there by hand is used.
    """
    directory = Path(directory).expanduser()
    store = directory / ".download"
    store.mkdir(parents=True, exist_ok=True)
    for file in pd.read_csv(files).itertuples():
        numbers = [int(number) for number in re.findall(r"\d+", file.name)]
        members = [file.name]
        if numbers:  # of the first and the last file in a zip
            members = [f"{n}.mat" for n in range(numbers[0], numbers[1] + 1)]
        if not all((directory / name).is_file() for name in members):
            _fetch(file, f"{base_url}/{file.id}", store)
            _unpack(store / file.name, members)


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
