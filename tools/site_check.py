"""Check every page of the built book in Chromium and print a table of checks.

`make site-check`; exits with 1 on a fault. Each page is opened at the width of a
desktop and of a phone. On the desktop axe-core checks accessibility in the light and
the dark theme, with everything that folds unfolded.
"""

import functools
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
from site_links import check_html

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
return {
  width: document.scrollingElement.scrollWidth,
  rendered: document.querySelectorAll('mjx-container').length,
  formulas: document.querySelectorAll('.math').length,
  mathErrors: errors.map(node => node.dataset.mjxError),
  images: [...document.images].map(image => ({
    source: image.src, alt: image.getAttribute('alt'),
    loaded: !image.complete || image.naturalWidth > 0,
  })),
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

# Returns {rule: [number of elements that pass, [faults]]}.
AXE = """
const [theme, options, done] = arguments;
document.documentElement.dataset.theme = theme;
const describe = (rule, node) => {
  const checks = node.any.concat(node.all, node.none);
  const reasons = checks.map(check => check.message).join('; ');
  return `${rule.id}: ${node.target.join(' ')} (${reasons})`;
};
axe.run(document, options).then(results => {
  const rules = {};
  for (const rule of results.passes) rules[rule.id] = [rule.nodes.length, []];
  for (const rule of results.violations) {
    const passed = (rules[rule.id] || [0])[0];
    rules[rule.id] = [passed, rule.nodes.map(node => describe(rule, node))];
  }
  done(rules);
});
"""
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
        """Whether a check found a fault, or had nothing to check."""
        return any(self.faults[name] or not self.counts[name] for name in CHECKS)

    def format_table(self):
        """Return the lines of a table, then the first faults of each check."""
        width = max(map(len, CHECKS))
        lines = [f"{'check':{width}}  {'checked':>9}  {'faults':>6}"]
        for name in CHECKS:
            count, n_faults = self.counts[name], len(self.faults[name])
            lines.append(f"{name:{width}}  {count:9,}  {n_faults:6,}")
        for name in CHECKS:
            faults = self.faults[name]
            if faults:
                lines += [f"\n{name}:", *(f"  {fault}" for fault in faults[:N_LISTED])]
            if len(faults) > N_LISTED:
                lines.append(f"  and {len(faults) - N_LISTED:,} more")
        return lines


def check_site(site, open_window):
    """Run all checks on a site; `open_window(width)` opens a browser."""
    report = Report()
    files = [path.relative_to(site) for path in site.rglob("*.html")]
    pages = sorted(path.as_posix() for path in files if "_static" not in path.parts)
    check_html(site, pages, report)
    visits = [(page, width) for width in (DESKTOP, PHONE) for page in pages]

    def measure_pages(share):
        with open_window(DESKTOP) as browser:
            return [
                (page, width, measure_page(browser, f"{address}/{page}", width))
                for page, width in share
            ]

    with serve(site) as address, ThreadPoolExecutor(N_BROWSERS) as threads:
        shares = [visits[start::N_BROWSERS] for start in range(N_BROWSERS)]
        for measured in threads.map(measure_pages, shares):
            for page, width, measurement in measured:
                check_page(site, page, width, measurement, report)
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
        Axe(browser).inject()
        run_axe = functools.partial(browser.execute_async_script, AXE)
        measurement["light"] = run_axe("light", AXE_OPTIONS)
        measurement["dark"] = run_axe("dark", AXE_CONTRAST)
        read_logs(browser)  # axe loads the style sheets again: drop its requests
    return measurement


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
    weight = page_weight(site, measurement["requests"])
    is_heavy = weight > MAX_PAGE_BYTES
    add("page weight under 2 MB", 1, [f"{weight / 1e6:.1f} MB"] * is_heavy)
    checks = dict.fromkeys(HEADING_RULES, "heading order")
    checks["color-contrast"] = "contrast AA, light theme"
    for rule, (n_passed, faults) in measurement["light"].items():
        check = checks.get(rule, "names, labels, landmarks")
        add(check, n_passed + len(faults), faults)
    for n_passed, faults in measurement["dark"].values():
        add("contrast AA, dark theme", n_passed + len(faults), faults)


def is_alt_text(alt):
    """Whether an alt text is more than a file name, MyST-NB's default."""
    alt = (alt or "").strip()
    return bool(alt) and not re.fullmatch(r"\S+\.(png|svg|jpe?g)", alt)


def page_weight(site, requests):
    """Bytes of the files a page loads, without _static: all pages share that."""
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
        found = wait_for_script(browser, script)
        report.add("search returns pages", 1, [] if found else [f"{word}: no page"])


def wait_for_script(browser, script):
    """Return the first true value of a script, or None after a minute."""
    try:
        return WebDriverWait(browser, 60).until(
            lambda _: browser.execute_script(script)
        )
    except TimeoutException:
        return None


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
