"""The book's additions to Sphinx: scores in prose, links between pages, buttons."""

import json
import re
from types import SimpleNamespace

import book_hooks as hooks
import pandas as pd
import pytest
from docutils import nodes
from sphinx.errors import ConfigError

from braintumor.core.files import ROOT


def test_prose_gets_the_committed_scores():
    config = SimpleNamespace(myst_substitutions={"other": 1})
    hooks.add_scores(None, config)
    committed = json.loads((ROOT / "results/published/full/scores.json").read_text())
    dice = committed["segment"]["mean Dice"]
    text = config.myst_substitutions["published"]["mean Dice"]
    assert text == f"{dice['value']:.2f} ({dice['low']:.2f} to {dice['high']:.2f})"
    assert config.myst_substitutions["other"] == 1


@pytest.mark.parametrize("missing", ["scores.json", "mean Dice"])
def test_missing_scores_stop_the_build(tmp_path, monkeypatch, missing):
    monkeypatch.setattr(hooks, "ROOT", tmp_path)
    scores = {name: {} for name in hooks.FORMATS if name != missing}
    if missing != "scores.json":
        path = tmp_path / "results/published/full/scores.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"classify": scores, "segment": {}}))
    with pytest.raises(ConfigError, match=missing):
        hooks.format_scores("full")


def resolve(node, docs):
    uri = SimpleNamespace(get_relative_uri=lambda here, there: f"../{there}.html")
    app, env = SimpleNamespace(builder=uri), SimpleNamespace(found_docs=docs)
    return hooks.resolve_page(app, env, node, nodes.inline("", "A lab"))


LINK = {"reftype": "page", "reftarget": "05_evaluate", "refdoc": "book/index"}


def test_pages_have_the_title_of_the_table_of_contents_and_links():
    title = SimpleNamespace(title="Classify: fold 2")
    env = SimpleNamespace(docname="a", external_site_map={"a": title})
    env.titles, env.longtitles = {}, {}
    page = nodes.section("", nodes.title("", "Evaluate"))
    hooks.set_title(SimpleNamespace(env=env), page)
    assert page.astext() == title.title
    assert env.titles["a"].astext() == env.longtitles["a"].astext() == title.title
    node = resolve(LINK, ["book/index", "notebooks/labs/05_evaluate"])
    assert node["refuri"] == "../notebooks/labs/05_evaluate.html"
    node = resolve(LINK, ["book/index"])  # of a page that is not built
    assert isinstance(node, nodes.emphasis) and node.astext() == "A lab"
    assert resolve(LINK | {"reftype": "term"}, []) is None  # left to Sphinx


NOTEBOOKS = {  # of pages
    "notebooks/labs/02_classify": "notebooks/labs/02_classify.ipynb",
    "notebooks/report/scores": "notebooks/labs/05_evaluate.ipynb",
    "book/method": None,
}


@pytest.mark.parametrize(("page", "notebook"), NOTEBOOKS.items())
def test_buttons_open_the_notebook_without_outputs(page, notebook):
    context = {"header_buttons": [], "pathto": lambda path, _: f"../{path}"}
    repository = {"repository_url": "https://github.com/someone/study"}
    app = SimpleNamespace(config=SimpleNamespace(html_theme_options=repository))
    hooks.add_buttons(app, page, "", context, None)
    groups = [group["buttons"] for group in context["header_buttons"]]
    urls = [button["url"] for buttons in groups for button in buttons]
    assert len(urls) == (3 if notebook else 0)
    assert all(url.endswith(notebook) for url in urls)
    assert notebook is None or (ROOT / notebook).exists()


def test_table_has_one_head_and_numbers_to_the_right():
    rows = {"accuracy": ["94.8% (92.7–96.5)", ""], "plane": ["axial", "coronal"]}
    table = pd.DataFrame(rows, ["a", "b"]).rename_axis("run").to_html()
    context = {"body": f"<p>before</p>{table}<p>after</p>"}
    hooks.fix_tables(None, "", "", context, None)
    head, *body = re.findall("<tr.*?</tr>", context["body"], re.DOTALL)
    assert re.findall(">(.*)</th>", head) == ["run", "accuracy", "plane"]
    assert len(body) == 2 and body[0].count("number") == 1
    assert '<th class="number">accuracy' in head
