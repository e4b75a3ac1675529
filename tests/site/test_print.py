"""The printed book: links lead to their own page's place, sheets are numbered through, nothing is cut off or hidden."""

import io

from print_book import print_site
from pypdf import PdfReader
from site_check import serve

PAGE = """<!doctype html><html lang="en"><head><title>{title}</title></head><body>
<nav class="bd-sidebar-primary"><div class="bd-links">
<a class="reference internal" href="/book/one.html">One</a> <a class="reference internal" href="/book/two.html">Two</a>
</div></nav>
<article class="bd-article">{first}<p><a href="#summary">below</a> <a href="/book/two.html#summary">elsewhere</a>
<a href="/some.ipynb">a file</a></p>{table}<div style="break-before: page"></div>
<section id="summary"><h2>Summary<a class="headerlink" href="#summary">#</a></h2></section></article></body></html>"""
ALL_PAGES = """<style>a[data-sheet]::after {content: attr(data-sheet)}</style>
<div class="toctree-wrapper"><a href="/book/one.html">sheet</a><a href="/book/two.html">sheet</a></div>
<details><summary>Show the code</summary>code</details><details><summary>Solution</summary>solved</details>"""
TABLE = f"<div><table><tr>{'<td>somewhat wide</td>' * 12}<td>last</td></tr></table></div>"


def test_links_outline_and_numbers_of_the_printed_book(chromium, tmp_path):
    (tmp_path / "book").mkdir()
    for name in ("index", "one", "two"):
        table = TABLE.replace("<td>", '<td style="white-space: nowrap">')
        text = PAGE.format(title=name, table=table, first=ALL_PAGES if name == "index" else "")
        (tmp_path / f"book/{name}.html").write_text(text)
    with serve(tmp_path) as address, chromium(1280) as browser:
        writer = print_site(browser, address)
    writer.write(printed := io.BytesIO())
    book = PdfReader(printed)
    assert len(book.pages) == 6
    first = book.pages[0].extract_text()
    assert "sheet3" in first and "sheet5" in first
    assert "code" in first and "Show the code" not in first and "Solution" in first and "solved" in first
    numbers = {sheet.indirect_reference.idnum: number for number, sheet in enumerate(book.pages)}
    for number, sheet in enumerate(book.pages):
        text = sheet.extract_text().split()
        assert text[0].startswith(str(number + 1)) and ("last" in text) == (number % 2 == 0)
        links = [one.get_object() for one in sheet.get("/Annots", [])]
        leads = [numbers[link["/Dest"][0].idnum] for link in links if "/Dest" in link]
        own = number - number % 2 + 1  # where this page's summary is
        assert len(leads) == len(links) and set(leads) <= {0, 2, 4, own, 5} and own in leads
    outline = [item for item in book.outline if not isinstance(item, list)]
    assert [book.get_destination_page_number(item) for item in outline] == [0, 2, 4]
    parts = [item[0] for item in book.outline if isinstance(item, list)]
    assert [(item.title, book.get_destination_page_number(item)) for item in parts] == [
        ("Summary", n) for n in (1, 3, 5)
    ]
