"""The app: its widget without a browser, and the whole of it at a phone's width."""

import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import requests
from PIL import Image

from braintumor.core.errors import AmbiguousSliceError, DatasetError
from braintumor.core.files import ROOT
from braintumor.data import prepared as prepared_module
from braintumor.data.labels import LABELS
from braintumor.inference import report
from braintumor.inference.formats import InputImage, read_image
from braintumor.inference.ood import OOD_SCORES
from braintumor.inference.predictor import PUBLISHED, Prediction, load_predictions

sys.path.insert(0, str(ROOT / "app"))
import app  # noqa: E402
import pages  # noqa: E402
from browser import external_requests, read_logs  # noqa: E402

SLICE = np.add.outer(np.arange(40), np.arange(48)).astype(np.uint8)


def make_prediction(image):
    """Predict glioma with a rectangular mask, without a network."""
    mask = np.zeros(image.pixels.shape, bool)
    mask[4:10, 5:12] = True
    return Prediction(
        image=image,
        model_folds=(1, 2, 3, 4, 5),
        probabilities=np.array([0.1, 0.7, 0.2]),
        probability_std=np.full(3, 0.01),
        mask=mask,
        gradcam=mask.astype(np.float32),
        mask_agreement=0.9,
        ood_scores=dict.fromkeys(OOD_SCORES, 0.5),
    )


class FakePredictor:
    """Records the images that it predicts."""

    def __init__(self):
        self.images = []

    def predict(self, images):
        self.images += images
        return [make_prediction(image) for image in images]


@pytest.fixture
def predictor(monkeypatch):
    predictor = FakePredictor()
    monkeypatch.setattr(app, "load_predictor", lambda folds: predictor)
    return predictor


class Page(app.App):
    """The widget without a browser; a message is handled before `message` returns."""

    def __init__(self, data):
        self.sent = []
        super().__init__(str(data))
        self.message(kind="open")

    def send(self, content, buffers=None):
        self.sent.append((content, buffers))

    def message(self, *buffers, **content):
        self._on_message(self, content, list(buffers))
        if self._executor is not None:
            self._executor.submit(str).result()

    def upload(self, name, content, part_size=10**6):
        for start in range(0, max(len(content), 1), part_size):
            part = content[start : start + part_size]
            size = len(content)
            self.message(part, kind="file", name=name, start=start, size=size)


@pytest.fixture
def cache(tmp_path_factory, monkeypatch):
    """Keep prepared sets outside the project."""
    root = tmp_path_factory.getbasetemp() / "app-project"
    monkeypatch.setattr(prepared_module, "ROOT", root)


@pytest.fixture
def page(phantom_folder, predictor, cache):
    return Page(phantom_folder)


def encode_image(pixels, kind="PNG"):
    with tempfile.TemporaryFile() as file:
        Image.fromarray(pixels).save(file, kind)
        file.seek(0)
        return file.read()


def encode_volume(n_slices=9):
    """NIfTI whose first slice is black."""
    voxels = np.repeat(SLICE[..., None], n_slices, axis=2).astype(np.int16)
    voxels[..., 0] = 0
    return nibabel.Nifti1Image(voxels, np.diag([1, 1, 5, 1])).to_bytes()


# Uploads


def test_upload_is_read_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    image = app.read_upload("../../etc/<b>.png", encode_image(SLICE))
    assert image.name == "../../etc/<b>.png"
    assert (image.pixels == SLICE).all()
    with pytest.raises(DatasetError, match=r"^letter\.png: ") as caught:
        app.read_upload("letter.png", b"Dear doctor")
    assert str(tmp_path) not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_slice_of_a_volume_is_selected():
    with pytest.raises(AmbiguousSliceError, match=r"^v\.nii: ") as caught:
        app.read_upload("v.nii", encode_volume(9))
    assert caught.value.n_slices == 9
    assert app.read_upload("v.nii", encode_volume(9), 3).name == "v.nii, slice 3"


def test_too_large_upload_is_refused(monkeypatch):
    monkeypatch.setattr(app, "MAX_UPLOAD_MB", 0)
    with pytest.raises(DatasetError, match=r"mine\.png"):
        app.read_upload("mine.png", encode_image(SLICE))


# HTML


def shown_files(html):
    return [int(file) for file in re.findall(r'data-file="(\d+)"', html)]


