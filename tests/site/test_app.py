"""The app: its widget without a browser, and the whole of it at a phone's width."""

import io
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest.mock import Mock

import app
import nibabel
import numpy as np
import pages
import pytest
import requests
import serve
from browser import external_requests, read_logs
from PIL import Image
from samples import make_prediction
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from selenium_axe_python import Axe

from braintumor.core.errors import DatasetError
from braintumor.data import prepared as prepared_module
from braintumor.inference import report
from braintumor.inference.formats import InputImage, read_image
from braintumor.inference.predictor import load_held_out_folds

SLICE = np.add.outer(np.arange(40), np.arange(48)).astype(np.uint8)


class Page(app.App):
    """The widget without a browser; a message is handled before `message` returns."""

    send = Mock()

    def __init__(self, data):
        super().__init__(str(data))
        self.message(kind="open")

    def message(self, *buffers, **content):
        self._on_message(self, content, list(buffers))
        self._executor.submit(str).result()

    def upload(self, name, content):
        size = len(content)
        for start in range(0, size, 1000):
            part = content[start : start + 1000]
            self.message(part, kind="file", name=name, start=start, size=size)


@pytest.fixture
def predictor(monkeypatch):
    """A fake that makes predictions without networks."""
    fake = Mock(predict=Mock(side_effect=make_prediction))
    monkeypatch.setattr(app, "load_predictor", lambda fold: fake)
    return fake


@pytest.fixture
def page(phantom_folder, predictor, tmp_path_factory, monkeypatch):
    root = tmp_path_factory.getbasetemp() / "app-project"  # of the prepared set
    monkeypatch.setattr(prepared_module, "ROOT", root)
    return Page(phantom_folder)


def encode_image(pixels):
    Image.fromarray(pixels).save(file := io.BytesIO(), "PNG")
    return file.getvalue()


def test_upload_is_read_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    image = app.read_upload("../../etc/<b>.png", encode_image(SLICE))
    assert image.name == "../../etc/<b>.png"
    assert (image.pixels == SLICE).all()
    with pytest.raises(DatasetError, match=r"^letter\.png: ") as caught:
        app.read_upload("letter.png", b"Dear doctor")
    assert str(tmp_path) not in str(caught.value)
    monkeypatch.setattr(app, "MAX_UPLOAD_MB", 0)
    with pytest.raises(DatasetError, match=r"mine\.png"):
        app.read_upload("mine.png", encode_image(SLICE))
    assert not list(tmp_path.iterdir())


def test_gallery_filters_slices_and_has_pages(prepared):
    def shown_files(*filters, **place):
        html = pages.render_gallery(prepared, *filters, **place)
        return [int(file) for file in re.findall(r'data-file="(\d+)"', html)]

    index, row = prepared.index, prepared.index.iloc[-1]
    same = index.query("pid == @row.pid and plane == @row.plane")["file"]
    assert shown_files(str(row.label), row.pid, row.plane) == same.tolist()
    assert not shown_files(plane="oblique")
    of_class = index.query("label == 1")["file"].head(pages.N_THUMBNAILS)
    of_other_class = index.query("label != 1")["pid"].iloc[0]
    assert shown_files("1", of_other_class) == of_class.tolist()
    assert shown_files(start=10**6)[-1] == row.file


def test_outline_surrounds_a_mask_and_its_hole():
    mask = np.zeros((8, 10), bool)
    mask[:5, :6] = True  # touches the edge of the image
    mask[2, 2] = False
    path = pages.trace_outline(mask)
    points = np.array(re.findall(r"([-\d.]+) ([-\d.]+)", path), float)
    assert path.count("M") == 2
    assert [*points.min(axis=0), *points.max(axis=0)] == [0, 0, 6, 5]


def test_prediction_follows_its_warnings_and_is_compared_with_the_truth():
    image = InputImage("<script>", SLICE, warnings=("it is a color image",))
    prediction = make_prediction(image)
    assert app.describe_status(prediction).startswith("Unreliable prediction")
    html = pages.render_prediction(prediction)
    assert html.index("It is a color image") < html.index("Predicted class")
    assert "<script>" not in html and "True class" not in html
    image = InputImage("known", SLICE, label=1, mask=prediction.mask)
    html = pages.render_prediction(make_prediction(image), note="A note.")
    for text in ("A note.", "70.0%", "True class: <strong>meningioma", "mask: 1.00"):
        assert text in html


