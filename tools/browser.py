"""Headless Chromium and its log, for browser tests, the site check and the PDF."""

import json
import shutil
from contextlib import contextmanager
from urllib.parse import urlsplit

from selenium import webdriver

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NO_BROWSER = f"no browser: expected chromedriver and one of {', '.join(BROWSERS)}"
LOCAL_SCHEMES = ("data", "blob", "chrome")
FLAGS = "headless=new no-sandbox disable-gpu disable-dev-shm-usage disable-quic"
FLAGS += " no-first-run disable-background-networking disable-component-update"


def programs():
    """Find Chromium and its driver: the path of each, or None."""
    browsers = [path for path in map(shutil.which, BROWSERS) if path]
    return browsers[0] if browsers else None, shutil.which("chromedriver")


@contextmanager
def window(width, profile_dir):
    """Open a headless window of a width in pixels, with a profile of its own."""
    binary, driver = programs()
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS.split(), f"user-data-dir={profile_dir}"):
        options.add_argument(f"--{flag}")
    logs = {"performance": "ALL", "browser": "ALL"}
    options.set_capability("goog:loggingPrefs", logs)
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        resize(browser, width)
        browser.set_script_timeout(300)  # axe, on a busy machine
        browser.get("about:blank")
        browser.get_log("performance")  # drop the requests of the start page
        yield browser
    finally:
        browser.quit()


def resize(browser, width):
    """Emulate a device width: a real window cannot be as narrow as a phone."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1}
    metrics["mobile"] = width < 600
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def read_logs(browser):
    """Return the requested URLs and the console errors since the last call."""
    requests = []
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            requests.append(message["params"]["request"]["url"])
    console = browser.get_log("browser")
    return requests, [e["message"] for e in console if e["level"] == "SEVERE"]


def external_requests(requests):
    """Select the URLs of other hosts."""
    urls = [urlsplit(url) for url in requests]
    urls = [url for url in urls if url.scheme not in LOCAL_SCHEMES]
    return [url.geturl() for url in urls if url.hostname != "127.0.0.1"]
