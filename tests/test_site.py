"""The built book in a browser: no other host, no console error, readable on a telephone, no dead link."""

import functools
import threading
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from conftest import foreign, heard

SITE = (Path(__file__).parents[1] / "_build" / "html").resolve()
METHOD = "book/method.html"

pytestmark = pytest.mark.skipif(not (SITE / "index.html").exists(), reason="the book is not built: run make book first")


def pages():
    return sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html") if "_static" not in path.parts)


# In the browser


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address():
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=SITE)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module", params=[1280, 390], ids=lambda width: f"{width}px")
def visit(request, address, chromium):
    """Every page opened once at one width: (width, {page: what the browser saw})."""
    with chromium(request.param) as browser:
        yield request.param, {page: look(browser, f"{address}/{page}") for page in pages()}


def look(browser, url):
    browser.get(url)
    browser.execute_async_script(
        "const done = arguments[0];"
        "const math = window.MathJax && MathJax.startup ? MathJax.startup.promise : Promise.resolve();"
        "math.then(() => requestAnimationFrame(() => done()));"
    )
    seen = browser.execute_script(
        "const page = document.scrollingElement;"
        "return {scroll: page.scrollWidth, client: page.clientWidth,"
        " math: document.querySelectorAll('mjx-container').length,"
        " asked: document.querySelectorAll('.math').length,"
        " faults: [...document.querySelectorAll('[data-mjx-error]')].map(e => e.dataset.mjxError),"
        " broken: [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)}"
    )
    requests, console = heard(browser)
    return seen | {"requests": requests, "console": console}


def found(visit, fault):
    """{page: fault(what was seen there)} of the pages where there is one."""
    return {page: bad for page, seen in visit[1].items() if (bad := fault(seen))}


def test_no_request_leaves_for_another_host(visit):
    assert all(seen["requests"] for seen in visit[1].values())
    assert not found(visit, lambda seen: foreign(seen["requests"]))


def test_console_shows_no_error(visit):
    assert not found(visit, lambda seen: seen["console"])


def test_no_page_is_wider_than_the_window(visit):
    assert not found(visit, lambda seen: seen["scroll"] > visit[0] + 2 and f"{seen['scroll']} px")


def test_images_are_shown(visit):
    assert not found(visit, lambda seen: seen["broken"])


def test_formulas_are_drawn(visit):
    assert visit[1][METHOD]["math"] >= 5
    assert not found(visit, lambda seen: seen["faults"] or seen["math"] < seen["asked"])


# In the files


class Links(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.ids, self.links = set(), set()
        self.feed((SITE / page).read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("id", "name") and value:
                self.ids.add(value)
            elif name in ("href", "src") and value:
                self.links.add(value)


def test_internal_links_lead_somewhere():
    parsed = {page: Links(page) for page in pages()}
    dead = []
    for page, content in parsed.items():
        for link in content.links:
            url = urlsplit(link)
            if url.scheme or url.netloc:
                continue
            target = (SITE / page).parent / unquote(url.path) if url.path else SITE / page
            target = target.resolve()
            name = target.relative_to(SITE).as_posix() if target.is_relative_to(SITE) else None
            if name is None or not target.exists():
                dead.append(f"{page}: {link}")
            elif url.fragment and name in parsed and unquote(url.fragment) not in parsed[name].ids:
                dead.append(f"{page}: {link} (no such place on the page)")
    assert not dead


def test_pages_load_nothing_from_another_host():
    """What a page would load by itself: scripts, styles, images and frames; links a reader clicks may lead away."""

    class Loads(HTMLParser):
        def handle_starttag(self, tag, attributes):
            given = dict(attributes)
            loads = given.get("src") or (given.get("href") if tag == "link" else None) or ""
            if given.get("rel") not in ("canonical", "author", "license") and urlsplit(loads).netloc:
                outside.append(f"{page}: {loads}")

    outside = []
    for page in pages():
        Loads().feed((SITE / page).read_text(encoding="utf-8"))
    assert not outside


def test_every_picture_has_words_for_those_who_do_not_see_it_and_every_figure_a_caption():
    class Pictures(HTMLParser):
        def handle_starttag(self, tag, attributes):
            given = dict(attributes)
            if tag == "img" and not (given.get("alt") or "").strip():
                silent.append(f"{page}: {(given.get('src') or '')[:60]}")
            counts[tag] = counts.get(tag, 0) + 1

    silent, bare = [], []
    for page in pages():
        counts = {}
        Pictures().feed((SITE / page).read_text(encoding="utf-8"))
        if counts.get("figure", 0) != counts.get("figcaption", 0):
            bare.append(page)
    assert not silent and not bare
