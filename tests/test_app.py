"""The app: its page made in Python, and the whole of it in a browser, on a telephone's width."""

import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import zlib
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import requests
from browser import foreign, heard
from PIL import Image
from tornado.web import HTTPError

from braintumor.app_page import app
from braintumor.app_page.server import _only_visitors
from braintumor.core.errors import ChoiceError, DatasetError
from braintumor.data import formats as images
from braintumor.data.prepared import LABELS
from braintumor.inference import predictor as inference
from braintumor.inference import report

SLICE = np.add.outer(np.arange(40), np.arange(48)).astype(np.uint8)


def answered(image, color=False):
    """An answer as networks would give it, of one called glioma, whose mask is a square."""
    mask = np.zeros(image.pixels.shape, bool)
    mask[4:10, 5:12] = True
    says = dict.fromkeys(("picture", "features", "mask"), 0.5)
    probabilities, spread = np.array([0.1, 0.7, 0.2]), np.full(3, 0.01)
    return inference.Answer(image, (1, 2, 3, 4, 5), probabilities, spread, mask, mask.astype(np.float32), 0.9, says)


class Told:
    """Networks that need no TensorFlow: they call every image a glioma, and remember what they were asked."""

    def __init__(self):
        self.asked = []

    def predict(self, given):
        self.asked += given
        return [answered(image) for image in given]


@pytest.fixture
def told(monkeypatch):
    networks = Told()
    monkeypatch.setattr(app, "networks", lambda folds: networks)
    return networks


class Page(app.App):
    """The app without a browser: what is said to it is done before `say` returns, what it sends is kept."""

    def __init__(self, data):
        self.sent = []
        super().__init__(str(data))
        self.say(kind="open")

    def send(self, content, buffers=None):
        self.sent.append((content, buffers))

    def say(self, *buffers, **content):
        self._heard(self, content, list(buffers))
        if self._work is not None:
            self._work.submit(str).result()

    def give(self, name, content, part=100):
        for at in range(0, max(len(content), 1), part):
            self.say(content[at : at + part], kind="file", name=name, at=at, size=len(content))


@pytest.fixture
def page(phantom_folder, told):
    return Page(phantom_folder)


def png(pixels, mode=None, kind="PNG"):
    with tempfile.TemporaryFile() as file:
        Image.fromarray(pixels, mode).save(file, kind)
        file.seek(0)
        return file.read()


def volume(count=9):
    """NIfTI of `count` slices, the first of which shows nothing."""
    voxels = np.repeat(SLICE[..., None], count, axis=2).astype(np.int16)
    voxels[..., 0] = 0
    return nibabel.Nifti1Image(voxels, np.diag([1, 1, 5, 1])).to_bytes()


# What is uploaded


def test_upload_is_an_image_of_its_name_and_leaves_nothing_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    image = app.uploaded("../../etc/<b>.png", png(SLICE))
    assert image.name == "../../etc/<b>.png" and (image.pixels == SLICE).all() and not list(tmp_path.iterdir())
    with pytest.raises(DatasetError):
        app.uploaded("letter.png", b"Dear doctor")
    assert not list(tmp_path.iterdir())


def test_one_slice_of_a_volume_is_chosen():
    with pytest.raises(ChoiceError) as caught:
        app.uploaded("v.nii", volume(9))
    assert caught.value.count == 9
    assert app.uploaded("v.nii", volume(9), 3).name == "v.nii, slice 3"


