"""`braintumor.data.download` against a server of phantom zips: cut, garbled, unsafe, disk full, refused."""

import collections
import errno
import hashlib
import http.server
import io
import os
import random
import shutil
import subprocess
import threading
import zipfile

import pytest

from braintumor.core.errors import DatasetError
from braintumor.data import download as module
from braintumor.data.download import FIGSHARE_FILES, RemoteFile, download


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` {path: bytes}; `sent` holds (path, bytes sent) of each answer."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self._sent = {}, []
        self.answering = threading.Lock()
        self.cut = []  # bytes after which the next answers are cut, one entry an answer
        self.ranges = True  # honour Range
        self.length = True  # announce Content-Length
        self.status = []  # statuses of the next answers, instead of content
        self.url = f"http://127.0.0.1:{self.server_port}/files"

    @property
    def sent(self):
        with self.answering:  # a client has its last byte a moment before it is counted here
            return self._sent

    def handle_error(self, *args):  # the client may hang up
        pass


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with self.server.answering:
            self.answer()

    def answer(self):
        server, name = self.server, self.path.removeprefix("/files/")
        status = server.status.pop(0) if server.status else 200 if name in server.content else 404
        body = server.content[name] if status == 200 else b""
        total, start = len(body), 0
        if status == 200 and server.ranges and "Range" in self.headers:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            status, body = (206, body[start:]) if start < total else (416, b"")
        self.send_response(status)
        if server.length:
            self.send_header("Content-Length", str(len(body)))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.end_headers()
        body = body[: server.cut.pop(0)] if server.cut else body
        self.wfile.write(body)
        server._sent.append((name, len(body)))

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0)
    monkeypatch.setattr(module, "TRIES", 1)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def noise(name, size=200_000):
    return random.Random(name).randbytes(size)


def make_zip(members):
    """A zip of {name or ZipInfo: bytes}."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def offer(server, **contents):
    """Put the contents on the server and return their table; `a` becomes a.zip, `cvind` cvind.mat."""
    files = []
    for number, (key, data) in enumerate(contents.items()):
        server.content[str(number)] = data
        name = "cvind.mat" if key == "cvind" else f"{key}.zip"
        files.append(RemoteFile(name, str(number), hashlib.md5(data).hexdigest(), len(data)))
    return files


@pytest.fixture
def files(server):
    first = make_zip({"1.mat": noise("1"), "folder/2.mat": noise("2"), "folder/README.txt": b"read me"})
    return offer(server, a=first, b=make_zip({"3.mat": noise("3")}), cvind=noise("cvind", 5000))


WHOLE = {"1.mat": noise("1"), "2.mat": noise("2"), "3.mat": noise("3"), "cvind.mat": noise("cvind", 5000)}
FIRST = {name: WHOLE[name] for name in ("1.mat", "2.mat")}


def mats(directory):
    """What a reader of the folder sees: {name: bytes} of everything outside .download."""
    paths = [path for path in directory.rglob("*") if path.is_file() and ".download" not in path.parts]
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


def kept(directory):
    """The names in .download apart from the list of what is done."""
    return sorted(path.name for path in (directory / ".download").iterdir() if path.name != "done.json")


def refused(directory, server, files, *words):
    """The message of the DatasetError that download raises, which has all `words`."""
    with pytest.raises(DatasetError) as caught:
        download(directory, server.url, files, progress=False)
    message = str(caught.value)
    assert [word for word in words if word not in message] == [], message
    return message


def test_figshare_table_is_whole():
    assert [file.name for file in FIGSHARE_FILES if file.name.endswith(".zip")] == [
        f"brainTumorDataPublic_{part}.zip" for part in ("1-766", "767-1532", "1533-2298", "2299-3064")
    ]
    assert FIGSHARE_FILES[-1].name == "cvind.mat"
    assert len({file.path for file in FIGSHARE_FILES}) == 5
    assert all(len(file.md5) == 32 and int(file.md5, 16) for file in FIGSHARE_FILES)


def test_all_files_come_flat_and_a_second_call_fetches_nothing(tmp_path, server, files, capsys):
    assert download(tmp_path / "new/data", server.url, files) == ["a.zip", "b.zip", "cvind.mat"]
    assert mats(tmp_path / "new/data") == WHOLE
    assert kept(tmp_path / "new/data") == []
    captured = capsys.readouterr()
    assert "fetched a.zip, b.zip, cvind.mat" in captured.out
    assert "a.zip: 100%" in captured.err  # the progress bar
    server.sent.clear()
    assert download(tmp_path / "new/data", server.url, files) == []
    assert server.sent == []
    assert "nothing to fetch" in capsys.readouterr().out


def test_only_the_zip_of_a_lost_file_is_fetched_again(tmp_path, server, files):
    download(tmp_path, server.url, files, progress=False)
    (tmp_path / "3.mat").unlink()
    assert download(tmp_path, server.url, files, progress=False) == ["b.zip"]
    assert mats(tmp_path) == WHOLE


@pytest.mark.parametrize("ranges", [True, False], ids=["range", "no-range"])
@pytest.mark.parametrize("length", [True, False], ids=["length", "no-length"])
def test_next_call_goes_on_after_a_cut_connection(tmp_path, server, files, ranges, length):
    server.ranges, server.length = ranges, length
    server.cut = [len(server.content["0"]), 150_000]  # a.zip whole, b.zip cut
    refused(tmp_path, server, files, "b.zip", f"{server.url}/1", "run the same command again", module.DOI)
    assert mats(tmp_path) == FIRST
    assert kept(tmp_path) == ["b.zip.part"]
    have = (tmp_path / ".download/b.zip.part").stat().st_size
    assert 80_000 < have <= 150_000
    server.sent.clear()
    download(tmp_path, server.url, files, progress=False)
    left = files[1].size - have if ranges else files[1].size
    assert server.sent == [("1", left), ("2", 5000)]
    assert mats(tmp_path) == WHOLE
    assert kept(tmp_path) == []


def test_cuts_and_a_busy_server_are_overcome_in_one_call(tmp_path, server, files, monkeypatch):
    monkeypatch.setattr(module, "TRIES", 4)
    server.status, server.cut = [503, 429], [0, 0, 150_000]
    download(tmp_path, server.url, files, progress=False)
    assert mats(tmp_path) == WHOLE


def test_what_is_left_of_a_killed_process_is_cleared_away(tmp_path, server, files):
    (tmp_path / ".download/unpack").mkdir(parents=True)
    for name in ("unpack/9.mat", "tmpabc", "done.json"):
        (tmp_path / ".download" / name).write_bytes(b"half")
    (tmp_path / ".download/a.zip.part").write_bytes(server.content["0"] + b"too much")
    (tmp_path / ".download/b.zip.part").write_bytes(server.content["1"])  # whole, not yet renamed
    download(tmp_path, server.url, files, progress=False)
    assert mats(tmp_path) == WHOLE
    assert kept(tmp_path) == []
    assert [name for name, _ in server.sent] == ["0", "2"]


def test_zip_fetched_by_hand_is_taken(tmp_path, server, files):
    (tmp_path / ".download").mkdir()
    (tmp_path / ".download/b.zip").write_bytes(server.content["1"])
    download(tmp_path, server.url, files, progress=False)
    assert mats(tmp_path) == WHOLE
    assert [name for name, _ in server.sent] == ["0", "2"]


@pytest.mark.parametrize("wrong", [b"<html>log in to this network</html>", noise("x", 250_000)])
def test_wrong_bytes_are_named_and_removed(tmp_path, server, files, wrong):
    right, server.content["1"] = server.content["1"], wrong
    words = ["b.zip", f"{server.url}/1", files[1].md5, "Run the same command again", module.DOI]
    message = refused(tmp_path, server, files, *words)
    assert len(wrong) > files[1].size or hashlib.md5(wrong).hexdigest() in message
    assert mats(tmp_path) == FIRST
    assert kept(tmp_path) == []
    server.content["1"] = right
    assert download(tmp_path, server.url, files, progress=False) == ["b.zip", "cvind.mat"]
    assert mats(tmp_path) == WHOLE


def test_endless_answer_is_not_written_to_the_end(tmp_path, server, files):
    server.content["0"] = bytes(20_000_000)
    refused(tmp_path, server, files, "a.zip", files[0].md5)
    assert kept(tmp_path) == []
    assert server.sent == []  # it could not send all of it


def link(name):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, 0o120777 << 16
    return info


def bomb_with_a_false_size():
    """A member of 1 MB whose headers say 10 bytes."""
    data = make_zip({"8.mat": bytes(1_000_000)})
    return data.replace((1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))


UNSAFE = {
    "parent": (make_zip({"8.mat": b"8", "../evil.mat": b"x"}), "'../evil.mat'"),
    "parent-number": (make_zip({"8.mat": b"8", "a/../../9.mat": b"x"}), "'a/../../9.mat'"),
    "absolute": (make_zip({"8.mat": b"8", "/tmp/9.mat": b"x"}), "'/tmp/9.mat'"),
    "windows": (make_zip({"8.mat": b"8", "C:\\9.mat": b"x"}), "C:"),
    "link": (make_zip({"8.mat": b"8", link("9.mat"): b"/etc/passwd"}), "'9.mat'"),
    "stranger": (make_zip({"8.mat": b"8", "run.py": b"x"}), "'run.py'"),
    "twice": (make_zip({"8.mat": b"8", "a/8.mat": b"x"}), "'a/8.mat'"),
    "large": (make_zip({"8.mat": b"8", "9.mat": bytes((64 << 20) + 1)}), "'9.mat'"),
    "false-size": (bomb_with_a_false_size(), "8.mat"),
    "no-zip": (b"this is no zip", "not a zip file"),
}


@pytest.mark.parametrize("case", UNSAFE)
def test_unsafe_zip_is_refused_and_nothing_of_it_is_left(tmp_path, server, case):
    data, member = UNSAFE[case]
    files = offer(server, good=make_zip({"1.mat": b"1"}), bad=data)
    refused(tmp_path / "data", server, files, "bad.zip", member, module.DOI)
    assert mats(tmp_path) == {"data/1.mat": b"1"}  # also nothing beside the folder
    assert kept(tmp_path / "data") == []


def test_many_members_too_large_together_are_refused(tmp_path, server, monkeypatch):
    monkeypatch.setattr(module, "MAX_TOTAL", 2500)
    files = offer(server, bad=make_zip({f"{n}.mat": bytes(1000) for n in (1, 2, 3)}))
    refused(tmp_path, server, files, "bad.zip", "'3.mat'", module.DOI)
    assert mats(tmp_path) == {} and kept(tmp_path) == []


def test_too_little_free_disk_is_told_before_the_first_byte(tmp_path, server, monkeypatch):
    usage = collections.namedtuple("usage", "total used free")(9e9, 8.5e9, 0.5e9)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage)
    refused(tmp_path, server, FIGSHARE_FILES, str(tmp_path), "1.199 GB", "0.500 GB", "cvind.mat", "Make room")
    assert server.sent == []
    assert mats(tmp_path) == {} and kept(tmp_path) == []


class FullDisk(io.FileIO):
    def write(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("name, task", [("b.zip.part", "fetching"), ("3.mat", "unpacking")])
def test_full_disk_keeps_what_is_complete(tmp_path, server, files, monkeypatch, name, task):
    def full_for_one(path, mode):
        return FullDisk(path, mode) if path.name == name else open(path, mode)

    monkeypatch.setattr(module, "open", full_for_one, raising=False)
    refused(tmp_path, server, files, f"{task} b.zip", str(tmp_path), "full", "make room")
    assert mats(tmp_path) == FIRST
    assert kept(tmp_path) == ([] if task == "fetching" else ["b.zip"])  # b.zip itself was complete
    monkeypatch.undo()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    download(tmp_path, server.url, files, progress=False)
    assert mats(tmp_path) == WHOLE


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 640 KiB, where one may be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=640k", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting needs Linux and root; the test above plays the full disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_disk_that_is_really_full(small_disk, server, files, monkeypatch):
    monkeypatch.setattr(module, "_check_free_disk", lambda *args: None)  # as if others fill it meanwhile
    refused(small_disk, server, files, "unpacking a.zip", str(small_disk), "full", "make room")
    assert mats(small_disk) == {} and kept(small_disk) == ["a.zip"]
    (small_disk / ".download/a.zip").unlink()
    (small_disk / "others").write_bytes(bytes(350_000))
    refused(small_disk, server, files, "fetching a.zip", "full")
    assert kept(small_disk) == []


@pytest.mark.parametrize("status", [202, 403, 404, 500])
def test_refusing_server_is_named(tmp_path, server, files, status):
    server.status = [status]
    refused(tmp_path, server, files, "a.zip", f"{server.url}/0", str(status), "by hand", module.DOI)
    assert mats(tmp_path) == {} and kept(tmp_path) == []


def test_server_that_is_gone_is_named(tmp_path, server, files):
    server.shutdown()
    server.server_close()
    refused(tmp_path, server, files, "a.zip", f"{server.url}/0", "Check the network", "by hand", module.DOI)
    assert mats(tmp_path) == {} and kept(tmp_path) == []


def test_folder_that_is_a_file_is_named(tmp_path, server, files):
    (tmp_path / "data").write_bytes(b"mine")
    refused(tmp_path / "data", server, files, str(tmp_path / "data"), "Choose another folder")
    assert mats(tmp_path) == {"data": b"mine"}
