"""Report notebooks: run from the published tables, errors that name what is wrong.

Their cells run in this process, which imports the library once.
"""

import ast

import IPython.display
import nbformat
import numpy as np
import pytest
from IPython.core.formatters import DisplayFormatter
from ood_images import make_ood_images, sample_control_region

from braintumor.core.errors import DatasetError, ParameterError
from braintumor.core.files import ROOT
from braintumor.core.parameters import notebook_parameters
from braintumor.data import prepared as prepared_module
from braintumor.plots.style import CaptionedFigure

REPORTS = sorted(path.stem for path in (ROOT / "notebooks" / "report").glob("*.ipynb"))
WITHOUT_FIGURES = {"edition", "scores"}


@pytest.fixture
def run_report(monkeypatch):
    """Run the cells of a report; returns its namespace and what it displays."""

    def run(name, **parameters):
        shown = []
        display = lambda *values, **_: shown.extend(values)  # noqa: E731
        monkeypatch.setattr(IPython.display, "display", display)
        injected = "".join(f"{key} = {value!r}\n" for key, value in parameters.items())
        namespace = {"In": [f"# Parameters\n{injected}"]}
        path = ROOT / "notebooks" / "report" / f"{name}.ipynb"
        for cell in nbformat.read(path, 4).cells:
            if cell.cell_type == "code":
                run_cell(cell.source, namespace, shown)
            if "parameters" in cell.metadata.get("tags", []):
                exec(injected, namespace)
        return namespace, shown

    return run


def run_cell(source, namespace, shown):
    """Run a cell as Jupyter does: the value of a last expression is displayed."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), namespace)
    if last:
        shown.append(
            eval(compile(ast.Expression(last.value), "cell", "eval"), namespace)
        )


@pytest.mark.parametrize("name", REPORTS)
def test_report_runs_from_the_published_tables(run_report, name):
    known = notebook_parameters(f"report/{name}", {})
    few = {"n_bootstrap": 20, "image_size": 64}
    _, shown = run_report(name, **{key: few[key] for key in few.keys() & known})
    figures = [value for value in shown if isinstance(value, CaptionedFigure)]
    assert bool(figures) == (name not in WITHOUT_FIGURES)
    for figure in figures:
        assert "<figcaption>" in DisplayFormatter().format(figure)[0]["text/html"]


PLACES = dict(edition="runs", failures="run", leakage="results", results="run")
PLACES |= dict(ablations="ablations", saliency_ood="run", scaling="run")
PLACES |= dict(source_shift="results", testing="results")


@pytest.mark.parametrize("name", REPORTS)
def test_unknown_parameter_and_missing_tables_are_named(run_report, name):
    with pytest.raises(ParameterError, match="no_such_parameter"):
        run_report(name, no_such_parameter=1)
    if name not in PLACES:
        return
    place = ["results/no-such-run"] if name == "edition" else "results/no-such-run"
    with pytest.raises((DatasetError, FileNotFoundError), match="no-such-run"):
        run_report(name, **{PLACES[name]: place})


@pytest.mark.parametrize("name", ["results", "failures", "saliency_ood"])
def test_no_slices_of_other_data_are_shown(run_report, prepared, monkeypatch, name):
    monkeypatch.setattr(prepared_module, "open_data", lambda *_: prepared)
    with pytest.warns(UserWarning, match="elsewhere: not shown"):
        run_report(name, data="elsewhere")


def test_saliency_tables_of_other_networks_are_refused(run_report, tmp_path):
    for fold in range(1, 6):
        (tmp_path / f"without-{fold}.onnx").write_bytes(b"another network")
    with pytest.raises(DatasetError, match="networks"):
        run_report("saliency_ood", models=str(tmp_path))


def test_ood_images_and_control_region():
    rng = np.random.default_rng(0)
    pixels, mask = np.zeros((64, 64)), np.zeros((64, 64), bool)
    pixels[8:56, 8:56], mask[20:26, 20:26] = 100 + rng.normal(size=(48, 48)), True
    images = make_ood_images(pixels + 100 * mask, mask, rng)
    assert images["tumor inpainted"][mask].max() < 110
    assert np.sort(images["shuffled tiles"], None)[-1] == (pixels + 100 * mask).max()
    region = sample_control_region(pixels, mask, rng)
    assert region.sum() == mask.sum() and not (region & mask).any()
