"""What this book adds to Sphinx: published scores in prose, links to pages that a
profile may leave out, and buttons that lead to the notebooks.
"""

import json
import os
import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from bs4 import BeautifulSoup
from docutils import nodes
from sphinx.errors import ConfigError
from sphinx.roles import XRefRole
from sphinx.util.nodes import make_refnode

from braintumor.core.files import ROOT

# Scores that prose names as {{ published["accuracy by slice"] }}, and their format.
FORMATS = {
    "accuracy by slice": "{:.1%}",
    "accuracy by patient": "{:.1%}",
    "balanced accuracy by slice": "{:.1%}",
    "single-source balanced accuracy by slice": "{:.1%}",
    "single-source balanced accuracy by patient": "{:.1%}",
    "expected calibration error": "{:.3f}",
    "calibration error with temperature": "{:.3f}",
    "mean Dice": "{:.2f}",
    "median Dice": "{:.2f}",
    "median HD95 (mm)": "{:.1f} mm",
    "share of zero overlap": "{:.1%}",
}
# "", "-0.5", "1,234", "94.8% (92.7–96.5)", "+0.1 (-0.2 to +0.3)", "290 of 301"
NUMBER = re.compile(r"(?:[-+−–\d.,%() ]|NaN|of|to|mm)*")
SCORES_PAGE = "notebooks/report/scores"  # made by a lab, on the published run


