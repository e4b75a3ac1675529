"""The download against a local server: cut connections, wrong bytes, unsafe zips."""

import hashlib
import http.server
import io
import random
import threading
import zipfile

import pytest

from braintumor.core.errors import DatasetError
from braintumor.data import download
from braintumor.data.download import RemoteFile, download_figshare


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
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def offer(server, contents):
    """Put {file name: bytes} on the server; return the list of remote files."""
    files = []
    for path, (name, data) in enumerate(contents.items()):
        server.content[str(path)] = data
        md5 = hashlib.md5(data).hexdigest()
        files.append(RemoteFile(name, str(path), md5, len(data)))
    return files


@pytest.fixture
def files(server):
    members = {"1.mat": noise("1"), "folder/2.mat": noise("2"), "README.txt": b"text"}
    contents = {"a.zip": make_zip(members), "b.zip": make_zip({"3.mat": noise("3")})}
    return offer(server, contents | {"cvind.mat": noise("cvind", 5000)})


FIRST = {"1.mat": noise("1"), "2.mat": noise("2")}
ALL = FIRST | {"3.mat": noise("3"), "cvind.mat": noise("cvind", 5000)}


def unpacked(directory):
    """Return {path: bytes} of everything outside .download."""
    paths = [path for path in directory.rglob("*") if path.is_file()]
    paths = [path for path in paths if ".download" not in path.parts]
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


def stored(directory):
    """Return the names of the files that wait in .download."""
    paths = (directory / ".download").iterdir()
    return sorted(path.name for path in paths if path.suffix != ".json")


def fetch(directory, server, files):
    return download_figshare(directory, server.url, files, progress=False)


def test_second_call_fetches_nothing(tmp_path, server, files):
    directory = tmp_path / "new/data"
    assert fetch(directory, server, files) == ["a.zip", "b.zip", "cvind.mat"]
    assert unpacked(directory) == ALL and stored(directory) == []
    server.sent.clear()
    assert fetch(directory, server, files) == []
    assert server.sent == []


def test_only_the_zip_of_a_lost_file_is_fetched_again(tmp_path, server, files):
    fetch(tmp_path, server, files)
    (tmp_path / "3.mat").unlink()
    assert fetch(tmp_path, server, files) == ["b.zip"]
    assert unpacked(tmp_path) == ALL


@pytest.mark.parametrize("ranges", [True, False])
def test_cut_download_continues(tmp_path, server, files, monkeypatch, ranges):
    server.ranges = ranges
    server.cut = [len(server.content["0"]), 150_000]  # a.zip complete, b.zip cut
    with pytest.raises(DatasetError, match="b.zip"):
        fetch(tmp_path, server, files)
    assert unpacked(tmp_path) == FIRST and stored(tmp_path) == ["b.zip.part"]
    size = (tmp_path / ".download/b.zip.part").stat().st_size
    assert 80_000 < size <= 150_000
    server.sent.clear()
    monkeypatch.setattr(download, "RETRIES", 1)  # a server without Range starts anew
    fetch(tmp_path, server, files)
    assert unpacked(tmp_path) == ALL and stored(tmp_path) == []
    if ranges:
        assert server.sent == [("1", files[1].size - size), ("2", 5000)]


def test_failures_are_retried(tmp_path, server, files, monkeypatch):
    monkeypatch.setattr(download, "RETRIES", 4)
    server.status, server.cut = [503, 429], [0, 0, 150_000]
    fetch(tmp_path, server, files)
    assert unpacked(tmp_path) == ALL


def test_zip_downloaded_by_hand_is_used(tmp_path, server, files):
    (tmp_path / ".download").mkdir()
    (tmp_path / ".download/b.zip").write_bytes(server.content["1"])
    fetch(tmp_path, server, files)
    assert unpacked(tmp_path) == ALL
    assert [name for name, _ in server.sent] == ["0", "2"]


@pytest.mark.parametrize("wrong", [b"<html>log in</html>", noise("x", 250_000)])
def test_wrong_bytes_are_removed(tmp_path, server, files, wrong):
    correct, server.content["1"] = server.content["1"], wrong
    with pytest.raises(DatasetError, match="b.zip"):
        fetch(tmp_path, server, files)
    assert unpacked(tmp_path) == FIRST and stored(tmp_path) == []
    server.content["1"] = correct
    assert fetch(tmp_path, server, files) == ["b.zip", "cvind.mat"]
    assert unpacked(tmp_path) == ALL


UNSAFE_ZIPS = {
    "program": make_zip({"8.mat": b"8", "run.py": b"x"}),
    "windows path": make_zip({"8.mat": b"8", "C:\\9.mat": b"x"}),
    "large member": make_zip({"8.mat": b"8", "9.mat": bytes((64 << 20) + 1)}),
    "not a zip": b"this is no zip",
    "false size": make_zip({"8.mat": bytes(1_000_000)}).replace(
        (1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")
    ),
}


@pytest.mark.parametrize("case", UNSAFE_ZIPS)
def test_unsafe_zip_is_refused(tmp_path, server, case):
    contents = {"good.zip": make_zip({"1.mat": b"1"}), "bad.zip": UNSAFE_ZIPS[case]}
    with pytest.raises(DatasetError, match="bad.zip"):
        fetch(tmp_path / "data", server, offer(server, contents))
    assert unpacked(tmp_path) == {"data/1.mat": b"1"}
    assert stored(tmp_path / "data") == []


@pytest.mark.parametrize("path", ["../9.mat", "a/../../9.mat", "/tmp/9.mat"])
def test_members_are_unpacked_flat(tmp_path, server, path):
    fetch(tmp_path / "data", server, offer(server, {"a.zip": make_zip({path: b"9"})}))
    assert unpacked(tmp_path) == {"data/9.mat": b"9"}


@pytest.mark.parametrize("status", [403, 404, 500])
def test_refusing_server_is_named(tmp_path, server, files, status):
    server.status = [status]
    with pytest.raises(DatasetError, match=f"a.zip.*{server.url}/0"):
        fetch(tmp_path, server, files)
    assert unpacked(tmp_path) == {}
