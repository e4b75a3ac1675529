"""The page that predicts in the browser: the same predictions as Python's."""

import io
import json
import shutil
from functools import cache
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest
import try_page
from browser import external_requests, read_logs
from PIL import Image
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from site_check import MAX_PAGE_BYTES, serve
from sphinx.errors import ConfigError

from braintumor.core.files import ROOT
from braintumor.evaluation.masks import compute_dice
from braintumor.inference.formats import read_image
from braintumor.inference.predictor import Predictor, find_networks
from braintumor.inference.report import NOTICE, encode_png, to_dict

NETWORKS = find_networks(fold=1)[::2]  # of two encoders and sizes
N_SLICES = 10
N_BUILT_IN = 4
PAGE = """<!doctype html><html lang="en"><head><title>Try it</title>
<meta charset="utf-8"><meta name="viewport" content="width=device-width">
<link rel="stylesheet" href="../_static/try/try.css">{scripts}</head>
<body><main><h1>Try it</h1>{controls}</main></body></html>"""
SCRIPT = '<script defer src="../_static/try/{}"></script>'
PREDICTION = """
const result = document.getElementById("try").prediction;
const join = (values) => Array.from(values).join(",");
return result && {...result, mask: join(result.mask), gradcam: join(result.gradcam)};
"""
DROP = """
const dataTransfer = new DataTransfer();
dataTransfer.items.add(new File(["a text"], "dropped.txt"));
document.dispatchEvent(new DragEvent("drop", {dataTransfer, cancelable: true}));
"""
TEXT = "return document.querySelector(`#try ${arguments[0]}`)?.innerText ?? ''"


@pytest.fixture(scope="module")
def folder(prepared, tmp_path_factory):
    """Ten phantom slices as files: PNG, JPEG, 16 bits, wide, tall, colored."""
    folder = tmp_path_factory.mktemp("slices")
    rows = np.linspace(0, len(prepared.images) - 1, N_SLICES).astype(int)
    images = [Image.fromarray(prepared.images[row]) for row in rows]
    for n, image in enumerate(images[:N_BUILT_IN]):
        image.save(folder / f"{n + 1}.png")
    images[4].resize((300, 300)).save(folder / "5.jpg", quality=95)
    deep = np.asarray(images[5].resize((270, 270)), np.uint16) * 11
    Image.fromarray(deep).save(folder / "6.png")
    images[6].resize((320, 320)).crop((0, 20, 320, 290)).save(folder / "7.png")
    images[7].resize((520, 520)).crop((30, 0, 480, 520)).save(folder / "8.png")
    color = np.asarray(images[8].convert("RGB")) * np.float32([1, 0.8, 0.7])
    Image.fromarray(color.astype(np.uint8)).save(folder / "9.png")
    images[9].convert("LA").save(folder / "10.png")
    return folder


@pytest.fixture(scope="module")
def site(folder, tmp_path_factory):
    """The page alone, with two networks."""
    site = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "book/_static/try", site / "_static/try")
    paths = [folder / f"{n + 1}.png" for n in range(N_BUILT_IN)]
    sources = [encode_png(np.asarray(Image.open(path))) for path in paths]
    slices = [{"source": s, "alt": "a slice", "label": "glioma"} for s in sources]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(try_page, "find_networks", lambda: NETWORKS)
        try_page.pack_all(site / "_static/try")
        controls = try_page.render_controls(slices)
    scripts = "".join(map(SCRIPT.format, try_page.SCRIPTS))
    (site / "book").mkdir()
    html = PAGE.format(scripts=scripts, controls=controls)
    (site / "book/try.html").write_text(html)
    (site / "favicon.ico").touch()  # browsers request it
    return site


@pytest.fixture(scope="module")
def address(site):
    with serve(site) as address:
        yield f"{address}/book/try.html"


@pytest.fixture(scope="module")
def browser(chromium):
    with chromium(390) as browser:
        yield browser


def choose(browser, path):
    browser.find_element("css selector", "#try [name=file]").send_keys(str(path))


def press(browser, button="#try button"):
    """Press the button; returns the prediction, the status and the error message."""
    browser.execute_script("delete document.getElementById('try').prediction")
    browser.find_element("css selector", button).send_keys(Keys.ENTER)
    is_idle = "return document.getElementById('try').ariaBusy === 'false'"
    WebDriverWait(browser, 60, 0.05).until(lambda _: browser.execute_script(is_idle))
    texts = [browser.execute_script(TEXT, f"[role={r}]") for r in ("status", "alert")]
    return browser.execute_script(PREDICTION), *texts


@cache
def load_predictor(networks):
    return Predictor(networks)


def assert_same(result, path, networks):
    """Compare the page's prediction of a file with Python's."""
    expected = load_predictor(networks).predict(read_image(path))
    probabilities = np.array(result["probabilities"])
    assert result["label"] + 1 == expected.label
    assert np.abs(probabilities - expected.probabilities).max() < 1e-3
    mask, gradcam = (
        np.fromstring(result[name], sep=",").reshape(expected.mask.shape)
        for name in ("mask", "gradcam")
    )
    assert compute_dice(expected.mask, mask == 1) > 0.98
    assert np.abs(gradcam - expected.gradcam).max() < 0.02
    scores = [*expected.ood_scores.values()]
    assert result["oodScores"] == pytest.approx(scores, rel=0.02, abs=0.01)
    assert result["warnings"] == expected.warnings
    record = to_dict(expected)
    assert result["networks"] == record["networks"]
    expected = record["probability_std"], record["mask_agreement"] or 1
    values = result["probabilityStd"], result["maskAgreement"]
    assert values == pytest.approx(expected, abs=0.005)


