"""Check every page of the built book in Chromium and print a table of checks.

`make site-check`; exits with 1 on a fault. Each page is opened at the width of a
desktop and of a phone. On the desktop axe-core checks accessibility in the light and
the dark theme, with everything that folds unfolded.
"""

import functools
import json
import re
import sys
import tempfile
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from browser import NO_BROWSER, external_requests, programs, read_logs, resize, window
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.support.ui import WebDriverWait
from selenium_axe_python import Axe

SITE = (Path(__file__).parents[1] / "_build" / "html").resolve()
DESKTOP, PHONE = 1280, 390  # pixels
MAX_PAGE_BYTES = 2_000_000  # a page with all that it loads, beside shared files
SEARCH_WORDS = ("meningioma", "dice", "patients")
N_LISTED = 5  # faults listed per check
N_BROWSERS = 2

HEADING_RULES = ("heading-order", "page-has-heading-one", "empty-heading")
CHECKS = (
    "no external requests",
    "no external resources in the HTML",
    "no console errors",
    "internal links resolve",
    "images load",
    "formulas render",
    "no horizontal overflow",
    "heading order",
    "contrast AA, light theme",
    "contrast AA, dark theme",
    "alt text",
    "names, labels, landmarks",
    "page weight under 2 MB",
    "search returns pages",
    "no private words",
)
# Words of the first edition for which the field has standard terms.
PRIVATE_WORDS = re.compile(
    r"""\b(?:
    ask(?:s|ed|ing)?\ (?:a|the|each|all)\ (?:\w+\ )?networks?
    |(?:network|classifier|U-Net)s?\ (?:answer|say)s?
    |(?:named|called)\ (?:rightly|right|wrongly|wrong)
    |(?:name|call)(?:s|ed)?\ (?:a|the)\ tumors?
    |(?:tumor|glioma|mask|slice|patient|split|sample|seed)s?\ (?:is|are|was|were)\ drawn
    |drawn\ (?:at\ random|with\ replacement|well|worse|badly|anew)
    |dr(?:aw|aws|ew|awing)\ (?:patients|slices|samples|a\ (?:mask|sample|split))
    |look(?:s|ed|ing)?\ at\ (?:a|the|each)\ test
    |foreign\ (?:image|slice|scan)s? |strangers? |doubts?
    |surer |surest |surely |surety |(?:how|less|more|most|very)\ sure
    |luck |lucky |luckiest |by\ heart
    |cuts?\ (?:a|the)\ (?:\w+\ )?map |cut\ at\ (?:one\ )?half |heat\ ?maps?
    |measured\ by\ hand |(?:kept|keeps?)\ apart |on\ (?:both|two)\ sides
    |less\ (?:the\ )?baseline's |in\ a\ sentence |in\ words
    |study\ of\ 2021
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)

# Resolves when MathJax has rendered the page.
READY = """
const done = arguments[0];
const math = window.MathJax && MathJax.startup
  ? MathJax.startup.promise : Promise.resolve();
math.then(() => requestAnimationFrame(() => done()));
"""

MEASURE = """
const errors = [...document.querySelectorAll('[data-mjx-error]')];
const prose = document.querySelector('main').cloneNode(true);
prose.querySelectorAll('pre, code, script, style').forEach(node => node.remove());
return {
  prose: prose.textContent,
  width: document.scrollingElement.scrollWidth,
  rendered: document.querySelectorAll('mjx-container').length,
  formulas: document.querySelectorAll('.math').length,
  mathErrors: errors.map(node => node.dataset.mjxError),
  images: [...document.images].map(image => ({
    source: image.src, alt: image.getAttribute('alt'),
    loaded: !image.complete || image.naturalWidth > 0,
  })),
  anchors: [...document.querySelectorAll('[id]')].map(node => node.id),
  links: [...document.links].map(link => link.href),
  resources: [...document.querySelectorAll('[src], link:not([rel=canonical])')].map(
    node => node.src || node.href).filter(Boolean),
};
"""

UNFOLD = """
document.querySelectorAll('details').forEach(node => { node.open = true; });
document.querySelectorAll('.toggle-hidden').forEach(
  node => node.classList.remove('toggle-hidden'));
const style = document.head.appendChild(document.createElement('style'));
style.textContent = `*, ::before, ::after {
  animation: none !important; transition: none !important }`;
"""

THEME = "document.documentElement.dataset.theme = arguments[0]"
AXE_OPTIONS = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"],
    "rules": {name: {"enabled": True} for name in HEADING_RULES},
}
AXE_CONTRAST = {"runOnly": {"type": "rule", "values": ["color-contrast"]}}


class Report:
    """Number of checked items and faults per check."""

    def __init__(self):
        self.counts, self.faults = defaultdict(int), defaultdict(list)

    def add(self, check, count, faults):
        self.counts[check] += count
        self.faults[check] += faults

    def has_failed(self):
        """Return whether a check found a fault, or had nothing to check."""
        return any(self.faults[name] or not self.counts[name] for name in CHECKS)

    def format_table(self):
        """Return the lines of a table, then the first faults of each check."""
        width = max(map(len, CHECKS))
        lines = [f"{'check':{width}}  {'checked':>9}  {'faults':>6}"]
        for name in CHECKS:
            count, n_faults = self.counts[name], len(self.faults[name])
            lines.append(f"{name:{width}}  {count:9,}  {n_faults:6,}")
        for name in filter(self.faults.get, CHECKS):
            lines += [f"\n{name}:", *self.faults[name][:N_LISTED]]
        return lines


def check_site(site, open_window):
    """Run all checks on a site; `open_window(width)` opens a browser."""
    report = Report()
    files = [path.relative_to(site) for path in site.rglob("*.html")]
    pages = sorted(path.as_posix() for path in files if "_static" not in path.parts)
    visits = [(page, width) for width in (DESKTOP, PHONE) for page in pages]

    def measure_pages(share):
        with open_window(DESKTOP) as browser:
            return [
                (page, width, measure_page(browser, f"{address}/{page}", width))
                for page, width in share
            ]

    with serve(site) as address, ThreadPoolExecutor(N_BROWSERS) as threads:
        shares = [visits[start::N_BROWSERS] for start in range(N_BROWSERS)]
        measured = sum(threads.map(measure_pages, shares), [])
        for page, width, measurement in measured:
            check_page(site, page, width, measurement, report)
        desktop = {page: values for page, width, values in measured if width == DESKTOP}
        check_links(site, address, desktop, report)
        with open_window(DESKTOP) as browser:
            check_search(browser, address, report)
    return report


def measure_page(browser, url, width):
    """Return a dict of what a browser measures on a page of some width."""
    resize(browser, width)
    browser.get(url)
    browser.execute_async_script(READY)
    measurement = browser.execute_script(MEASURE)
    measurement["requests"], measurement["console"] = read_logs(browser)
    if width == DESKTOP:  # axe finds the same on a phone
        browser.execute_script(UNFOLD)
        axe = Axe(browser)
        axe.inject()
        for theme, options in (("light", AXE_OPTIONS), ("dark", AXE_CONTRAST)):
            browser.execute_script(THEME, theme)
            measurement[theme] = run_axe(axe, options)
        read_logs(browser)  # axe loads the style sheets again: drop its requests
    return measurement


def run_axe(axe, options):
    """Return [(rule, number of its elements that pass or fail, faults)]."""
    results = axe.run("document", json.dumps(options))
    rows = [(rule["id"], len(rule["nodes"]), []) for rule in results["passes"]]
    for rule in results["violations"]:
        faults = [f"{n['target']}: {n['failureSummary']}" for n in rule["nodes"]]
        rows.append((rule["id"], len(faults), faults))
    return rows


def check_page(site, page, width, measurement, report):
    """Add the checks that every page gets, at both widths."""

    def add(check, count, faults):
        located = [f"{page} at {width} px: {fault}" for fault in faults]
        report.add(check, count, located)

    requests, images = measurement["requests"], measurement["images"]
    add("no external requests", len(requests), external_requests(requests))
    add("no console errors", 1, measurement["console"])
    broken = [image["source"] for image in images if not image["loaded"]]
    add("images load", len(images), broken)
    n_missing = measurement["formulas"] - measurement["rendered"]
    faults = [f"{n_missing} not rendered"] if n_missing > 0 else []
    add("formulas render", measurement["formulas"], measurement["mathErrors"] + faults)
    is_wide = measurement["width"] > width + 2
    add("no horizontal overflow", 1, [f"{measurement['width']} px"] * is_wide)
    if width == DESKTOP:
        check_desktop(site, measurement, add)


def check_desktop(site, measurement, add):
    """Add the checks that do not depend on the width."""
    images = measurement["images"]
    unnamed = [image["source"] for image in images if not is_alt_text(image["alt"])]
    add("alt text", len(images), unnamed)
    words = PRIVATE_WORDS.findall(" ".join(measurement["prose"].split()))
    add("no private words", 1, words)
    weight = page_weight(site, measurement["requests"])
    is_heavy = weight > MAX_PAGE_BYTES
    add("page weight under 2 MB", 1, [f"{weight / 1e6:.1f} MB"] * is_heavy)
    checks = dict.fromkeys(HEADING_RULES, "heading order")
    checks["color-contrast"] = "contrast AA, light theme"
    for rule, count, faults in measurement["light"]:
        add(checks.get(rule, "names, labels, landmarks"), count, faults)
    for _, count, faults in measurement["dark"]:
        add("contrast AA, dark theme", count, faults)


def check_links(site, address, pages, report):
    """Check links and resources of all pages {name: measurement}."""
    for name, page in pages.items():
        resources, dead = page["resources"], []
        faults = [f"{name}: {url}" for url in external_requests(resources)]
        report.add("no external resources in the HTML", len(resources), faults)
        links = [url for url in resources + page["links"] if url.startswith(address)]
        for link in links:
            url = urlsplit(link)
            path, anchor = unquote(url.path).lstrip("/"), unquote(url.fragment)
            has_anchor = path not in pages or anchor in ["", *pages[path]["anchors"]]
            if not ((site / path).exists() and has_anchor):
                dead.append(f"{name}: {link}")
        report.add("internal links resolve", len(links), dead)


def is_alt_text(alt):
    """Return whether an alt text is more than a file name, MyST-NB's default."""
    alt = (alt or "").strip()
    return bool(alt) and not re.fullmatch(r"\S+\.(png|svg|jpe?g)", alt)


def page_weight(site, requests):
    """Sum the bytes of a page's files, without _static, which all pages share."""
    urls = [urlsplit(url) for url in requests]
    paths = {unquote(url.path) for url in urls if url.scheme == "http"}
    files = [site / path.lstrip("/") for path in paths if "/_static/" not in path]
    return sum(path.stat().st_size for path in files if path.is_file())


def check_search(browser, address, report):
    for word in SEARCH_WORDS:
        browser.get(f"{address}/search.html")
        fields = browser.find_elements("css selector", "input[name=q]")
        visible = [field for field in fields if field.is_displayed()]
        visible[0].send_keys(word + "\n")
        script = f"""return location.search.includes('q={word}') &&
          document.querySelectorAll('#search-results ul.search li a').length"""
        try:
            WebDriverWait(browser, 60).until(
                lambda _, s=script: browser.execute_script(s)
            )
            faults = []
        except TimeoutException:
            faults = [f"{word}: no page"]
        report.add("search returns pages", 1, faults)


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextmanager
def serve(site):
    """Serve a folder on localhost; yields the address."""
    handler = functools.partial(QuietHandler, directory=site)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def require_book_and_browser():
    if not (SITE / "index.html").exists():
        sys.exit(f"{SITE}: no book. Run make book first.")
    if not all(programs()):
        sys.exit(NO_BROWSER)


def main():
    require_book_and_browser()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        report = check_site(
            SITE, lambda width: window(width, tempfile.mkdtemp(dir=folder))
        )
    print(*report.format_table(), sep="\n")
    sys.exit(1 if report.has_failed() else 0)


if __name__ == "__main__":
    main()
