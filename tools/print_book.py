"""Print the built book to _build/brain-tumors.pdf (`make pdf`, needs Chromium).

Pages come in the order of the table of contents, without folded code, with everything
else unfolded and wide tables scaled to the paper. Links between pages lead to the place
in the PDF, sheets are numbered through, and the list of all pages on the first page
shows the numbers. The site gets a copy of the PDF and a link to it.
"""

import base64
import io
import shutil
import tempfile
from urllib.parse import unquote, urlsplit

from browser import resize, window
from pypdf import PdfReader, PdfWriter
from pypdf.generic import ArrayObject, Fit, NameObject, NullObject, NumberObject
from site_check import DESKTOP, READY, SITE, UNFOLD, require_book_and_browser, serve

TITLE = "Brain tumors on MRI slices"
FIRST = "book/index.html"
PDF = SITE.parent / "brain-tumors.pdf"
PLACEHOLDER = "<!-- here a link to the PDF -->"  # in the source of the first page
LINK = f'<p class="whole-book"><a href="../{PDF.name}">The whole book as PDF</a></p>'
CONTENTS = """
const links = document.querySelectorAll(
  '.bd-sidebar-primary .bd-links a.reference.internal');
return [...links].map(
  link => [new URL(link.href).pathname.slice(1), link.textContent.trim()]);
"""
# Chromium would shrink a page with a wide table, and still cut the table off. It leaves
# out images that are loaded lazily. CSS cannot count the lines of code that must stay
# on one sheet. Folded code stays away; "Show code cell output" is no news on paper.
PREPARE = """
const select = selector => document.querySelectorAll(selector);
select('.bd-article table').forEach(table => {
  const width = table.parentElement.clientWidth;
  if (table.scrollWidth > width) table.style.zoom = width / table.scrollWidth;
  else table.classList.add('fits');
});
select('.bd-article div[class*="highlight-"]').forEach(code => {
  if (code.innerText.trim().split('\\n').length <= 6) code.classList.add('short');
});
select('details.above-input').forEach(code => code.remove());
select('summary').forEach(summary => {
  if (summary.textContent.trim().startsWith('Show')) summary.style.display = 'none';
});
"""
LOAD_IMAGES = "document.querySelectorAll('img').forEach(i => { i.loading = 'eager'; })"
# Arguments: {page: sheet}, sheets before this page, text of the footer.
NUMBER = """
document.querySelectorAll('.toctree-wrapper a').forEach(link => {
  link.dataset.sheet = arguments[0][new URL(link.href).pathname.slice(1)] ?? '';
});
const style = document.head.appendChild(document.createElement('style'));
style.textContent = `html { counter-reset: page ${arguments[1]} }
@page {
  font: 7pt sans-serif; color: #555;
  @bottom-left { content: ${JSON.stringify(arguments[2])} }
  @bottom-right { content: counter(page) }
}`;
"""
SECTIONS = """
return [...document.querySelectorAll('.bd-article h2')].map(heading =>
  [heading.closest('section').id, heading.firstChild.textContent.trim()]);
"""
MARGINS = {"marginTop": 0.6, "marginBottom": 0.7, "marginLeft": 0.65}  # inches
PAPER = MARGINS | {"marginRight": 0.65, "paperWidth": 8.27, "paperHeight": 11.69}
PAPER["printBackground"] = True
TEXT_WIDTH = PAPER["paperWidth"] - PAPER["marginLeft"] - PAPER["marginRight"]


def print_site(browser, address):
    """Print the book served at an address: a PdfWriter with an outline."""
    browser.get(f"{address}/{FIRST}")
    contents = {FIRST: TITLE} | dict(browser.execute_script(CONTENTS))
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    resize(browser, round(96 * TEXT_WIDTH))
    starts, sections, printed, end = {}, {}, {}, 0
    for page in [*contents, FIRST]:  # again, now that the numbers in its list are known
        starts.setdefault(page, end)
        footer = TITLE if page == FIRST else f"{contents[page]} — {TITLE}"
        printed[page] = print_page(browser, f"{address}/{page}", page, starts, footer)
        sections[page] = browser.execute_script(SECTIONS)
        end = starts[page] + len(printed[page].pages)
    return join_pages(contents, starts, sections, printed, address)