@pytest.mark.browser
def test_predicts_as_python_from_a_file_offline(request, browser, site, folder):
    browser.set_network_conditions(offline=True, latency=0, throughput=0)
    request.addfinalizer(browser.delete_network_conditions)
    browser.get((site / "book/try.html").as_uri())
    paths = sorted(folder.iterdir(), key=lambda path: int(path.stem))
    assert len(paths) == N_SLICES
    for n, path in enumerate(paths):
        if n < N_BUILT_IN:
            slices = browser.find_elements("css selector", "#try .slices img")
            slices[n].click()
        else:
            choose(browser, path)
        result, status, error = press(browser)
        assert not error and "rediction for" in status
        assert_same(result, path, NETWORKS[:1])
    requests, console = read_logs(browser)
    assert console == []
    assert all(url.startswith((site.as_uri(), "data:", "blob:")) for url in requests)


@pytest.mark.browser
def test_loads_when_the_button_is_pressed_and_predicts_by_all(
    browser, site, folder, address
):
    browser.get(address)
    requests, _ = read_logs(browser)
    paths = [urlsplit(url).path for url in requests if url.startswith("http")]
    assert sum((site / path[1:]).stat().st_size for path in paths) < MAX_PAGE_BYTES
    assert not any("runtime" in url or "without" in url for url in requests)
    assert NOTICE in browser.find_element("css selector", "#try .notice").text
    # by keyboard alone: another slice, the ensemble, and Enter
    first = browser.find_element("css selector", "#try [name=image]")
    first.send_keys(Keys.ARROW_RIGHT)
    one = browser.find_element("css selector", "#try [name=networks]")
    one.send_keys(Keys.ARROW_DOWN)
    result, *_ = press(browser, "#try [name=networks][value=all]")
    assert_same(result, folder / "2.png", NETWORKS)
    requests, console = read_logs(browser)
    assert any("runtime.js" in url for url in requests)
    assert external_requests(requests) == console == []
    assert "mean of 2" in browser.execute_script(TEXT, ".facts")


def encode(width, height, contrast=1, kind="PNG"):
    """Encode an image of diagonal stripes, or of the value 7."""
    stripes = np.add.outer(np.arange(height), np.arange(width)) % 200
    image = Image.fromarray((contrast * stripes + 7).astype(np.uint8))
    image.save(buffer := io.BytesIO(), format=kind)
    return buffer.getvalue()


BAD_FILES = {
    "got another format, expected a PNG or JPEG": b"a text",
    "got an empty file": b"",
    "got 20 × 15, expected 16 to 4096": encode(15, 20),
    "got 16 × 4097, expected 16 to 4096": encode(4097, 16),
    "got 20 × 5000, expected 16 to 4096": encode(5000, 20, kind="JPEG"),
    "got 7 in every pixel": encode(20, 20, contrast=0),
    "got a truncated file, expected a whole": encode(40, 40)[:-30],
    "JPEG file: got a truncated": encode(40, 40, kind="JPEG")[:-30],
    "cannot be decoded": encode(40, 40)[:60] + bytes(9) + encode(40, 40)[69:],
}


@pytest.mark.browser
def test_bad_files_and_old_browser_are_error_messages(browser, address, tmp_path):
    browser.get(address)
    for message, content in BAD_FILES.items():
        (tmp_path / "bad.png").write_bytes(content)
        choose(browser, tmp_path / "bad.png")
        prediction, status, error = press(browser)
        assert prediction is None and status == "No prediction."
        assert error.startswith("bad.png: ") and message in error
    browser.execute_script(DROP)
    assert press(browser)[2].startswith("dropped.txt: File: got another format")
    browser.refresh()
    browser.execute_script("document.querySelector('[value=file]').click()")
    assert "got none, expected one PNG or JPEG" in press(browser)[2]
    browser.execute_script("delete window.DecompressionStream")
    assert "expected Chrome 80" in press(browser)[2]


def write_fold(folder, seed, **record):
    folder.mkdir(parents=True)
    record["parameters"] = {"fold": 2, "seed": seed}
    (folder / "run.json").write_text(json.dumps(record))
    table = pd.DataFrame({"file": [1, 2], "pid": ["A", "B"], "fold": 2, "y_true": 1})
    table = table.assign(prob_meningioma=0.8, prob_glioma=0.1, prob_pituitary=0.1)
    table.assign(dice=seed / 10).to_csv(folder / "predictions.csv", index=False)


def test_scores_are_those_of_the_network(tmp_path, monkeypatch):
    monkeypatch.setattr(try_page, "ROOT", tmp_path)
    run = tmp_path / try_page.PUBLISHED
    for task in ("classify", "segment"):
        write_fold(run / task / "fold-2", 1, networks=[])  # of the ensemble
        for seed in (1, 2):
            write_fold(run / f"seed-{seed}" / task / "fold-2", seed)
    network = try_page.score_network("without-2_seed2")
    assert (network["fold"], network["n_slices"], network["n_patients"]) == (2, 2, 2)
    assert network["scores"]["mean Dice"]["value"] == "0.200"
    with pytest.raises(ConfigError, match="without-1"):
        try_page.score_network("without-1")
