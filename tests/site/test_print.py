"""The printed book: links inside, numbered sheets, nothing cut off or hidden."""

import io

import pytest
from print_book import print_site
from pypdf import PdfReader
from site_check import serve

pytestmark = pytest.mark.browser

PAGE = """<!doctype html><html lang="en"><head><title>{title}</title></head><body>
<nav class="bd-sidebar-primary"><div class="bd-links">
<a class="reference internal" href="/book/one.html">One</a>
<a class="reference internal" href="/book/two.html">Two</a>
</div></nav>
<article class="bd-article">{first}<p><a href="#summary">below</a>
<a href="/book/two.html#summary">elsewhere</a> <a href="/some.ipynb">a file</a></p>
<div><table><tr>{cells}<td>last</td></tr></table></div>
<div style="break-before: page"></div>
<section id="summary"><h2>Summary<a class="headerlink" href="#summary">#</a></h2>
</section></article></body></html>"""
CELLS = '<td style="white-space: nowrap">somewhat wide</td>' * 12
FIRST = """<style>a[data-sheet]::after {content: attr(data-sheet)}</style>
<div class="toctree-wrapper"><a href="/book/one.html">sheet</a>
<a href="/book/two.html">sheet</a></div>
<details><summary>Show the code</summary>code</details>
<details><summary>Solution</summary>solved</details>"""


@pytest.fixture(scope="module")
def book(chromium, tmp_path_factory):
    """Three pages of two sheets each, printed."""
    site = tmp_path_factory.mktemp("site")
    (site / "book").mkdir()
    for name in ("index", "one", "two"):
        first = FIRST if name == "index" else ""
        text = PAGE.format(title=name, cells=CELLS, first=first)
        (site / f"book/{name}.html").write_text(text)
    with serve(site) as address, chromium(1280) as browser:
        writer = print_site(browser, address)
    writer.write(printed := io.BytesIO())
    return PdfReader(printed)


def test_sheets_are_numbered_complete_and_unfolded(book):
    assert len(book.pages) == 6
    for number, sheet in enumerate(book.pages):
        words = sheet.extract_text().split()
        assert words[0].startswith(str(number + 1))
        assert ("last" in words) == (number % 2 == 0)
    text = book.pages[0].extract_text()
    assert all(word in text for word in ("sheet3", "sheet5", "code", "solved"))
    assert "Show the code" not in text


def test_links_and_outline_lead_inside(book):
    sheets = {page.indirect_reference.idnum: n for n, page in enumerate(book.pages)}
    for number, sheet in enumerate(book.pages):
        links = [link.get_object() for link in sheet.get("/Annots", [])]
        targets = {sheets[link["/Dest"][0].idnum] for link in links}
        summary = number - number % 2 + 1  # of this page, not of another
        assert summary in targets and targets <= {0, 2, 4, 5, summary}
    number = book.get_destination_page_number
    pages = [item for item in book.outline if not isinstance(item, list)]
    assert [number(item) for item in pages] == [0, 2, 4]
    sections = [item[0] for item in book.outline if isinstance(item, list)]
    assert [number(item) for item in sections] == [1, 3, 5]
    assert {item.title for item in sections} == {"Summary"}
