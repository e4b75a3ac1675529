"""What the prose pages count is what the tables hold; what they refer to exists."""

import re

import book_figures
import pytest

from braintumor.core.files import ROOT
from braintumor.data.figshare import load_figshare_index
from braintumor.data.labels import LABELS
from braintumor.data.splits import patient_family
from braintumor.evaluation.scores import load_predictions

PAGES = [*ROOT.glob("book/*.md"), *ROOT.glob("notebooks/*/*.ipynb")]
TEXTS = {path.stem: path.read_text() for path in PAGES}


@pytest.fixture(scope="module")
def slices():
    """Every slice with its patient, class, plane, family and official fold."""
    table, _ = load_predictions("results/published/full", "classify")
    folds = table.set_index("file")["fold"]
    index = load_figshare_index().reset_index()
    families = index["pid"].map(patient_family)
    return index.assign(family=families, fold=index["file"].map(folds))


def read_row(name):
    """Return the numbers of a row of a table on the data page."""
    pattern = rf"^\| \**{name}\** \|(.*)\|$"
    (row,) = re.findall(pattern, TEXTS["data"], re.MULTILINE)
    return [int(number.replace(",", "")) for number in re.findall(r"[\d,]+", row)]


def test_data_page_counts_the_slices(slices):
    for label, name in LABELS.items():
        of_class = slices[slices["label"] == label]
        assert read_row(name)[-2:] == [of_class["pid"].nunique(), len(of_class)]
    assert read_row("all") == [slices["pid"].nunique(), len(slices)]
    for plane in ("axial", "coronal", "sagittal", "unknown"):
        assert read_row(plane) == [(slices["plane"] == plane).sum()]
    assert read_row("slices") == slices["fold"].value_counts().sort_index().tolist()
    sizes = slices.drop_duplicates("pid")["family"].value_counts()
    is_split = slices.groupby("family")["fold"].transform("nunique") > 1
    counts = {(sizes > 1).sum(), sizes[sizes > 1].sum(), is_split.sum()}
    counts.add(slices.loc[is_split, "family"].nunique())
    assert counts <= {int(number) for number in re.findall(r"\d+", TEXTS["data"])}


def test_references_are_cited_and_linked_pages_and_exercises_exist():
    text = "\n".join(TEXTS.values())
    bibliography = (ROOT / "book/references.bib").read_text()
    known = re.findall(r"^@\w+\{(\w+),", bibliography, re.MULTILINE)
    cited = re.findall(r"\{cite:[pt]\}`([\w, ]+)`", text)
    assert set(re.findall(r"\w+", " ".join(cited))) == set(known)
    toc = (ROOT / "_toc.yml").read_text()
    names = re.findall(r"file: (?:[\w-]+/)*([\w-]+)$", toc, re.MULTILINE)
    assert set(re.findall(r"\{page\}`[^`]+ <([^`]+)>`", text)) <= set(names)
    exercises = re.findall(r"### Exercise (\d+): ", TEXTS["07_exercises"])
    named = re.findall(r"\bE(\d+)\b", TEXTS["teach"])
    assert named and set(named) <= set(exercises)


def test_figures_of_prose_pages_are_made(tmp_path, monkeypatch):
    named = set(re.findall(r":file: figures/(\w+).html", "".join(TEXTS.values())))
    assert named == set(book_figures.FIGURES)
    few = {name: book_figures.FIGURES[name] for name in ("masks", "slices", "splits")}
    monkeypatch.setattr(book_figures, "FIGURES", few)
    book_figures.save_figures(tmp_path)
    assert all("<figcaption>" in path.read_text() for path in tmp_path.iterdir())
