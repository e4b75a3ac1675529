"""What this book asks of Sphinx beyond its settings: the published scores in prose, links to pages of the run that is
shown, and buttons that lead to the clean notebooks.
"""

import json
import os
import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from docutils import nodes
from sphinx.errors import ConfigError
from sphinx.roles import XRefRole
from sphinx.util.nodes import make_refnode

ROOT = Path(__file__).parents[1]

# The scores that prose names as {{ published["accuracy by slice"] }}, with how each is written.
WRITTEN = {
    "accuracy by slice": "{:.1%}",
    "accuracy by patient": "{:.1%}",
    "expected calibration error": "{:.3f}",
    "calibration error with temperature": "{:.3f}",
    "mean Dice": "{:.2f}",
    "median Dice": "{:.2f}",
    "median HD95 (mm)": "{:.1f} mm",
    "share without overlap": "{:.1%}",
}


def setup(app):
    app.connect("config-inited", give_scores)
    app.add_role("page", XRefRole(innernodeclass=nodes.inline))
    app.connect("missing-reference", lead_to_page)
    app.connect("doctree-read", name_page, priority=600)  # Sphinx has taken the page's own title by then
    app.connect("html-page-context", add_buttons, priority=600)  # the theme's own are there by then
    app.connect("html-page-context", mend_roles)
    app.connect("build-finished", copy_notebooks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def give_scores(app, config):
    """Prose takes its numbers from the committed scores as the book is built: none is typed."""
    official, family = written_scores("full"), written_scores("full-family")
    config.myst_substitutions = config.myst_substitutions | {
        "published": {name: "{value} ({low} to {high})".format(**one) for name, one in official.items()},
        "family": {name: one["value"] for name, one in family.items()},
    }


def written_scores(run):
    """{score of WRITTEN: {value, low, high}} of a committed run, as text. Raises ConfigError if one is not there."""
    path = ROOT / "results" / run / "scores.json"
    if not path.exists():
        raise ConfigError(f"{path} is missing, and prose names its scores: get it back by git, or by notebook 04")
    scores = json.loads(path.read_text())
    scores = scores["classify"] | scores["segment"]
    if missing := [name for name in WRITTEN if name not in scores]:
        raise ConfigError(f"{path} has no {' nor '.join(missing)}, which prose names: make it anew by notebook 04")

    def written(name, kind):
        return WRITTEN[name].format(scores[name][kind]).replace("%", " %").replace(" ", "\N{NO-BREAK SPACE}")

    return {name: {kind: written(name, kind) for kind in ("value", "low", "high")} for name in WRITTEN}


def lead_to_page(app, env, node, title):
    """{page}`Title <04_evaluate>` leads to that page of the run; in a book that lacks it, its title in italics."""
    if node["reftype"] != "page":
        return None
    end = f"/{node['reftarget']}"
    found = [doc for doc in env.found_docs if doc.startswith("book/runs/") and doc.endswith(end)]
    if not found:
        return nodes.emphasis("", title.astext())
    first = min(found, key=len)  # of a sweep the page that compares its runs, not one of theirs
    return make_refnode(app.builder, node["refdoc"], first, "", title)


def name_page(app, doctree):
    """A page that the table of contents names has that name in the browser, the search and links of the next page.

    The pages of one notebook share a heading.
    """
    site_map, name = app.env.external_site_map, app.env.docname
    if name in site_map and site_map[name].title:
        app.env.titles[name] = app.env.longtitles[name] = nodes.title("", site_map[name].title)


def add_buttons(app, pagename, templatename, context, doctree):
    """Pages are executed copies that git does not hold: their buttons lead to the notebooks that it does."""
    if notebook := clean_notebook(pagename):
        theme = app.config.html_theme_options
        repository = theme.get("repository_url") or built_from()
        links = launch_links(repository, theme.get("repository_branch") or "main", notebook)
        links.append(("JupyterLab", "fas fa-download", context["pathto"](notebook, 1), "Download for JupyterLab"))
        buttons = [
            {"type": "link", "text": text, "icon": icon, "url": url, "tooltip": tooltip}
            for text, icon, url, tooltip in links
        ]
        group = {"type": "group", "tooltip": "Run this notebook", "icon": "fas fa-rocket", "label": "launch-buttons"}
        context["header_buttons"].insert(0, group | {"buttons": buttons})


def clean_notebook(pagename):
    """The notebook, as a path in the repository, that a page was made by; None for a page of prose."""
    if not pagename.startswith("book/runs/"):
        return None
    # such as 02_classify-fold-3, 04_evaluate-published
    return f"notebooks/{pagename.rsplit('/', 1)[1].split('-')[0]}.ipynb"


def built_from():
    """The repository that GitHub builds this book from; elsewhere ""."""
    return "{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}".format_map(os.environ) if "GITHUB_REPOSITORY" in os.environ else ""


def launch_links(repository, branch, notebook):
    """(text, icon, address, tooltip) of services that open a notebook of a repository on GitHub; none of another."""
    url = urlsplit(repository)
    place = re.fullmatch(r"/([^/]+/[^/]+?)(\.git)?/?", url.path)
    if url.hostname != "github.com" or not place:
        return []
    binder = f"https://mybinder.org/v2/gh/{place[1]}/{branch}?urlpath=lab/tree/{notebook}"
    colab = f"https://colab.research.google.com/github/{place[1]}/blob/{branch}/{notebook}"
    return [
        ("Binder", "_static/images/logo_binder.svg", binder, "Run on Binder, without an account"),
        ("Colab", "_static/images/logo_colab.png", colab, "Open in Google Colab: see Reproduce for its first cell"),
    ]


def mend_roles(app, pagename, templatename, context, doctree):
    """Docutils gives the list of references roles that ARIA has withdrawn or does not allow there."""
    if "citation-list" in context.get("body", ""):
        context["body"] = re.sub(r' role="(doc-biblioentry|list)"', "", context["body"])


def copy_notebooks(app, error):
    """The clean notebooks go with the site, so that their download needs no network."""
    if app.builder.name == "html" and not error:
        shutil.copytree(ROOT / "notebooks", Path(app.outdir) / "notebooks", dirs_exist_ok=True)
