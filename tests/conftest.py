"""What several test files share: a small phantom, drawn and prepared once, TensorFlow set up as in a run, a browser."""

import json
import shutil
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from braintumor.dataset import prepare
from braintumor.phantom import write_phantom

OWN = ("data", "blob", "chrome")  # addresses that ask nobody
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def phantom_folder(tmp_path_factory):
    """15 drawn patients at 64 px (a few slices at 32), in figshare's layout; tests only read it."""
    return write_phantom(tmp_path_factory.mktemp("phantom") / "set", patients=15, size=64, progress=False)


@pytest.fixture(scope="session")
def prepared(phantom_folder, tmp_path_factory):
    """The phantom, prepared at its own size."""
    return prepare(phantom_folder, tmp_path_factory.mktemp("prepared") / "64", 64, workers=1, progress=False)


@pytest.fixture(scope="session")
def deterministic():
    """Two threads and deterministic kernels; TensorFlow takes the threads only before its first operation."""
    from braintumor import training

    training.start(seed=0, threads=2)


@pytest.fixture
def only_pages(monkeypatch):
    """only_pages(paths): a run makes these pages and what they need, not those of committed results, which take
    minutes.
    """
    from braintumor import execution

    def narrow(pages):
        targets, call = [page.relative_to(execution.ROOT) for page in pages], execution._call
        monkeypatch.setattr(execution, "_call", lambda command: call([*command[:3], *targets, *command[3:]]))

    return narrow


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """Opens a window of some width without a screen: `with chromium(390) as browser`; skips where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if not (binary and driver):
        pytest.skip(f"no browser: expected chromedriver and one of {', '.join(BROWSERS)}")

    @contextmanager
    def window(width):
        options = webdriver.ChromeOptions()
        options.binary_location = binary
        for flag in (
            "headless=new",
            "no-sandbox",
            "disable-gpu",
            "disable-dev-shm-usage",
            "disable-quic",
            "no-first-run",
            "disable-background-networking",
            "disable-component-update",
            "disable-sync",
            f"user-data-dir={tmp_path_factory.mktemp('browser')}",
            "window-size=1280,900",
        ):
            options.add_argument(f"--{flag}")
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        try:
            # a window has a least width, so the page's width is set as a telephone's would be
            browser.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
            )
            browser.set_script_timeout(20)
            browser.get("about:blank")
            browser.get_log("performance")  # the browser's own start page
            yield browser
        finally:
            browser.quit()

    return window


def heard(browser):
    """What a browser asked for (addresses), and the errors on its console, since this was last called."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return requests, [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def foreign(requests):
    """Those of the addresses that are another host's."""
    return [url for url in requests if urlsplit(url).scheme not in OWN and urlsplit(url).hostname != "127.0.0.1"]