def setup(app):
    app.setup_extension("try_page")
    app.connect("config-inited", add_scores)
    app.add_role("page", XRefRole(innernodeclass=nodes.inline))
    app.connect("missing-reference", resolve_page)
    # after Sphinx has taken the page's title
    app.connect("doctree-read", set_title, priority=600)
    # after the theme has added its buttons
    app.connect("html-page-context", add_buttons, priority=600)
    app.connect("html-page-context", fix_roles)
    app.connect("html-page-context", fix_tables)
    app.connect("build-finished", copy_notebooks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def add_scores(app, config):
    """Give prose the published scores as substitutions."""
    scores = format_scores("full")
    config.myst_substitutions = config.myst_substitutions | {
        "published": {
            name: "{value} ({low} to {high})".format(**score)
            for name, score in scores.items()
        }
    }


def format_scores(run):
    """Return {score: {value, low, high}} of a published run, as text.

    Raises
    ------
    ConfigError
        If scores.json or one of its scores is missing.
    """
    path = ROOT / "results" / "published" / run / "scores.json"
    if not path.exists():
        raise ConfigError(f"{path}: not found, and prose names its scores.")
    scores = json.loads(path.read_text())
    scores = scores["classify"] | scores["segment"]
    if missing := [name for name in FORMATS if name not in scores]:
        raise ConfigError(f"{path}: has no {' nor '.join(missing)}, which prose names.")
    return {
        name: {
            kind: text.format(scores[name][kind]).replace(" ", "\N{NO-BREAK SPACE}")
            for kind in ("value", "low", "high")
        }
        for name, text in FORMATS.items()
    }


def resolve_page(app, env, node, title):
    """Resolve {page}`Title <05_evaluate>`; a page that is not built stays a title."""
    if node["reftype"] != "page":
        return None
    end = f"/{node['reftarget']}"
    docs = [d for d in env.found_docs if d.startswith("notebooks/") and d.endswith(end)]
    if not docs:
        return nodes.emphasis("", title.astext())
    return make_refnode(app.builder, node["refdoc"], docs[0], "", title)


def set_title(app, doctree):
    """Use a page's title in the table of contents everywhere, also as its heading."""
    site_map, name = app.env.external_site_map, app.env.docname
    if name in site_map and site_map[name].title:
        title = nodes.title("", site_map[name].title)
        app.env.titles[name] = app.env.longtitles[name] = title
        doctree.next_node(nodes.title).replace_self(title.deepcopy())


def add_buttons(app, pagename, templatename, context, doctree):
    """Add buttons that open or download the notebook behind a page."""
    if not pagename.startswith("notebooks/"):
        return
    lab = "notebooks/labs/05_evaluate" if pagename == SCORES_PAGE else pagename
    notebook = f"{lab}.ipynb"
    theme = app.config.html_theme_options
    repository = theme.get("repository_url") or github_repository()
    links = launch_links(repository, theme.get("repository_branch") or "main", notebook)
    url = context["pathto"](notebook, 1)
    links.append(("JupyterLab", "fas fa-download", url, "Download for JupyterLab"))
    buttons = [
        {"type": "link", "text": text, "icon": icon, "url": url, "tooltip": tooltip}
        for text, icon, url, tooltip in links
    ]
    group = {"type": "group", "tooltip": "Run this notebook", "icon": "fas fa-rocket"}
    group |= {"label": "launch-buttons", "buttons": buttons}
    context["header_buttons"].insert(0, group)


def github_repository():
    """Return the repository that GitHub builds this book from; "" elsewhere."""
    if "GITHUB_REPOSITORY" not in os.environ:
        return ""
    return "{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}".format_map(os.environ)


def launch_links(repository, branch, notebook):
    """List (text, icon, URL, tooltip) of services that open a notebook on GitHub."""
    url = urlsplit(repository)
    name = re.fullmatch(r"/([^/]+/[^/]+?)(\.git)?/?", url.path)
    if url.hostname != "github.com" or not name:
        return []
    binder = (
        f"https://mybinder.org/v2/gh/{name[1]}/{branch}?urlpath=lab/tree/{notebook}"
    )
    colab = "https://colab.research.google.com/github/"
    colab += f"{name[1]}/blob/{branch}/{notebook}"
    images = "_static/images"
    return [
        ("Binder", f"{images}/logo_binder.svg", binder, "Run on Binder"),
        ("Colab", f"{images}/logo_colab.png", colab, "Open in Colab: see Reproduce"),
    ]


def fix_roles(app, pagename, templatename, context, doctree):
    """Remove roles of the reference list that ARIA does not allow there."""
    if "citation-list" in context.get("body", ""):
        roles = r' role="(doc-biblioentry|list)"'
        context["body"] = re.sub(roles, "", context["body"])


def fix_tables(app, pagename, templatename, context, doctree):
    """Align numbers of DataFrames to the right, and use one row as their head."""
    table = r'<table border="1" class="dataframe">.*?</table>'
    context["body"] = re.sub(table, fix_table, context.get("body", ""), flags=re.DOTALL)


def fix_table(match):
    """Merge the row of index names into the head, and mark columns of numbers."""
    table = BeautifulSoup(match[0], "html.parser")
    if not table.tbody.tr:
        return match[0]
    head, *more = table.thead.find_all("tr")
    for row in more:  # the names of the index: they go into the row above
        names = [cell.get_text() for cell in row.find_all("th")]
        if not any(names[len(table.tbody.tr.find_all("th")) :]):
            for cell, name in zip(head.find_all("th"), names, strict=False):
                cell.string = cell.get_text() or name
            row.decompose()
    rows = [row.find_all(["th", "td"]) for row in table.find_all("tr")]
    width = max(map(len, rows))
    for i in range(1, width + 1):  # from the right: left cells may span several rows
        cells = [
            r[-i] for r in rows if len(r) == width or len(r) >= i and r[-1].name == "td"
        ]
        texts = [cell.get_text() for cell in cells if cell.name == "td"]
        if any(texts) and all(map(NUMBER.fullmatch, texts)):
            for cell in cells:
                cell["class"] = "number"
    return str(table)


def copy_notebooks(app, error):
    """Copy the notebooks without outputs to the site, for the download button."""
    if app.builder.name == "html" and not error:
        target = Path(app.outdir) / "notebooks"
        shutil.copytree(ROOT / "notebooks", target, dirs_exist_ok=True)
