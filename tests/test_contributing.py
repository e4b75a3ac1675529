"""What a recipe of CONTRIBUTING.md asks for, and a run would leave out in silence or refuse in words of others."""

import json
from types import ModuleType

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell

from braintumor.core.files import ROOT
from braintumor.evaluation import scores as evaluate
from braintumor.workflow_engine.execution import TASKS

NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


def code(name):
    """The code cells of a notebook; the first is that of its parameters."""
    cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_is_run_and_shown_and_offered(name):
    places = {"_toc.yml": f"/quick-phantom/{name}", "book/reproduce.md": f"<../notebooks/{name}.ipynb>"}
    if name not in TASKS.values():  # which the Snakefile takes from there
        places["workflow/Snakefile"] = f'Page("{name}", '
    missing = [place for place, words in places.items() if words not in (ROOT / place).read_text()]
    assert not missing, f"{name} is not named in {', '.join(missing)}: see CONTRIBUTING.md, A notebook"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_checks_its_parameters_and_names_its_data(name):
    assert "check_parameters(globals())" in code(name)[1], f"{name}: call it in the cell after the parameters"
    text = (ROOT / "notebooks" / f"{name}.ipynb").read_text()
    said = [words for words in ("provenance.data_banner", "**Data on this page:**") if words in text]
    assert said, f"{name}: say which data its page shows, by provenance.data_banner or after **Data on this page:**"


def test_parameters_are_not_taken_for_a_command_of_ipython():
    """IPython takes a cell of one line, `run: str = ...`, for its command %run; a cell of two lines is Python to it."""
    shell = InteractiveShell(user_module=ModuleType("own"))  # else it would take the place of __main__
    for name in NOTEBOOKS:
        cell = code(name)[0].strip()
        assert shell.transform_cell(cell).strip() == cell, (
            f"{name}: IPython takes the one line of its parameters cell for a command; put its comment on a line above"
        )


@pytest.mark.parametrize("task", ["classify", "segment"])
def test_committed_scores_have_each_score(task):
    table, _ = evaluate.gather("results/full", task)
    made = {"classify": evaluate.classification_scores, "segment": evaluate.segmentation_scores}[task](table, draws=1)
    missing = set(made) - set(json.loads((ROOT / "results/full/scores.json").read_text())[task])
    assert not missing, f"results/full/scores.json lacks {missing}: `make book` writes that file, commit it"