def test_gallery_filters_slices(prepared):
    index = prepared.index
    row = index.iloc[-1]
    html = pages.render_gallery(prepared, str(row["label"]), row["pid"], row["plane"])
    same = index[(index["pid"] == row["pid"]) & (index["plane"] == row["plane"])]
    assert shown_files(html) == same["file"].tolist()
    assert f"slice {row['file']}, {LABELS[row['label']]}" in html
    other_class = index[index["label"] != row["label"]].iloc[0]
    html = pages.render_gallery(prepared, str(row["label"]), other_class["pid"])
    assert f"of {(index['label'] == row['label']).sum()}" in html
    assert not shown_files(pages.render_gallery(prepared, plane="oblique"))


def test_gallery_has_pages(prepared):
    first = pages.render_gallery(prepared)
    assert len(shown_files(first)) == pages.N_THUMBNAILS
    last = pages.render_gallery(prepared, start=10**6)
    assert shown_files(last)[-1] == prepared.index["file"].iloc[-1]
    assert re.search(r'id="next"[^>]*aria-disabled="true"', last)


def test_outline_surrounds_a_mask_and_its_hole():
    mask = np.zeros((8, 10), bool)
    mask[:5, :6] = True  # touches the edge of the image
    mask[2, 2] = False
    path = pages.trace_outline(mask)
    points = np.array(re.findall(r"([-\d.]+) ([-\d.]+)", path), float)
    assert path.count("M") == 2
    assert points.min(axis=0).tolist() == [0, 0]
    assert points.max(axis=0).tolist() == [6, 5]
    assert pages.trace_outline(np.zeros((8, 10), bool)) == ""


def test_prediction_is_compared_with_the_truth():
    prediction = make_prediction(InputImage("<script>.png", SLICE))
    html = pages.render_prediction(prediction)
    assert "&lt;script&gt;" in html
    assert "<script>" not in html
    assert "70.0%" in html
    assert "True class" not in html
    image = InputImage("known", SLICE, label=1, mask=prediction.mask)
    html = pages.render_prediction(replace(prediction, image=image), note="A note.")
    assert "True class: <strong>meningioma" in html
    assert "true mask: 1.00" in html
    assert "A note." in html


def test_warnings_precede_the_class_and_are_read_aloud():
    image = InputImage("photo", SLICE, is_color=True)
    prediction = make_prediction(image)
    html = pages.render_prediction(prediction)
    assert html.index("It is a color image") < html.index("Predicted class")
    assert app.describe_status(prediction).startswith("Unreliable prediction")


# The widget


def test_slice_of_the_dataset_is_predicted_with_its_true_border(page, predictor):
    page.message(kind="thumbnail", file=3)
    assert "<h2>Slice 3</h2>" in page.prediction
    assert "True border" in page.prediction
    assert pages.PHANTOM_NOTE in page.prediction
    assert "glioma, 70.0%" in page.status
    assert not page.busy
    assert predictor.images[0].patient is None  # its identifiers are not figshare's


def test_patient_of_the_training_data_gets_the_held_out_network():
    table, _ = load_predictions(PUBLISHED, "classify")
    pid, fold = table["pid"].iloc[0], table["fold"].iloc[0]
    assert app.select_folds(InputImage("known", SLICE, patient=pid)) == (fold,)
    assert app.select_folds(InputImage("other", SLICE, patient="x")) == app.FOLDS


def test_volume_starts_in_the_middle_and_has_a_selector(page):
    page.upload("v.nii", encode_volume(9), part_size=1000)
    assert "v.nii, slice 5" in page.prediction
    assert 'max="9"' in page.selector
    page.message(kind="slice", number=1)
    assert page.error.startswith("v.nii")
    assert page.selector
    page.message(kind="slice", number=7)
    assert "v.nii, slice 7" in page.prediction
    assert not page.error
    page.message(kind="thumbnail", file=1)
    assert not page.selector


def test_only_the_last_of_several_requests_is_predicted(page, predictor):
    first = encode_image(SLICE)
    page.message(first[:50], kind="file", name="first.png", start=0, size=len(first))
    page.upload("second.png", first)
    assert [image.name for image in predictor.images] == ["second.png"]

    def request_three():
        for file in (1, 2, 3):
            page._on_message(page, {"kind": "thumbnail", "file": file}, [])

    page._executor.submit(request_three).result()
    page.message(kind="browse", start=0)
    assert [image.name for image in predictor.images] == ["second.png", "Slice 3"]


@pytest.mark.parametrize("content", [encode_volume(9), b"Dear doctor"])
def test_request_replaces_an_upload_that_is_being_read(page, monkeypatch, content):
    def read_slowly(*arguments):
        if page._upload is not None:
            page._on_message(page, {"kind": "thumbnail", "file": 3}, [])
        return read_image(*arguments)

    monkeypatch.setattr(app, "read_image", read_slowly)
    page.upload("mine", content)
    page.message(kind="browse", start=0)
    assert "<h2>Slice 3</h2>" in page.prediction
    assert not page.error
    assert not page.selector


