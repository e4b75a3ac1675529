"""`make site-check` finds what is wrong with a page, and nothing else. The built book itself is not looked at here."""

import pytest
from site_check import CHECKS, check, table

PAGE = """<!doctype html><html lang="en"><head><title>A page</title><meta charset="utf-8">
<meta name="viewport" content="width=device-width"></head><body><main>{}</main></body></html>"""
SEARCH = """<h1>Search</h1><form action="search.html"><input name="q" aria-label="search"></form>
<div id="search-results"><ul class="search"><li><a href="good.html">good</a></li></ul></div>"""
GOOD = '<h1>Good</h1><h2 id="part">Part</h2><p><a href="#part">a part</a></p>'
# of each check what it must find, and nothing else
BAD = {
    "links inside lead somewhere": '<h1>One</h1><a href="good.html#nowhere">dead</a> <a href="../out.html">out</a>',
    "images are there": '<h1>One</h1><img src="data:image/png;base64,AAAA" alt="a broken picture">',
    "formulas are drawn": '<h1>One</h1><p class="math">x</p>',
    "no wider than the window": '<h1>One</h1><div style="width: 1500px">wide</div>',
    "headings in order": "<h1>One</h1><h3>Three</h3>",
    "contrast AA, light": '<h1>One</h1><p style="background: #fff; color: #aaa">pale</p>',
    "alt text": '<h1>One</h1><img src="pixel.svg" alt="../_images/pixel.svg">',
    "names, labels, landmarks": "<h1>One</h1><button></button>",
    "under 2 MB beside what all pages share": f"<h1>One</h1><!-- {'x' * 2_000_000} -->",
    "no error on the console": "<h1>One</h1><script>console.error('a fault')</script>",
}


@pytest.fixture(scope="module")
def bad(chromium, tmp_path_factory):
    """What the check finds on a site with one page for each kind of fault."""
    site = tmp_path_factory.mktemp("site").resolve()
    pages = {"search": SEARCH, "good": GOOD} | {f"bad-{number}": body for number, body in enumerate(BAD.values())}
    for name, body in pages.items():
        (site / f"{name}.html").write_text(PAGE.format(body))
    (site / "pixel.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    (site / "favicon.ico").touch()  # browsers ask for it
    return check(site, chromium)


@pytest.mark.parametrize("name", BAD)
def test_finds(bad, name):
    page = f"bad-{list(BAD).index(name)}.html"
    assert bad[name][1] and all(fault.startswith(page) for fault in bad[name][1])


def test_good_pages_have_no_fault_and_all_is_counted(bad):
    told = "\n".join(table(bad))
    assert "good.html at" not in told and "search.html at" not in told
    assert all(name in told for name in CHECKS) and bad["no wider than the window"][0] == 2 * (len(BAD) + 2)
    assert bad["search finds"] == (3, [])
