"""The prose pages: what they count is what the tables hold."""

import re

import nbformat
import pandas as pd
import pytest

from braintumor.core.files import ROOT
from braintumor.data.prepared import LABELS, figshare_table
from braintumor.data.splits import family
from braintumor.evaluation.scores import gather

PAGE = (ROOT / "book/data.md").read_text()


@pytest.fixture(scope="module")
def slices():
    """Every slice with its patient, class, plane, family and official fold, from the committed tables."""
    folds = gather("results/full", "classify")[0].set_index("file")["fold"]
    table = figshare_table().reset_index()
    return table.assign(family=table["pid"].map(family), fold=table["file"].map(folds))


def row(name):
    """The numbers of a row of a table of the page."""
    (found,) = re.findall(rf"^\| \**{name}\** \|(.*)\|$", PAGE, re.MULTILINE)
    return [int(number.replace(",", "")) for number in re.findall(r"[\d,]+", found)]


def test_data_page_counts_classes_planes_and_folds(slices):
    for label, name in LABELS.items():
        own = slices[slices["label"] == label]
        assert row(name) == [label, own["pid"].nunique(), len(own)]
    assert row("all") == [slices["pid"].nunique(), len(slices)]
    for plane in ("axial", "coronal", "sagittal", "unknown"):
        assert row(plane) == [(slices["plane"] == plane).sum()]
    assert row("slices") == slices["fold"].value_counts().sort_index().tolist()


def test_data_page_counts_patients_and_families(slices):
    numbers = slices.groupby("pid").size()
    assert f"from {numbers.min()} to {numbers.max()} slices, {numbers.median():.0f} at the median" in PAGE
    patients = slices.drop_duplicates("pid")
    named = patients[patients["pid"].str.startswith("MR")]
    members = named["family"].map(named["family"].value_counts())
    assert f"Of the {len(patients)} identifiers, {len(named)} have the form" in PAGE and set(named["label"]) == {2}
    told = f"There are {named.loc[members > 1, 'family'].nunique()} such {{term}}`families <family>`"
    assert f"{told}, which together hold {(members > 1).sum()} of the {len(named)}." in PAGE
    split = slices.groupby("family")["fold"].transform("nunique") > 1
    assert f"split {slices.loc[split, 'family'].nunique()} of the 18 families, with {split.sum()}\nslices" in PAGE


def test_every_reference_that_is_cited_is_there():
    known = set(re.findall(r"^@\w+\{(\w+),", (ROOT / "book/references.bib").read_text(), re.MULTILINE))
    pages = [*ROOT.glob("book/*.md"), *ROOT.glob("notebooks/*.ipynb")]
    cited = {key for page in pages for key in re.findall(r"\{cite:[pt]\}`(\w+)`", page.read_text())}
    assert cited and cited <= known and known <= cited


def test_small_slices_are_of_one_patient():
    files = [*range(955, 958), *range(1070, 1077), *range(1203, 1208)]
    table = pd.DataFrame(figshare_table()).reset_index().set_index("file").loc[files]
    assert len(table) == 15 and table["pid"].nunique() == 1 and set(table["label"]) == {3}


def quizzes():
    """The quiz of each chapter that has one: page to text."""
    found = {}
    for path in ROOT.glob("book/*.md"):
        found[path.stem] = path.read_text().partition("\n## Quiz\n")[2]
    for path in ROOT.glob("notebooks/*.ipynb"):
        found[path.stem] = nbformat.read(path, 4).cells[-2].source.partition("## Quiz\n")[2]
    return {page: text for page, text in found.items() if text}


def test_each_chapter_ends_with_three_questions_whose_answers_are_hidden():
    lessons = {path.stem for path in ROOT.glob("notebooks/*.ipynb")} - {"14_exercises", "16_edition"}
    assert set(quizzes()) == lessons | {"data", "method", "ethics", "scale", "use"}
    for text in quizzes().values():
        assert re.findall(r"^\*\*(\d)\.\*\* .+\?$", text, re.M) == ["1", "2", "3"]
        assert re.findall(r"^- \*\*([abc])\*\* ", text, re.M) == list("abcabcabc")
        assert len(re.findall(r"^:::\{dropdown\} Answer\n\*\*[abc]\.\*\* .+\n:::$", text, re.M)) == 3


def test_exercises_that_are_named_are_there():
    there = re.findall(r"### Exercise (\d+): ", (ROOT / "notebooks/14_exercises.ipynb").read_text())
    named = re.findall(r"\bE(\d+)\b", (ROOT / "book/teach.md").read_text())
    assert named and set(named) <= set(there)