def test_error_removes_the_prediction_and_the_app_goes_on(page):
    page.upload("good.png", encode_image(SLICE))
    page.upload("letter.png", b"Dear doctor")
    assert not page.prediction
    assert page.error.startswith("letter.png")
    page.message(kind="report")  # there is none
    assert "Unexpected" in page.error
    page.upload("good.png", encode_image(SLICE))
    assert "good.png" in page.prediction
    assert not page.error
    assert not page.busy


def test_report_is_sent_and_not_written(page, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    page.upload("mine.png", encode_image(SLICE))
    page.message(kind="report")
    content, (html,) = page.sent[-1]
    assert content == {"kind": "report", "name": "mine.png.html"}
    assert report.NOTICE in html.decode()
    assert not list(tmp_path.iterdir())


def test_files_can_be_predicted_without_a_dataset(tmp_path, predictor, cache):
    page = Page(tmp_path / "none")
    assert "none" in page.error
    assert not page.gallery
    page.upload("mine.png", encode_image(SLICE))
    assert "mine.png" in page.prediction


def test_missing_networks_are_reported(phantom_folder, cache, monkeypatch):
    def fail(folds):
        raise DatasetError("models/fold-1.keras: missing")

    monkeypatch.setattr(app, "load_predictor", fail)
    page = Page(phantom_folder)
    assert "models/fold-1.keras" in page.error
    assert not page.busy


@pytest.mark.parametrize(
    ("site", "destination", "is_allowed"),
    [
        ("none", "document", True),
        ("cross-site", "document", True),
        ("cross-site", "iframe", False),
        (None, None, True),
    ],
)
def test_pages_of_other_sites_start_no_kernel(site, destination, is_allowed):
    from serve import HTTPError, refuse_embedding

    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Dest": destination} if site else {}
    handler = SimpleNamespace(request=SimpleNamespace(headers=headers))
    if is_allowed:
        refuse_embedding(handler)
    else:
        with pytest.raises(HTTPError, match="403"):
            refuse_embedding(handler)


# In the browser


@pytest.fixture(scope="module")
def address(phantom_folder, chromium):
    """The app as `make app` starts it, ended as by Ctrl-C."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "braintumor.cli", "app", "--port", port]
    command += ["--data", str(phantom_folder)]
    # a shell's background job ignores SIGINT, and its children would, too
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        signal.signal(signal.SIGINT, old)
        try:
            line = server.stdout.readline()
            yield re.search(r"http://127.0.0.1:\d+/", line)[0]
        finally:
            server.send_signal(signal.SIGINT)
            assert server.wait(60) == 0
            prepared = prepared_module.cache_dir(phantom_folder, app.THUMBNAIL_SIZE)
            shutil.rmtree(prepared.parent)


@pytest.fixture(scope="module")
def window(address, chromium, tmp_path_factory):
    """The app at 390 pixels, with its networks loaded."""
    with chromium(390) as browser:
        browser.downloads = tmp_path_factory.mktemp("downloads")
        settings = {"behavior": "allow", "downloadPath": str(browser.downloads)}
        browser.execute_cdp_cmd("Browser.setDownloadBehavior", settings)
        browser.set_page_load_timeout(300)
        browser.get(address)
        wait(browser, lambda: report.NOTICE in get_text(browser, "body"))
        wait(browser, lambda: get_text(browser, "#status") == app.READY)
        yield browser


def wait(browser, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 300, 0.1).until(lambda _: condition())


def get_text(browser, selector):
    script = "return document.querySelector(arguments[0])?.innerText"
    return browser.execute_script(script, selector) or ""


def upload(browser, path, expected):
    """Upload a file and wait for a text on the page."""
    browser.find_element("id", "file").send_keys(str(path))
    wait(browser, lambda: expected in get_text(browser, ".braintumor"))


@pytest.mark.browser
def test_notice_stays_visible(window):
    element = "document.querySelector('.braintumor .notice')"
    for place in ("document.body.scrollHeight / 2", "0"):
        window.execute_script(f"scrollTo(0, {place})")
        top = f"return {element}.getBoundingClientRect().top"
        wait(window, lambda script=top: window.execute_script(script) == 0)


@pytest.mark.browser
def test_bad_files_give_an_error_or_a_warning_and_the_app_goes_on(window, tmp_path):
    rng = np.random.default_rng(0)
    colors = rng.integers(0, 255, (16, 16, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    files = {
        "letter.png": (b"Dear doctor", "letter.png: "),
        "empty.png": (b"", "empty.png: "),
        "photo.png": (encode_image(colors), "It is a color image"),
    }
    for name, (content, expected) in files.items():
        (tmp_path / name).write_bytes(content)
        upload(window, tmp_path / name, expected)
    with (tmp_path / "large.nii").open("wb") as file:
        file.truncate((app.MAX_UPLOAD_MB + 1) * 10**6)
    upload(window, tmp_path / "large.nii", f"large.nii: got {app.MAX_UPLOAD_MB + 1} MB")


@pytest.mark.browser
def test_volume_of_several_messages_is_predicted_and_its_report_saved(window, tmp_path):
    from selenium.webdriver.common.keys import Keys

    voxels = np.random.default_rng(0).integers(0, 900, (200, 200, 151), np.int16)
    volume = nibabel.Nifti1Image(voxels, np.diag([1, 1, 5, 1]))  # 12 MB
    volume.to_filename(tmp_path / "volume.nii")
    upload(window, tmp_path / "volume.nii", "volume.nii, slice 76:")
    window.find_element("id", "number").send_keys(Keys.ARROW_RIGHT)
    wait(window, lambda: "volume.nii, slice 77:" in get_text(window, "#status"))
    assert get_text(window, "output") == "77"
    window.execute_script("document.querySelector('#report').click()")
    saved = window.downloads / "volume.nii, slice 77.html"
    wait(window, saved.exists)
    assert report.NOTICE in saved.read_text(encoding="utf-8")


@pytest.mark.browser
def test_keyboard_is_enough(window):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    def press(*keys):
        ActionChains(window).send_keys(*keys).perform()

    def focused():
        script = "const e = document.activeElement; return e.id || e.dataset.file"
        return window.execute_script(script)

    def first_thumbnail():
        image = window.find_element("css selector", ".thumbnail img")
        return image.get_attribute("alt")

    window.execute_script("document.querySelector('#file').focus()")
    for _ in range(10):
        if focused() == "label":
            break
        press(Keys.TAB)
    press("g")  # glioma
    wait(window, lambda: "glioma" in first_thumbnail())
    assert focused() == "label"  # although the gallery was replaced
    press(Keys.TAB, Keys.TAB, Keys.TAB)
    file = focused()
    press(Keys.ENTER)
    wait(window, lambda: f"Slice {file}:" in get_text(window, "#status"))
    assert "True border" in get_text(window, "#prediction")


@pytest.mark.browser
def test_mask_fades_and_the_true_border_can_be_hidden(window):
    from selenium.webdriver.common.keys import Keys

    def style(selector, name):
        element = "getComputedStyle(document.querySelector(arguments[0]))"
        return window.execute_script(f"return {element}[arguments[1]]", selector, name)

    window.find_element("id", "opacity").send_keys(Keys.HOME)
    assert float(style("path.mask", "fillOpacity")) == 0
    assert style("path.true", "visibility") == "visible"
    window.find_element("id", "true").send_keys(Keys.SPACE)
    assert style("path.true", "visibility") == "hidden"


@pytest.mark.browser
def test_page_fits_a_phone_and_is_accessible(window):
    from selenium_axe_python import Axe

    width = "return document.scrollingElement.scrollWidth"
    assert window.execute_script(width) <= 390
    axe = Axe(window)
    axe.inject()
    # Voila's page around the app has landmarks that only best-practice rules report
    options = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
    results = axe.run("document", options)
    assert results["passes"]
    assert [problem["help"] for problem in results["violations"]] == []


@pytest.mark.browser
def test_only_the_page_is_served_and_only_under_its_own_name(window, address):
    for path in ("voila/files/app.ipynb", "voila/files/../README.md", "app.ipynb"):
        assert requests.get(address + path).status_code == 403
    headers = {"Host": "other.example"}
    assert requests.get(address, headers=headers).status_code == 403


@pytest.mark.browser
def test_closed_page_ends_its_kernel_and_made_no_external_request(window, address):
    config = "JSON.parse(document.querySelector('#jupyter-config-data').textContent)"
    kernel = window.execute_script(f"return {config}.kernelId")
    urls, errors = read_logs(window)
    assert urls
    assert not external_requests(urls)
    assert not errors
    url = f"{address}api/kernels/{kernel}"
    assert requests.get(url).status_code == 200
    window.get("about:blank")
    wait(window, lambda: requests.get(url).status_code == 404)