def print_page(browser, url, page, starts, footer):
    """Print one page: a PdfReader."""
    browser.get(url)
    for script in (UNFOLD, LOAD_IMAGES):
        browser.execute_script(script)
    browser.execute_async_script(READY)
    browser.execute_script(PREPARE)
    numbers = {name: start + 1 for name, start in starts.items()}
    browser.execute_script(NUMBER, numbers, starts[page], footer)
    pdf = browser.execute_cdp_cmd("Page.printToPDF", PAPER)["data"]
    return PdfReader(io.BytesIO(base64.b64decode(pdf)))


def join_pages(contents, starts, sections, printed, address):
    """Join printed pages into one PdfWriter with an outline and links inside."""
    writer, places = PdfWriter(), {}  # {(page, anchor): (sheet, top)}
    for page, title in contents.items():
        start = starts[page]
        places[page, ""] = (start, None)
        for anchor, (sheet, top) in resolve_anchors(printed[page]).items():
            places[page, anchor] = (start + sheet, top)
        writer.append(printed[page], import_outline=False)
        item = writer.add_outline_item(title=title, page_number=start, is_open=False)
        for anchor, section in sections[page]:
            if (page, anchor) in places:
                sheet, top = places[page, anchor]
                options = {"parent": item, "fit": Fit.xyz(top=top)}
                writer.add_outline_item(title=section, page_number=sheet, **options)
    resolve_links(writer, address, places)
    writer.add_metadata({"/Title": TITLE, "/Author": "The braintumor maintainers"})
    writer.compress_identical_objects()  # each page brings a copy of the fonts
    return writer


def annotations(sheet):
    return [(item, item.get_object()) for item in sheet.get("/Annots", [])]


def resolve_anchors(printed):
    """Return {anchor: (sheet, top)} of a printed page, and resolve links to them.

    An anchor such as "summary" is on many pages, but a PDF has one place of a name.
    """
    places = {}
    for name, place in printed.named_destinations.items():
        sheet = printed.get_destination_page_number(place)
        places[unquote(name.removeprefix("/"))] = (sheet, place.top)
    for sheet in printed.pages:
        for _, link in annotations(sheet):
            place = places.get(unquote(str(link.get("/Dest")).removeprefix("/")))
            if place:
                link[NameObject("/Dest")] = make_destination(printed, *place)
    printed.root_object.pop("/Dests", None)
    return places


def make_destination(pdf, sheet, top):
    """Return the target of a link: a place on a sheet of a PdfReader or PdfWriter."""
    top = NullObject() if top is None else NumberObject(round(top))
    page = pdf.pages[sheet].indirect_reference
    return ArrayObject([page, NameObject("/XYZ"), NullObject(), top, NullObject()])


def resolve_links(writer, address, places):
    """Turn links to pages of the site into links inside the PDF.

    Links to other files of the site are dropped: the PDF lacks them.
    """
    for sheet in writer.pages:
        kept = ArrayObject()
        for reference, link in annotations(sheet):
            uri = link.get("/A", {}).get("/URI", "")
            if uri.startswith(address):
                url = urlsplit(uri)
                page, anchor = url.path[1:], unquote(url.fragment)
                place = places.get((page, anchor)) or places.get((page, ""))
                if not place:
                    continue
                del link["/A"]
                link[NameObject("/Dest")] = make_destination(writer, *place)
            kept.append(reference)
        if "/Annots" in sheet:
            sheet[NameObject("/Annots")] = kept


def main():
    require_book_and_browser()
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        serve(SITE) as address,
        window(DESKTOP, folder) as browser,
    ):
        writer = print_site(browser, address)
    writer.write(PDF)
    shutil.copy(PDF, SITE)
    first = SITE / FIRST
    first.write_text(first.read_text("utf-8").replace(PLACEHOLDER, LINK), "utf-8")
    print(f"{PDF}: {len(writer.pages)} pages, {PDF.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
