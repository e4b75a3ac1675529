"""Chromium without a screen, and what it asked for: shared by tests and by `make site-check`."""

import json
import shutil
from contextlib import contextmanager
from urllib.parse import urlsplit

from selenium import webdriver

OWN = ("data", "blob", "chrome")  # addresses that ask nobody
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NO_BROWSER = f"no browser: expected chromedriver and one of {', '.join(BROWSERS)}"


def programs():
    """Chromium and its driver: the path of each, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None), shutil.which("chromedriver")


@contextmanager
def window(width, folder):
    """A window of Chromium without a screen, with `folder` for what it remembers."""
    binary, driver = programs()
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
        f"user-data-dir={folder}",
        "window-size=1280,900",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        resize(browser, width)
        browser.set_script_timeout(300)  # axe, on a busy machine
        browser.get("about:blank")
        browser.get_log("performance")  # the browser's own start page
        yield browser
    finally:
        browser.quit()


def resize(browser, width):
    """A window has a least width, so the page's width is set as a telephone's would be."""
    given = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", given)


def heard(browser):
    """What a browser asked for (addresses), and the errors on its console, since this was last called."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return requests, [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def foreign(requests):
    """Those of the addresses that are another host's."""
    return [url for url in requests if urlsplit(url).scheme not in OWN and urlsplit(url).hostname != "127.0.0.1"]
