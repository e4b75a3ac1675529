"""The built book, looked at page by page in Chromium: prints a table of the checks, what each looked at, its faults.

`make site-check`; exits 1 on a fault. Each page is opened at the width of a desk and of a telephone, and read by axe
(the checks of accessibility behind Lighthouse) in the light and the dark theme, with everything that folds unfolded.
"""

import functools
import re
import sys
import tempfile
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from browser import NO_BROWSER, foreign, heard, programs, resize, window
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.support.ui import WebDriverWait
from selenium_axe_python import Axe

SITE = (Path(__file__).parents[1] / "_build" / "html").resolve()
DESK, TELEPHONE = 1280, 390  # pixels
HEAVIEST = 2_000_000  # bytes of a page with all that it loads
WORDS = ("meningioma", "dice", "patients")  # that a reader would search for
SHOWN = 5  # faults of a check that are listed
BROWSERS_AT_ONCE = 2

HEADINGS = ("heading-order", "page-has-heading-one", "empty-heading")
CHECKS = (
    "no request to another host",
    "nothing named that another host would send",
    "no error on the console",
    "links inside lead somewhere",
    "images are there",
    "formulas are drawn",
    "no wider than the window",
    "headings in order",
    "contrast AA, light",
    "contrast AA, dark",
    "alt text",
    "names, labels, landmarks",
    "under 2 MB beside what all pages share",
    "search finds",
)

# after MathJax: the page as a reader sees it
READY = """
const done = arguments[0];
const math = window.MathJax && MathJax.startup ? MathJax.startup.promise : Promise.resolve();
math.then(() => requestAnimationFrame(() => done()));
"""

LOOK = """
const page = document.scrollingElement;
return {
  wide: page.scrollWidth,
  drawn: document.querySelectorAll('mjx-container').length,
  formulas: document.querySelectorAll('.math').length,
  wrong: [...document.querySelectorAll('[data-mjx-error]')].map(one => one.dataset.mjxError),
  images: [...document.images].map(one => ({
    source: one.src, alt: one.getAttribute('alt'), there: !one.complete || one.naturalWidth > 0,
  })),
};
"""

UNFOLD = """
document.querySelectorAll('details').forEach(one => { one.open = true; });
document.querySelectorAll('.toggle-hidden').forEach(one => one.classList.remove('toggle-hidden'));
const still = '<style>*, ::before, ::after { animation: none !important; transition: none !important }</style>';
document.head.insertAdjacentHTML('beforeend', still);
"""

# {rule: [elements that pass, [where it fails]]}
AXE = """
const [theme, run, done] = arguments;
document.documentElement.dataset.theme = theme;
axe.run(document, run).then(found => {
  const rules = {};
  for (const rule of found.passes) rules[rule.id] = [rule.nodes.length, []];
  for (const rule of found.violations) {
    const faults = rule.nodes.map(one => `${rule.id}: ${one.target.join(' ')} (${one.any.concat(one.all, one.none)
      .map(why => why.message).join('; ')})`);
    rules[rule.id] = [(rules[rule.id] || [0])[0], faults];
  }
  done(rules);
});
"""
RULES = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"],
    "rules": {name: {"enabled": True} for name in HEADINGS},
}
CONTRAST = {"runOnly": {"type": "rule", "values": ["color-contrast"]}}


def pages(site):
    return sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html") if "_static" not in path.parts)


def check(site, make_window):
    """{check: (things looked at, faults)} of all CHECKS; `make_window(width)` opens a browser."""
    looked, faults = defaultdict(int), defaultdict(list)

    def note(name, count, bad):
        looked[name] += count
        faults[name] += bad

    named = pages(site)
    check_files(site, named, note)
    with serve(site) as address, ThreadPoolExecutor(BROWSERS_AT_ONCE) as threads:

        def visit(some):
            with make_window(DESK) as browser:
                return [(page, width, look(browser, address, page, width)) for width, page in some]

        every = [(width, page) for width in (DESK, TELEPHONE) for page in named]
        shares = [every[start::BROWSERS_AT_ONCE] for start in range(BROWSERS_AT_ONCE)]
        for page, width, seen in (one for share in threads.map(visit, shares) for one in share):
            judge(site, page, width, seen, note)
        with make_window(DESK) as browser:
            check_search(browser, address, note)
    return {name: (looked[name], faults[name]) for name in CHECKS}


# In the browser


def look(browser, address, page, width):
    """What a browser sees on a page of some width."""
    resize(browser, width)
    browser.get(f"{address}/{page}")
    browser.execute_async_script(READY)
    seen = browser.execute_script(LOOK)
    requests, console = heard(browser)
    seen |= {"requests": requests, "console": console}
    if width == DESK:  # what axe reads is the same on a telephone
        browser.execute_script(UNFOLD)
        Axe(browser).inject()
        seen["light"] = browser.execute_async_script(AXE, "light", RULES)
        seen["dark"] = browser.execute_async_script(AXE, "dark", CONTRAST)
        heard(browser)  # axe loads styles once more: that is not the page's doing
    return seen


