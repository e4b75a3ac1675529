"""What the book does beyond Sphinx's settings: scores in prose, buttons to the clean notebooks."""

import json
import re
import runpy
from types import SimpleNamespace

import pytest
from docutils import nodes
from sphinx.errors import ConfigError

from braintumor.core.files import ROOT

HOOKS = runpy.run_path(str(ROOT / "book/book_hooks.py"))


def test_scores_in_prose_are_those_of_the_published_run():
    scores = json.loads((ROOT / "results/full/scores.json").read_text())
    HOOKS["give_scores"](None, config := SimpleNamespace(myst_substitutions={}))
    told = config.myst_substitutions["published"]
    dice = scores["segment"]["mean Dice"]
    assert told["mean Dice"] == f"{dice['value']:.2f} ({dice['low']:.2f} to {dice['high']:.2f})"
    accuracy = 100 * scores["classify"]["accuracy by slice"]["value"]
    assert told["accuracy by slice"].startswith(f"{accuracy:.1f}\N{NO-BREAK SPACE}% (")
    apart = json.loads((ROOT / "results/full-family/scores.json").read_text())
    assert config.myst_substitutions["family"]["mean Dice"] == f"{apart['segment']['mean Dice']['value']:.2f}"


def test_missing_scores_are_told(tmp_path, monkeypatch):
    monkeypatch.setitem(HOOKS["written_scores"].__globals__, "ROOT", tmp_path)
    with pytest.raises(ConfigError, match="scores.json is missing, and prose names its scores"):
        HOOKS["written_scores"]("full")
    scores = json.loads((ROOT / "results/full/scores.json").read_text())
    del scores["segment"]["mean Dice"]
    (tmp_path / "results/full").mkdir(parents=True)
    (tmp_path / "results/full/scores.json").write_text(json.dumps(scores))
    with pytest.raises(
        ConfigError, match="scores.json has no mean Dice, which prose names: make it anew by notebook 04"
    ):
        HOOKS["written_scores"]("full")


def test_prose_names_only_scores_that_are_there_and_types_none():
    page = (ROOT / "book/index.md").read_text()
    for run in ("published", "family"):
        named = re.findall(run + r'\["(.+?)"\]', page)
        assert named and set(named) <= set(HOOKS["WRITTEN"])
    assert not re.search(r"\d\.\d", page)


@pytest.mark.parametrize(
    ("page", "notebook"),
    [
        ("book/runs/quick-phantom/02_classify-fold-3", "notebooks/02_classify.ipynb"),
        ("book/runs/quick-phantom/04_evaluate-published", "notebooks/04_evaluate.ipynb"),
        ("book/runs/sweep-phantom/filters-16+seed-1/04_evaluate", "notebooks/04_evaluate.ipynb"),
        ("book/method", None),
    ],
)
def test_pages_lead_to_their_clean_notebook(page, notebook):
    assert HOOKS["clean_notebook"](page) == notebook
    assert notebook is None or (ROOT / notebook).exists()


def test_links_to_pages_of_a_run_name_a_notebook():
    sources = [path.read_text() for path in [*ROOT.glob("book/*.md"), *ROOT.glob("notebooks/*.ipynb")]]
    named = {one for text in sources for one in re.findall(r"\{page\}`[^`]+ <([^`]+)>`", text)}
    assert len(named) > 10
    assert [one for one in named if not (ROOT / HOOKS["clean_notebook"](f"book/runs/x/{one}")).exists()] == []


def test_link_to_a_page_leads_to_the_run_that_is_shown_or_is_its_title_alone():
    app = SimpleNamespace(builder=SimpleNamespace(get_relative_uri=lambda here, there: f"../{there}.html"))
    lead = lambda node, *found: HOOKS["lead_to_page"](  # noqa: E731
        app, SimpleNamespace(found_docs=found), node, nodes.inline("", "The scores of a run")
    )
    link = {"reftype": "page", "reftarget": "04_evaluate", "refdoc": "book/index"}
    there = ("book/index", "book/runs/x/seed-1/04_evaluate", "book/runs/x/04_evaluate")
    assert lead(link, *there)["refuri"] == "../book/runs/x/04_evaluate.html"
    assert isinstance(alone := lead(link, "book/index"), nodes.emphasis) and alone.astext() == "The scores of a run"
    assert lead(link | {"reftype": "term"}, *there) is None


def test_pages_of_one_notebook_are_told_apart_by_the_names_in_the_table_of_contents():
    named, own = "book/runs/x/02_classify-fold-2", "book/runs/x/01_explore"
    titles = {named: nodes.title("", "Classify one fold"), own: nodes.title("", "Explore the slices")}
    site_map = {named: SimpleNamespace(title="Classify: fold 2"), own: SimpleNamespace(title=None)}
    for name in (named, own, "search"):
        env = SimpleNamespace(docname=name, external_site_map=site_map, titles=titles, longtitles={})
        HOOKS["name_page"](SimpleNamespace(env=env), None)
    assert [title.astext() for title in titles.values()] == ["Classify: fold 2", "Explore the slices"]


def test_launch_buttons_open_the_notebook_of_the_repository():
    binder, colab = HOOKS["launch_links"]("https://github.com/someone/study.git", "main", "notebooks/01_explore.ipynb")
    assert binder[2] == "https://mybinder.org/v2/gh/someone/study/main?urlpath=lab/tree/notebooks/01_explore.ipynb"
    assert colab[2].endswith("/github/someone/study/blob/main/notebooks/01_explore.ipynb")
    assert HOOKS["launch_links"]("", "main", "x") == HOOKS["launch_links"]("https://example.org/a/b", "main", "x") == []


def test_repository_is_the_one_that_github_builds(monkeypatch):
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    assert HOOKS["built_from"]() == ""
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://github.com")
    monkeypatch.setenv("GITHUB_REPOSITORY", "someone/study")
    assert HOOKS["built_from"]() == "https://github.com/someone/study"
