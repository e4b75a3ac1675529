"""The site check finds each kind of fault, and none on good pages."""

import pytest
from site_check import check_site

pytestmark = pytest.mark.browser

PAGE = """<!doctype html><html lang="en"><head><title>A page</title>
<meta charset="utf-8"><meta name="viewport" content="width=device-width"></head>
<body><main>{}</main></body></html>"""
SEARCH = """<h1>Search</h1>
<form action="search.html"><input name="q" aria-label="search"></form>
<div id="search-results"><ul class="search"><li><a href="good.html">good</a></li></ul>
</div>"""
GOOD = '<h1>Good</h1><h2 id="part">Part</h2><p><a href="#part">a part</a></p>'
BAD = {
    "no external resources in the HTML": '<img src="http://x.invalid/a.png" alt="far">',
    "no external requests": '<img src="http://x.invalid/a.png" alt="far">',
    "no console errors": "<script>console.error('a fault')</script>",
    "internal links resolve": '<a href="good.html#no">dead</a> <a href="../x">out</a>',
    "images load": '<img src="data:image/png;base64,AAAA" alt="a broken image">',
    "formulas render": '<p class="math">x</p>',
    "no horizontal overflow": '<div style="width: 1500px">wide</div>',
    "heading order": "<h3>Three</h3>",
    "contrast AA, light theme": '<p style="background: #fff; color: #aaa">pale</p>',
    "alt text": '<img src="pixel.svg" alt="../_images/pixel.svg">',
    "names, labels, landmarks": "<button></button>",
    "no private words": "<p>Ask a network,<br>it draws a mask.</p>",
    "page weight under 2 MB": f"<!-- {'x' * 2_000_000} -->",
}


@pytest.fixture(scope="module")
def report(chromium, tmp_path_factory):
    """The report on a site with one page for each kind of fault."""
    site = tmp_path_factory.mktemp("site").resolve()
    pages = {"search": SEARCH, "good": GOOD}
    for number, body in enumerate(BAD.values()):
        pages[f"bad-{number}"] = f"<h1>One</h1>{body}"
    for name, body in pages.items():
        (site / f"{name}.html").write_text(PAGE.format(body))
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    (site / "pixel.svg").write_text(svg)
    (site / "favicon.ico").touch()  # browsers request it
    return check_site(site, chromium)


@pytest.mark.parametrize("check", BAD)
def test_finds_each_fault(report, check):
    page = f"bad-{list(BAD).index(check)}.html"
    assert any(fault.startswith(page) for fault in report.faults[check])
    assert report.has_failed()


def test_good_pages_have_no_fault_and_all_are_counted(report):
    faults = [fault for found in report.faults.values() for fault in found]
    assert not any(fault.startswith(("good.html", "search.html")) for fault in faults)
    assert report.counts["no horizontal overflow"] == 2 * (len(BAD) + 2)
    assert report.counts["search returns pages"] == 3
    assert not report.faults["search returns pages"]
    assert any("bad-0.html" in line for line in report.format_table())