def judge(site, page, width, seen, note):
    """Count what was seen on a page, and name what is wrong with it."""

    def on_page(faults):
        return [f"{page} at {width} px: {fault}" for fault in faults]

    note("no request to another host", len(seen["requests"]), on_page(foreign(seen["requests"])))
    note("no error on the console", 1, on_page(seen["console"]))
    note("images are there", len(seen["images"]), on_page(one["source"] for one in seen["images"] if not one["there"]))
    missing = seen["formulas"] - seen["drawn"]
    note("formulas are drawn", seen["formulas"], on_page(seen["wrong"] + [f"{missing} missing"] * (missing > 0)))
    note("no wider than the window", 1, on_page([f"{seen['wide']} px wide"] * (seen["wide"] > width + 2)))
    if width != DESK:
        return
    note("alt text", len(seen["images"]), on_page(one["source"] for one in seen["images"] if not told(one["alt"])))
    # data: is in the page itself; what lies in _static (style, icons, MathJax) is loaded once for all pages
    own = [url.path for url in map(urlsplit, seen["requests"]) if url.scheme == "http" and "/_static/" not in url.path]
    weight = sum(length(site, path) for path in set(own))
    note("under 2 MB beside what all pages share", 1, on_page([f"{weight / 1e6:.1f} MB"] * (weight > HEAVIEST)))
    for rule, (passed, failed) in seen["light"].items():
        name = "headings in order" if rule in HEADINGS else "names, labels, landmarks"
        name = "contrast AA, light" if rule == "color-contrast" else name
        note(name, passed + len(failed), on_page(failed))
    for passed, failed in seen["dark"].values():
        note("contrast AA, dark", passed + len(failed), on_page(failed))


def told(alt):
    """Whether an alt text tells something: without one, MyST-NB gives a figure the path of its file."""
    return bool(alt and alt.strip()) and not re.fullmatch(r"\S+\.(png|svg|jpe?g)", alt.strip())


def length(site, path):
    """Bytes of what was asked for at a path; the server has no other than the site's files."""
    file = site / unquote(path).lstrip("/")
    return file.stat().st_size if file.is_file() else 0


def check_search(browser, address, note):
    for word in WORDS:
        browser.get(f"{address}/search.html")
        field = next(one for one in browser.find_elements("css selector", "input[name=q]") if one.is_displayed())
        field.send_keys(word + "\n")
        there = "document.querySelectorAll('#search-results ul.search li a').length"
        found = wait(browser, f"return location.search.includes('q={word}') && {there}")
        note("search finds", 1, [] if found else [f"{word}: nothing found"])


def wait(browser, script):
    try:
        return WebDriverWait(browser, 60).until(lambda _: browser.execute_script(script))
    except TimeoutException:
        return None


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextmanager
def serve(site):
    """The address at which a folder is served."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


# In the files


class Named(HTMLParser):
    """What a page names: places on it, links, and what it would load by itself."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loads = set(), set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = {name: value for name, value in attributes if value}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        self.links |= {given[name] for name in ("href", "src") if name in given}
        # links that a reader clicks may lead away
        if "src" in given or (tag == "link" and given.get("rel") not in ("canonical", "author", "license")):
            self.loads.add(given.get("src") or given.get("href", ""))


def check_files(site, named, note):
    parsed = {page: Named((site / page).read_text(encoding="utf-8")) for page in named}
    for page, content in parsed.items():
        outside = [f"{page}: {link}" for link in content.loads if urlsplit(link).netloc]
        note("nothing named that another host would send", len(content.loads), outside)
        inside = [link for link in content.links if not (urlsplit(link).scheme or urlsplit(link).netloc)]
        dead = [f"{page}: {link}" for link in inside if not leads(site, page, link, parsed)]
        note("links inside lead somewhere", len(inside), dead)


def leads(site, page, link, parsed):
    url = urlsplit(link)
    target = ((site / page).parent / unquote(url.path) if url.path else site / page).resolve()
    if not (target.is_relative_to(site) and target.exists()):
        return False
    name = target.relative_to(site).as_posix()
    return not url.fragment or name not in parsed or unquote(url.fragment) in parsed[name].ids


# The table


def table(results):
    """The lines of a table of what `check` found, and the first faults of each check below."""
    wide = max(map(len, CHECKS))
    lines = [f"{'check':{wide}}  {'looked at':>9}  {'faults':>6}"]
    lines += [f"{name:{wide}}  {looked:9,}  {len(faults):6,}" for name, (looked, faults) in results.items()]
    for name, (_, faults) in results.items():
        lines += [f"\n{name}:"] * bool(faults) + [f"  {fault}" for fault in faults[:SHOWN]]
        lines += [f"  and {len(faults) - SHOWN:,} more"] * (len(faults) > SHOWN)
    return lines


def stop_without_book_or_browser():
    if not (SITE / "index.html").exists():
        sys.exit("The book is not built: run make book first.")
    if not all(programs()):
        sys.exit(NO_BROWSER)


def main():
    stop_without_book_or_browser()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        results = check(SITE, lambda width: window(width, tempfile.mkdtemp(dir=folder)))
    print(*table(results), sep="\n")
    if any(faults or not looked for looked, faults in results.values()):  # to look at nothing is to find nothing
        sys.exit(1)


if __name__ == "__main__":
    main()
