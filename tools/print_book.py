"""Print the built book, page after page in the order of its contents, to _build/brain-tumors.pdf (`make pdf`).

Chromium prints; everything that folds, such as answers to questions, is unfolded first, and a table wider than the
paper is made smaller. Links, within a page and from page to page, lead to the place in the PDF, sheets are numbered
through, and the list of all pages names the sheet that each begins on. The site gets a copy, and its first page a link
to it.
"""

import base64
import io
import shutil
import tempfile
from urllib.parse import unquote, urlsplit

from browser import resize, window
from pypdf import PdfReader, PdfWriter
from pypdf.generic import ArrayObject, Fit, NameObject, NullObject, NumberObject
from site_check import DESK, READY, SITE, UNFOLD, serve, stop_without_book_or_browser

BOOK = "Brain tumors on MRI slices"
PDF = SITE.parent / "brain-tumors.pdf"
HERE = "<!-- here a link to the PDF -->"  # in the first page's source
LINK = f'<p class="whole-book"><a href="../{PDF.name}">The whole book as PDF</a></p>'
CONTENTS = """
return [...document.querySelectorAll('.bd-sidebar-primary .bd-links a.reference.internal')].map(
  one => [new URL(one.href).pathname.slice(1), one.textContent.trim()]);
"""
# a table that stays wider than its place would have Chromium make the whole page smaller, and cut it off all the same
FIT = """
document.querySelectorAll('.bd-article table').forEach(one => {
  const room = one.parentElement.clientWidth;
  if (one.scrollWidth > room) one.style.zoom = room / one.scrollWidth;
  else one.classList.add('fits'); // and may have wider cells
});
"""
# code of up to six lines is not divided; CSS cannot count lines
SHORT = """
document.querySelectorAll('.bd-article div[class*="highlight-"]').forEach(one => {
  if (one.innerText.trim().split('\\n').length <= 6) one.classList.add('short');
});
"""
# "Show code cell source", "Show all 79 rows": what would be shown is; what only hides its name has a name of its own
NO_INVITATION = """
document.querySelectorAll('summary').forEach(one => {
  if (one.textContent.trim().startsWith('Show')) one.style.display = 'none';
});
"""
# {page: sheet} to the list of all pages
NUMBERS = """
document.querySelectorAll('.toctree-wrapper a').forEach(one => {
  one.dataset.sheet = arguments[0][new URL(one.href).pathname.slice(1)] ?? '';
});
"""
# the foot of each sheet, whose number goes on from those of the pages before
FOOT = """
const foot = document.head.appendChild(document.createElement('style'));
foot.textContent = `html { counter-reset: page ${arguments[0]} }
@page {
  font: 7pt sans-serif; color: #555;
  @bottom-left { content: ${JSON.stringify(arguments[1])} }
  @bottom-right { content: counter(page) }
}`;
"""
PARTS = """
return [...document.querySelectorAll('.bd-article h2')].map(
  one => [one.closest('section').id, one.firstChild.textContent.trim()]);
"""
PAPER = {
    "paperWidth": 8.27,
    "paperHeight": 11.69,
    "marginTop": 0.6,
    "marginBottom": 0.7,
    "marginLeft": 0.65,
    "marginRight": 0.65,
    "printBackground": True,
}


def print_site(browser, address):
    """The book that is served there as a PdfWriter, with an outline."""
    browser.get(f"{address}/book/index.html")
    first = "book/index.html"
    contents = {first: BOOK} | dict(browser.execute_script(CONTENTS))
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    resize(browser, round(96 * (PAPER["paperWidth"] - PAPER["marginLeft"] - PAPER["marginRight"])))
    starts, parts, printed, end = {}, {}, {}, 0
    for page in [*contents, first]:  # the first page again, when the numbers in its list are known
        starts.setdefault(page, end)
        browser.get(f"{address}/{page}")
        browser.execute_script(UNFOLD)
        browser.execute_script(NO_INVITATION)
        # images below the window would be left out
        browser.execute_script("document.querySelectorAll('img').forEach(one => { one.loading = 'eager'; })")
        browser.execute_async_script(READY)
        browser.execute_script(FIT)
        browser.execute_script(SHORT)
        browser.execute_script(NUMBERS, {name: start + 1 for name, start in starts.items()})
        browser.execute_script(FOOT, starts[page], BOOK if page == first else f"{contents[page]} — {BOOK}")
        parts[page] = browser.execute_script(PARTS)
        sheets = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", PAPER)["data"])
        printed[page] = PdfReader(io.BytesIO(sheets))
        end = starts[page] + len(printed[page].pages)
    writer, places = PdfWriter(), {}  # {(page, name of a place): (number of the sheet, distance from its foot)}
    for page, title in contents.items():
        start = starts[page]
        places |= {(page, name): (start + sheet, top) for name, (sheet, top) in name_no_more(printed[page]).items()}
        places[page, ""] = (start, None)
        writer.append(printed[page], import_outline=False)
        item = writer.add_outline_item(title=title, page_number=start, is_open=False)
        for name, part in parts[page]:
            if (page, name) in places:
                sheet, top = places[page, name]
                writer.add_outline_item(title=part, page_number=sheet, parent=item, fit=Fit.xyz(top=top))
    lead_inside(writer, address, places)
    writer.add_metadata({"/Title": BOOK, "/Author": "The braintumor maintainers"})
    writer.compress_identical_objects()  # each page brings its own copy of the fonts
    return writer


def name_no_more(printed):
    """{name: (sheet, top)} of a printed page's places, whose links are made to lead there without the name.

    Many pages have a place called summary, and the whole book could have but one.
    """
    places = {
        unquote(name.removeprefix("/")): (printed.get_destination_page_number(place), place.top)
        for name, place in printed.named_destinations.items()
    }
    for sheet in printed.pages:
        for link in (one.get_object() for one in sheet.get("/Annots", [])):
            if isinstance(link.get("/Dest"), str) and (place := places.get(unquote(link["/Dest"].removeprefix("/")))):
                link[NameObject("/Dest")] = destination(printed, *place)
    printed.root_object.pop("/Dests", None)
    return places


def destination(book, sheet, top):
    """Where a link leads: a place on a sheet of a PdfReader or PdfWriter."""
    place = NullObject() if top is None else NumberObject(round(top))
    return ArrayObject([book.pages[sheet].indirect_reference, NameObject("/XYZ"), NullObject(), place, NullObject()])


def lead_inside(writer, address, places):
    """Links to pages of the site lead to their place; links to its other files, which a PDF lacks, go."""
    for sheet in writer.pages:
        links, kept = sheet.get("/Annots", []), ArrayObject()
        for one in links:
            link = one.get_object()
            target = link.get("/A", {}).get("/URI", "")
            if target.startswith(address):
                url = urlsplit(target)
                page = url.path[1:]
                place = places.get((page, unquote(url.fragment))) or places.get((page, ""))
                if not place:
                    continue
                del link["/A"]
                link[NameObject("/Dest")] = destination(writer, *place)
            kept.append(one)
        if links:
            sheet[NameObject("/Annots")] = kept


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