def test_patient_of_the_training_data_gets_the_held_out_network():
    pid, fold = next(iter(load_held_out_folds().items()))
    assert app.select_fold(InputImage("known", SLICE, patient=pid)) == fold
    assert app.select_fold(InputImage("other", SLICE)) is None


def test_volume_starts_in_the_middle_and_has_a_selector(page):
    voxels = np.repeat(SLICE[..., None], 9, axis=2).astype(np.int16)
    voxels[..., 0] = 0  # the first slice is black
    volume = nibabel.Nifti1Image(voxels, np.diag([1, 1, 5, 1]))
    page.upload("v.nii", volume.to_bytes())
    assert "v.nii, slice 5" in page.prediction
    assert 'max="9"' in page.selector
    page.message(kind="slice", number=1)
    assert page.error.startswith("v.nii")
    page.message(kind="slice", number=7)
    assert "v.nii, slice 7" in page.prediction
    assert not page.error
    page.message(kind="thumbnail", file=3)  # of the dataset
    for text in ("<h2>Slice 3</h2>", "True border", pages.PHANTOM_NOTE):
        assert text in page.prediction
    assert "glioma, 70.0%" in page.status
    assert not page.busy and not page.selector


def test_only_the_last_of_several_requests_is_predicted(page, predictor):
    content = encode_image(SLICE)
    page.message(content[:9], kind="file", name="first", start=0, size=len(content))
    page.upload("second", content)

    def request_three():
        for file in (1, 2, 3):
            page._on_message(page, {"kind": "thumbnail", "file": file}, [])

    page._executor.submit(request_three).result()
    page.message(kind="browse", start=0)
    names = [call.args[0].name for call in predictor.predict.call_args_list]
    assert names == ["second", "Slice 3"]


def test_error_removes_the_prediction_and_the_app_goes_on(page):
    page.upload("letter.png", b"Dear doctor")
    assert page.error.startswith("letter.png") and not page.prediction
    page.message(kind="report")  # there is none
    assert "Unexpected" in page.error
    page.upload("good.png", encode_image(SLICE))
    assert "good.png" in page.prediction and (page.error, page.busy) == ("", False)
    page.message(kind="report")
    content, (html,) = page.send.call_args.args
    assert content == {"kind": "report", "name": "good.png.html"}
    assert report.NOTICE in html.decode()


def test_missing_data_and_networks_are_reported(tmp_path, predictor, monkeypatch):
    page = Page(tmp_path / "none")
    assert "none" in page.error
    page.upload("mine.png", encode_image(SLICE))
    assert "mine.png" in page.prediction
    monkeypatch.setattr(app, "load_predictor", lambda fold: read_image("fold-1"))
    page = Page(tmp_path / "none")
    assert "fold-1" in page.error and not page.busy


def test_other_sites_link_to_the_app_but_do_not_embed_it():
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}
    serve.refuse_embedding(Mock(**{"request.headers": headers}))
    headers["Sec-Fetch-Dest"] = "iframe"
    with pytest.raises(serve.HTTPError, match="403"):
        serve.refuse_embedding(Mock(**{"request.headers": headers}))


# In the browser


