"""Check the links and resources that the HTML of a site names, without a browser."""

from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

LINKS_ONLY = ("canonical", "author", "license")  # rel of <link>s that load nothing


class Page(HTMLParser):
    """Anchors, links and loaded resources of an HTML page."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links, self.resources = set(), set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = {name: value for name, value in attrs if value}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        self.links |= {values[name] for name in ("href", "src") if name in values}
        if "src" in values:
            self.resources.add(values["src"])
        elif tag == "link" and values.get("rel") not in LINKS_ONLY:
            self.resources.add(values.get("href", ""))


def check_html(site, names, report):
    """Add the faults of all pages of a site to a report."""
    pages = {name: Page((site / name).read_text("utf-8")) for name in names}
    for name, page in pages.items():
        external = [link for link in page.resources if urlsplit(link).netloc]
        faults = [f"{name}: {link}" for link in external]
        report.add("no external resources in the HTML", len(page.resources), faults)
        links = [link for link in page.links if is_internal(link)]
        dead = [link for link in links if not resolves(site, name, link, pages)]
        faults = [f"{name}: {link}" for link in dead]
        report.add("internal links resolve", len(links), faults)


def is_internal(link):
    url = urlsplit(link)
    return not (url.scheme or url.netloc)


def resolves(site, page, link, pages):
    """Whether an internal link of a page leads to a file and, on it, to an anchor."""
    url = urlsplit(link)
    path = (site / page).parent / unquote(url.path) if url.path else site / page
    path = path.resolve()
    if not (path.is_relative_to(site) and path.exists()):
        return False
    name = path.relative_to(site).as_posix()
    if not url.fragment or name not in pages:
        return True
    return unquote(url.fragment) in pages[name].anchors
