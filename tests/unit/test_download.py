"""The download against a local server: cut connections, wrong bytes, nested zips."""

import hashlib
import http.server
import io
import random
import threading
import zipfile

import pandas as pd
import pytest

from braintumor.core.errors import DatasetError
from braintumor.data import download
from braintumor.data.download import download_figshare


class Handler(http.server.BaseHTTPRequestHandler):
    """Serve `server.content` {path: bytes}; `server.sent` lists (path, bytes sent)."""

    def do_GET(self):
        server, name = self.server, self.path.removeprefix("/files/")
        status = server.status.pop(0) if server.status else 200
        body = server.content[name] if status == 200 else b""
        if status == 200 and server.ranges and "Range" in self.headers:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            status, body = 206, body[start:]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        body = body[: server.cut.pop(0)] if server.cut else body
        server.sent.append((name, len(body)))
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "RETRIES", 0)
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.sent, server.status = {}, [], []
    server.cut = []  # bytes after which the next responses are cut
    server.ranges = True
    server.url = f"http://127.0.0.1:{server.server_port}/files"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def noise(name, size=200_000):
    return random.Random(name).randbytes(size)


def make_zip(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


FIRST = {"1.mat": noise("1"), "2.mat": noise("2")}
ALL = FIRST | {"3.mat": noise("3"), "cvind.mat": noise("cvind", 5000)}


@pytest.fixture
def files(server, tmp_path_factory):
    """Put three files on the server, at 0, 1 and 2; return the table of them."""
    nested = {"1.mat": noise("1"), "../folder/2.mat": noise("2"), "README.txt": b"text"}
    contents = {
        "1-2.zip": make_zip(nested),
        "3-3.zip": make_zip({"3.mat": noise("3")}),
        "cvind.mat": ALL["cvind.mat"],
    }
    rows = []
    for number, (name, data) in enumerate(contents.items()):
        server.content[str(number)] = data
        rows.append((name, number, hashlib.md5(data).hexdigest(), len(data)))
    path = tmp_path_factory.mktemp("files") / "files.csv"
    table = pd.DataFrame(rows, columns=["name", "id", "md5", "size"])
    table.to_csv(path, index=False)
    return path


def unpacked(directory):
    """Return {path: bytes} of everything outside .download."""
    paths = [path for path in directory.rglob("*") if path.is_file()]
    paths = [path for path in paths if ".download" not in path.parts]
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


def stored(directory):
    return sorted(path.name for path in (directory / ".download").iterdir())


def fetch(directory, server, files):
    download_figshare(directory, server.url, files)


def test_second_call_fetches_only_lost_files(tmp_path, server, files):
    directory = tmp_path / "new/data"
    fetch(directory, server, files)
    assert [name for name, _ in server.sent] == ["0", "1", "2"]
    assert unpacked(tmp_path / "new") == {f"data/{name}": ALL[name] for name in ALL}
    assert stored(directory) == []
    server.sent.clear()
    fetch(directory, server, files)
    assert server.sent == []
    (directory / "3.mat").unlink()
    fetch(directory, server, files)
    assert [name for name, _ in server.sent] == ["1"]
    assert unpacked(directory) == ALL


@pytest.mark.parametrize("ranges", [True, False])
def test_cut_download_continues(tmp_path, server, files, monkeypatch, ranges):
    server.ranges = ranges
    server.cut = [len(server.content["0"]), 150_000]  # 1-2.zip complete, 3-3.zip cut
    with pytest.raises(DatasetError, match="3-3.zip"):
        fetch(tmp_path, server, files)
    assert unpacked(tmp_path) == FIRST and stored(tmp_path) == ["3-3.zip.part"]
    size = (tmp_path / ".download/3-3.zip.part").stat().st_size
    server.sent.clear()
    monkeypatch.setattr(download, "RETRIES", 1)  # a server without Range starts anew
    fetch(tmp_path, server, files)
    assert unpacked(tmp_path) == ALL and stored(tmp_path) == []
    if ranges:
        assert server.sent == [("1", len(server.content["1"]) - size), ("2", 5000)]


def test_zip_downloaded_by_hand_is_used(tmp_path, server, files):
    (tmp_path / ".download").mkdir()
    (tmp_path / ".download/3-3.zip").write_bytes(server.content["1"])
    fetch(tmp_path, server, files)
    assert unpacked(tmp_path) == ALL
    assert [name for name, _ in server.sent] == ["0", "2"]


def test_wrong_bytes_are_removed_and_refusals_named(tmp_path, server, files):
    for wrong in (b"<html>log in</html>", noise("x", 250_000)):
        server.content["1"] = wrong
        with pytest.raises(DatasetError, match="3-3.zip"):
            fetch(tmp_path, server, files)
        assert unpacked(tmp_path) == FIRST and stored(tmp_path) == []
    (tmp_path / "1.mat").unlink()
    server.status = [404]
    with pytest.raises(DatasetError, match=f"1-2.zip.*{server.url}/0"):
        fetch(tmp_path, server, files)


def test_published_files_are_those_of_the_dataset(tmp_path, monkeypatch):
    sizes, members = [], []
    monkeypatch.setattr(download, "_fetch", lambda file, *_: sizes.append(file.size))
    monkeypatch.setattr(download, "_unpack", lambda path, names: members.extend(names))
    download_figshare(tmp_path)
    assert members == [*(f"{n}.mat" for n in range(1, 3065)), "cvind.mat"]
    assert sum(sizes) == 879_499_062
