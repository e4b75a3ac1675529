"""Print the built book, page after page in the order of its contents, to _build/brain-tumors.pdf (`make pdf`).

Chromium prints; everything that folds, such as answers to questions, is unfolded first. A link from page to page leads
to the place in the PDF. The site gets a copy, and its first page a link to it.
"""

import base64
import io
import shutil
import tempfile
from urllib.parse import urlsplit

from browser import window
from pypdf import PdfWriter
from pypdf.generic import ArrayObject, NameObject
from site_check import DESK, READY, SITE, UNFOLD, serve, stop_without_book_or_browser

PDF = SITE.parent / "brain-tumors.pdf"
HERE = "<!-- here a link to the PDF -->"  # in the first page's source
LINK = f'<p class="whole-book"><a href="../{PDF.name}">The whole book as PDF</a></p>'
CONTENTS = """
return [...document.querySelectorAll('.bd-sidebar-primary .bd-links a.reference.internal')].map(
  one => [new URL(one.href).pathname.slice(1), one.textContent.trim()]);
"""
FOOT = """<div style="width: 100%; margin: 0 16mm; font: 7pt sans-serif; color: #555; display: flex;
justify-content: space-between"><span class="title"></span><span class="pageNumber"></span></div>"""
PAPER = {
    "paperWidth": 8.27,
    "paperHeight": 11.69,
    "marginTop": 0.6,
    "marginBottom": 0.7,
    "marginLeft": 0.65,
    "marginRight": 0.65,
    "printBackground": True,
    "displayHeaderFooter": True,
    "headerTemplate": "<span></span>",
    "footerTemplate": FOOT,
}


def print_site(browser, address):
    """The book that is served there as a PdfWriter, with an outline."""
    browser.get(f"{address}/book/index.html")
    contents = dict(browser.execute_script(CONTENTS))
    contents = {"book/index.html": "First page"} | contents
    writer, starts = PdfWriter(), {}
    for page, title in contents.items():
        browser.get(f"{address}/{page}")
        browser.execute_script(UNFOLD)
        # images below the window would be left out
        browser.execute_script("document.querySelectorAll('img').forEach(one => { one.loading = 'eager'; })")
        browser.execute_async_script(READY)
        starts[page] = len(writer.pages)
        printed = browser.execute_cdp_cmd("Page.printToPDF", PAPER)["data"]
        writer.append(io.BytesIO(base64.b64decode(printed)), outline_item=title)
    lead_inside(writer, address, starts)
    writer.add_metadata({"/Title": "Brain tumors on MRI slices", "/Author": "The braintumor maintainers"})
    writer.compress_identical_objects()  # each page brings its own copy of the fonts
    return writer


def lead_inside(writer, address, starts):
    """Links to pages of the site lead to where these start; links to its other files, which a PDF lacks, go."""
    for page in writer.pages:
        for link in (one.get_object() for one in page.get("/Annots", [])):
            target = link.get("/A", {}).get("/URI", "")
            if target.startswith(address):
                del link["/A"]
                if (path := urlsplit(target).path[1:]) in starts:
                    place = writer.pages[starts[path]].indirect_reference
                    link[NameObject("/Dest")] = ArrayObject([place, NameObject("/Fit")])


def main():
    stop_without_book_or_browser()
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        serve(SITE) as address,
        window(DESK, folder) as browser,
    ):
        writer = print_site(browser, address)
    writer.write(PDF)
    shutil.copy(PDF, SITE)
    first = SITE / "book/index.html"
    first.write_text(first.read_text(encoding="utf-8").replace(HERE, LINK), encoding="utf-8")
    print(f"{PDF}: {len(writer.pages)} pages, {PDF.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