@pytest.mark.parametrize("content", [b"", b"Dear doctor", png(SLICE)[:60], b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_faults_are_told_of_the_file_that_was_given_without_a_librarys_words(content):
    with pytest.raises(DatasetError) as caught:
        app.uploaded("mine.png", content)
    words = app.sentence("mine.png", caught.value)
    assert words.startswith("mine.png cannot be asked about: it ") and words.endswith(".")
    assert not re.search(r"/tmp|upload|BytesIO|PIL|errno|slice_number", words)


def test_too_large_an_upload_is_refused_before_it_is_written(monkeypatch):
    monkeypatch.setattr(app, "LARGEST_MB", 0)
    with pytest.raises(DatasetError, match="is over 0 MB; expected one slice"):
        app.uploaded("mine.png", png(SLICE))


# The page


def test_slices_are_browsed_by_class_patient_and_plane(prepared):
    index = prepared.index
    shown = app.gallery(prepared)
    assert shown.count("class=thumbnail ") == app.SHOWN and f"1 to {app.SHOWN} of {len(index)}" in shown
    row = index.iloc[-1]
    shown = app.gallery(prepared, label=str(row["label"]), patient=row["pid"], plane=row["plane"])
    same = index[index["pid"].eq(row["pid"]) & index["plane"].eq(row["plane"])]
    assert [int(n) for n in re.findall(r"data-file=(\d+)", shown)] == same["file"].tolist()
    assert f"alt='slice {row['file']}, {LABELS[row['label']]}, {row['plane']}'" in shown
    other = index[index["label"] != row["label"]].iloc[0]
    everyone = app.gallery(prepared, label=str(row["label"]), patient=other["pid"])  # of the class chosen before
    assert f"of {index['label'].eq(row['label']).sum()}" in everyone
    assert "no slice is of all these" in app.gallery(prepared, plane="unknown")


def test_last_page_of_slices_ends_the_list(prepared):
    shown = app.gallery(prepared, start=10**6)
    assert f"of {len(prepared.index)}" in shown and 0 < shown.count("class=thumbnail ") <= app.SHOWN
    assert re.search("id=next[^>]*aria-disabled=true", shown)


def test_outline_goes_around_a_mask_and_its_hole():
    mask = np.zeros((8, 10), bool)
    mask[:5, :6] = True  # at the picture's edge
    mask[2, 2] = False
    points = [list(map(float, pair)) for pair in re.findall(r"([-\d.]+) ([-\d.]+)", app.outline(mask))]
    assert app.outline(mask).count("M") == 2
    assert np.min(points, axis=0).tolist() == [0, 0] and np.max(points, axis=0).tolist() == [6, 5]
    assert app.outline(np.zeros((8, 10), bool)) == ""


def test_answer_shows_what_is_known_and_escapes_names():
    image = images.Image("<script>.png", SLICE)
    shown = app.answer(answered(image))
    assert "&lt;script&gt;" in shown and "<script>" not in shown
    assert "Called <strong>glioma" in shown and "70.0%" in shown and "No check finds this image foreign" in shown
    assert "true border" not in shown.lower()
    mask = answered(image).mask
    shown = app.answer(answered(images.Image("known", SLICE, label=1, mask=mask)), note="A note.")
    assert "The dataset says <strong>meningioma" in shown and "true border: 1.00" in shown and "A note." in shown
    assert app.outline(mask) in re.search('class=true d="([^"]*)"', shown)[1]


def test_doubts_stand_before_the_class():
    shown = app.answer(answered(images.Image("photo", SLICE, color=True)))
    assert 0 < shown.index("Do not believe this answer") < shown.index("It is a color image") < shown.index("Called")


def test_status_which_is_read_aloud_says_not_to_believe_an_answer_that_is_doubted(page, told):
    page.give("photo.png", png(np.stack([SLICE, SLICE.T[:40, :40].repeat(2, 1)[:, :48], SLICE // 2], axis=-1)))
    assert page.status == "Do not believe this answer: photo.png is called glioma, 70.0%."


def test_slice_of_the_dataset_is_answered_with_its_true_border(page, told):
    page.say(kind="row", file=3)
    assert "<h2>Slice 3</h2>" in page.answer and "True border" in page.answer and app.DRAWN in page.answer
    assert page.status == "Answered: Slice 3 is called glioma, 70.0%." and not page.busy
    assert told.asked[0].patient is None  # the phantom's patients are not figshare's, whatever their identifiers


def test_patient_that_a_network_held_out_is_asked_of_that_network_alone():
    patient, fold = next(iter(inference._folds().items()))
    assert app.folds_for(images.Image("known", SLICE, patient=patient)) == (fold,)
    assert app.folds_for(images.Image("other", SLICE, patient="x")) == (1, 2, 3, 4, 5)


def test_volume_is_asked_about_in_its_middle_and_then_where_the_reader_chooses(page, told):
    page.give("v.nii", volume(9))
    assert "v.nii, slice 5" in page.answer and "holds 9 slices" in page.chooser
    page.say(kind="slice", number=1)
    assert "v.nii, slice 1 cannot be asked about: every pixel is 0" in page.error and page.chooser
    page.say(kind="slice", number=7)
    assert "v.nii, slice 7" in page.answer and not page.error
    page.say(kind="row", file=1)
    assert not page.chooser and page._upload is None


def test_file_that_another_overtook_is_left_out(page, told):
    page.say(png(SLICE)[:50], kind="file", name="first.png", at=0, size=len(png(SLICE)))
    page.give("second.png", png(SLICE))
    assert [image.name for image in told.asked] == ["second.png"]


def test_fault_takes_the_last_answer_away_and_the_app_goes_on(page):
    page.give("good.png", png(SLICE))
    assert "good.png" in page.answer
    page.give("<b>.png", b"Dear <b>doctor")
    assert page.answer == app.NOTHING and page.error.startswith(
        "&lt;b&gt;.png cannot be asked about: it is of no known"
    )
    page.say(kind="report")  # of nothing
    assert "should not have happened" in page.error
    page.give("good.png", png(SLICE))
    assert "good.png" in page.answer and not page.error and not page.busy


def test_report_is_sent_and_not_written(page, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    page.give("mine.png", png(SLICE))
    page.say(kind="report")
    content, (html,) = page.sent[-1]
    assert content == {"kind": "report", "name": "mine.png.html"} and report.NOTICE in html.decode()
    assert not list(tmp_path.iterdir())


def test_question_that_a_later_one_overtook_is_left_out(page, told):
    held = page._work.submit(lambda: [page._heard(page, {"kind": "row", "file": n}, []) for n in (1, 2, 3)])
    held.result()
    page.say(kind="browse", start=0)
    assert [image.name for image in told.asked] == ["Slice 3"]


@pytest.mark.parametrize("content", [volume(9), b"Dear doctor"])
def test_slice_asked_for_while_a_file_is_read_takes_its_place(page, monkeypatch, content):
    read = images.read

    def slow(*given):
        if page._upload is not None:
            page._heard(page, {"kind": "row", "file": 3}, [])
        return read(*given)

    monkeypatch.setattr(images, "read", slow)
    page.give("mine", content, part=10**6)
    page.say(kind="browse", start=0)
    assert "<h2>Slice 3</h2>" in page.answer and not page.error and not page.chooser


def test_folder_that_cannot_be_browsed_is_told_and_files_can_be_asked_about(tmp_path, told):
    page = Page(tmp_path / "none")
    assert "cannot be browsed" in page.error and "no such folder" in page.error and not page.gallery
    page.give("mine.png", png(SLICE))
    assert "mine.png" in page.answer


def test_missing_networks_are_told(phantom_folder, monkeypatch):
    def missing(folds):
        raise DatasetError("models/fold-1.keras: is not there")

    monkeypatch.setattr(app, "networks", missing)
    page = Page(phantom_folder)
    assert "The networks cannot be loaded: models/fold-1.keras: is not there" in page.error and not page.busy


@pytest.mark.parametrize(
    ("site", "destination", "allowed"),
    [("none", "document", True), ("cross-site", "document", True), ("cross-site", "iframe", False), (None, None, True)],
)
def test_pages_of_other_hosts_start_no_kernel(site, destination, allowed):
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Dest": destination} if site else {}
    handler = SimpleNamespace(request=SimpleNamespace(headers=headers))
    if allowed:
        assert _only_visitors(handler, notebook=None, cwd="") is None
    else:
        with pytest.raises(HTTPError, match="403"):
            _only_visitors(handler, notebook=None, cwd="")


# In the browser


@pytest.fixture(scope="module")
def address(phantom_folder, chromium):
    """The app on a free port, as `make app` starts it; ended as by Ctrl-C."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "braintumor.cli", "app", "--data", str(phantom_folder), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield re.search(r"http://127.0.0.1:\d+/", server.stdout.readline())[0]
        finally:
            server.send_signal(signal.SIGINT)
            assert server.wait(60) == 0


@pytest.fixture(scope="module")
def window(address, chromium, tmp_path_factory):
    """The app opened at 390 px, with its networks loaded."""
    with chromium(390) as browser:
        browser.downloads = tmp_path_factory.mktemp("downloads")
        behaviour = {"behavior": "allow", "downloadPath": str(browser.downloads)}
        browser.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
        browser.set_page_load_timeout(300)
        browser.get(address)
        assert report.NOTICE in until(browser, lambda: text(browser, "body"))
        until(browser, lambda: text(browser, "#status") == app.READY)
        yield browser


def until(browser, found):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 300, 0.1).until(lambda _: found())


def text(browser, place):
    return browser.execute_script("return document.querySelector(arguments[0])?.innerText", place) or ""


def give(browser, path, expected):
    """Upload a file; returns the page's words once they hold what is expected."""
    browser.find_element("id", "file").send_keys(str(path))
    place = ".braintumor"
    return until(browser, lambda: text(browser, place) if expected in text(browser, place) else None)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_notice_stays_in_sight(window):
    top = "const one = document.querySelector('.braintumor .notice').getBoundingClientRect(); return one.top"
    for place in ("0", "document.body.scrollHeight / 2"):
        window.execute_script(f"scrollTo(0, {place})")
        until(window, lambda: window.execute_script(top) == 0)
    window.execute_script("scrollTo(0, 0)")


def test_every_bad_file_gets_a_sentence_and_the_app_goes_on(window, tmp_path):
    colors = np.random.default_rng(0).integers(0, 255, (16, 16, 4), np.uint8).repeat(16, 0).repeat(16, 1)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30000, 30000, 8, 0, 0, 0, 0))
    files = {
        "letter.png": (b"Dear doctor", "letter.png cannot be asked about: it is of no known kind"),
        "huge.png": (b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b""), "it declares too many pixels"),
        "empty.png": (b"", "empty.png cannot be asked about: it is empty"),
        "cmyk.jpg": (png(colors, "CMYK", "JPEG"), "cmyk.jpg\nDo not believe this answer\nIt is a color image"),
        "photo.png": (png(colors[..., :3]), "photo.png\nDo not believe this answer\nIt is a color image"),
    }
    for name, (content, words) in files.items():
        (tmp_path / name).write_bytes(content)
        give(window, tmp_path / name, words)
    with (tmp_path / "large.nii").open("wb") as file:
        file.truncate((app.LARGEST_MB + 1) * 10**6)
    give(window, tmp_path / "large.nii", f"large.nii has {app.LARGEST_MB + 1} MB; up to {app.LARGEST_MB} MB are read")


def test_phantom_is_answered_and_its_report_downloaded(window, phantom_folder, tmp_path):
    pixels = images.read(phantom_folder / "1.mat").pixels
    Image.fromarray((pixels / pixels.max() * 255).astype(np.uint8)).save(tmp_path / "phantom.png")
    give(window, tmp_path / "phantom.png", "phantom.png is called")
    assert not text(window, "#error")
    window.execute_script("document.querySelector('#report').click()")
    saved = window.downloads / "phantom.png.html"
    until(window, saved.exists)
    assert report.NOTICE in saved.read_text(encoding="utf-8") and "phantom.png" in saved.read_text(encoding="utf-8")


def test_volume_of_many_messages_offers_its_slices(window, tmp_path):
    voxels = np.random.default_rng(0).integers(0, 900, (200, 200, 151), np.int16)  # 12 MB
    nibabel.Nifti1Image(voxels, np.diag([1, 1, 5, 1])).to_filename(tmp_path / "volume.nii")
    give(window, tmp_path / "volume.nii", "volume.nii, slice 76 is called")
    from selenium.webdriver.common.keys import Keys

    window.find_element("id", "number").send_keys(Keys.ARROW_RIGHT)
    until(window, lambda: "volume.nii, slice 77 is called" in text(window, "#status"))
    assert text(window, "output") == "77"


def test_keyboard_alone_leads_to_an_answer(window):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    def press(*keys):
        ActionChains(window).send_keys(*keys).perform()

    def focused():
        return window.execute_script("return document.activeElement.id || document.activeElement.dataset.file")

    window.execute_script("document.querySelector('#file').focus()")
    for _ in range(10):
        if focused() == "label":
            break
        press(Keys.TAB)
    press("g")  # glioma
    until(window, lambda: "glioma" in (window.find_element("css selector", ".thumbnail img").get_attribute("alt")))
    assert focused() == "label"  # the list was drawn anew under it
    press(Keys.TAB, Keys.TAB, Keys.TAB)
    file = focused()
    press(Keys.ENTER)
    until(window, lambda: f"Slice {file} is called" in text(window, "#status"))
    assert "True border" in text(window, "#answer")
    assert window.execute_script("return getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_mask_fades_with_its_slider_and_the_border_can_be_hidden(window):
    def style(place, name):
        return window.execute_script(
            "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]", place, name
        )

    from selenium.webdriver.common.keys import Keys

    window.find_element("id", "opacity").send_keys(Keys.HOME)
    assert float(style("path.mask", "fillOpacity")) == 0 and style("path.true", "visibility") == "visible"
    window.find_element("id", "true").send_keys(Keys.SPACE)
    assert style("path.true", "visibility") == "hidden"


def test_page_fits_a_telephone_and_all_of_it_has_a_name(window):
    assert window.execute_script("return document.scrollingElement.scrollWidth") <= 390
    unnamed = window.execute_script(
        "const out = [...document.querySelectorAll('.braintumor img')].filter(e => !e.alt);"
        "out.push(...[...document.querySelectorAll('.braintumor :is(input, select)')].filter(e => !e.labels.length));"
        "return out.map(e => e.outerHTML.slice(0, 200))"
    )
    assert not unnamed
    levels = window.execute_script(
        "return [...document.querySelectorAll('.braintumor :is(h1, h2, h3)')].map(e => Number(e.tagName[1]))"
    )
    assert levels[0] == 1 and all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))


def test_nothing_but_the_page_is_served_and_only_under_its_own_name(window, address):
    for path in ("voila/files/app.ipynb", "voila/files/app/app.ipynb", "voila/files/../README.md", "app.ipynb"):
        assert requests.get(address + path).status_code == 403
    assert requests.get(address, headers={"Host": "other.example"}).status_code == 403
    assert "import" not in window.execute_script("return document.querySelector('#rendered_cells').innerText")


def test_no_other_host_is_asked_and_the_console_is_empty_and_a_left_page_ends_its_kernel(window, address):
    kernel = window.execute_script(
        "return JSON.parse(document.querySelector('#jupyter-config-data').textContent).kernelId"
    )
    asked, console = heard(window)
    assert asked and not foreign(asked) and not console
    assert requests.get(f"{address}api/kernels/{kernel}").status_code == 200
    window.get("about:blank")
    until(window, lambda: requests.get(f"{address}api/kernels/{kernel}").status_code == 404)