@pytest.fixture(scope="module")
def address(phantom_folder, chromium):
    """The app as `make app` starts it, ended as by Ctrl-C."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = [Path(sys.executable).with_name("braintumor"), "app", "--port", port]
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
            cache = prepared_module.cache_dir(phantom_folder, app.THUMBNAIL_SIZE)
            shutil.rmtree(cache.parent)


@pytest.fixture(scope="module")
def window(address, chromium, tmp_path_factory):
    """The app at 390 pixels, with its networks loaded."""
    with chromium(390) as browser:
        browser.downloads = tmp_path_factory.mktemp("downloads")
        settings = {"behavior": "allow", "downloadPath": str(browser.downloads)}
        browser.execute_cdp_cmd("Browser.setDownloadBehavior", settings)
        browser.set_page_load_timeout(300)
        browser.get(address)
        wait_for_text(browser, "body", report.NOTICE)
        wait_for_text(browser, "#status", app.READY)
        yield browser


def wait(browser, condition):
    return WebDriverWait(browser, 300, 0.1).until(lambda _: condition())


def wait_for_text(browser, selector, text):
    script = "return document.querySelector(arguments[0])?.innerText ?? ''"
    wait(browser, lambda: text in browser.execute_script(script, selector))


def upload(browser, path, expected):
    """Upload a file and wait for a text on the page."""
    browser.find_element("id", "file").send_keys(str(path))
    wait_for_text(browser, ".braintumor", expected)


@pytest.mark.browser
def test_bad_files_give_an_error_or_a_warning_and_the_app_goes_on(window, tmp_path):
    large_mb = app.MAX_UPLOAD_MB + 1
    with (tmp_path / "large.nii").open("wb") as file:
        file.truncate(large_mb * 10**6)
    upload(window, tmp_path / "large.nii", f"large.nii: got {large_mb} MB")
    colors = np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8)
    (tmp_path / "photo.png").write_bytes(encode_image(colors))
    upload(window, tmp_path / "photo.png", "It is a color image")


@pytest.mark.browser
def test_volume_of_several_messages_is_predicted_and_its_report_saved(window, tmp_path):
    voxels = np.random.default_rng(0).integers(0, 900, (200, 200, 151), np.int16)
    volume = nibabel.Nifti1Image(voxels, np.diag([1, 1, 5, 1]))  # 12 MB
    volume.to_filename(tmp_path / "volume.nii")
    upload(window, tmp_path / "volume.nii", "volume.nii, slice 76:")
    window.find_element("id", "number").send_keys(Keys.ARROW_RIGHT)
    wait_for_text(window, "#status", "volume.nii, slice 77:")
    window.execute_script("document.querySelector('#report').click()")
    saved = window.downloads / "volume.nii, slice 77.html"
    wait(window, saved.exists)
    assert report.NOTICE in saved.read_text(encoding="utf-8")


@pytest.mark.browser
def test_keyboard_is_enough(window):
    def press(*keys):
        """Press keys; return what has the focus then."""
        ActionChains(window).send_keys(*keys).perform()
        focus = "document.activeElement"  # in one call: the app replaces elements
        return window.execute_script(f"return {focus}.id || {focus}.dataset.file")

    window.execute_script("document.querySelector('#file').focus()")
    assert any(press(Keys.TAB) == "label" for _ in range(10))
    press("g")
    first = ".thumbnail:first-child img[alt*=glioma]"
    wait(window, lambda: window.find_elements("css selector", first))
    assert press() == "label"  # although the gallery was replaced
    file = press(Keys.TAB, Keys.TAB, Keys.TAB)
    press(Keys.ENTER)
    wait_for_text(window, "#status", f"Slice {file}:")
    mask, border = window.find_elements("css selector", "path.mask, path.true")
    window.find_element("id", "opacity").send_keys(Keys.HOME)
    assert float(mask.value_of_css_property("fill-opacity")) == 0
    assert border.value_of_css_property("visibility") == "visible"
    window.find_element("id", "true").send_keys(Keys.SPACE)
    assert border.value_of_css_property("visibility") == "hidden"


@pytest.mark.browser
def test_page_fits_a_phone_and_is_accessible_and_its_notice_stays_visible(window):
    notice = window.find_element("css selector", ".braintumor .notice")
    window.execute_script("scrollTo(0, document.body.scrollHeight / 2)")
    top = "return arguments[0].getBoundingClientRect().top"
    wait(window, lambda: window.execute_script(top, notice) == 0)
    width = "return document.scrollingElement.scrollWidth"
    assert window.execute_script(width) <= 390
    axe = Axe(window)
    axe.inject()
    # Voila's page around the app has landmarks that only best-practice rules report
    options = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
    results = axe.run("document", options)
    assert results["passes"] and not results["violations"]


@pytest.mark.browser
def test_only_the_page_is_served_and_closing_it_ends_its_kernel(window, address):
    for path in ("voila/files/app.ipynb", "voila/files/../README.md", "app.ipynb"):
        assert requests.get(address + path).status_code == 403
    other_host = requests.get(address, headers={"Host": "other.example"})
    assert other_host.status_code == 403
    config = "JSON.parse(document.querySelector('#jupyter-config-data').textContent)"
    kernel = window.execute_script(f"return {config}.kernelId")
    urls, errors = read_logs(window)
    assert urls and not external_requests(urls) and not errors
    url = f"{address}api/kernels/{kernel}"
    assert requests.get(url).status_code == 200
    window.get("about:blank")
    wait(window, lambda: requests.get(url).status_code == 404)
