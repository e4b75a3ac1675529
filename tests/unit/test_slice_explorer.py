"""Slice explorer: complete, small, and usable in a browser."""

import json
import re

import pandas as pd
import pytest
from IPython.display import HTML
from samples import find_cell

from braintumor.core.templates import render
from braintumor.data.labels import CLASS_COLORS, LABELS
from braintumor.evaluation.metrics import PROBABILITY_COLUMNS, predict_classes
from braintumor.evaluation.scores import load_predictions


def slice_explorer(table):
    """Run the cell of the page that embeds the explorer; returns its HTML."""
    source = find_cell("report/failures", "slice_explorer.html.j2")
    *statements, result = source.splitlines()
    probabilities = table[PROBABILITY_COLUMNS].to_numpy()
    prob_true = probabilities[range(len(table)), table["y_true"] - 1]
    names = {"probabilities": probabilities, "y_pred": predict_classes(table)}
    names |= {"HTML": HTML, "render": render, "LABELS": LABELS}
    names |= {"CLASS_COLORS": CLASS_COLORS, "table": table.assign(prob_true=prob_true)}
    exec("\n".join(statements), names)
    return eval(result, names).data


@pytest.fixture
def table():
    """The published predictions of both tasks."""
    run, keys = "results/published/full", ["file", "pid", "fold", "y_true"]
    masks = load_predictions(run, "segment")[0]
    table = load_predictions(run, "classify")[0].merge(masks, on=keys)
    return table.assign(plane="axial")


def test_explorer_holds_every_slice_and_is_small(table):
    html = slice_explorer(table)
    assert len(html.encode()) < 300_000 and "<img" not in html
    data = json.loads(re.search(r'json"[^>]*>(.*?)</script>', html).group(1))
    rows = pd.DataFrame(data["rows"], columns=data["columns"])
    assert rows["file"].tolist() == table["file"].tolist()
    assert rows["y_pred"].tolist() == predict_classes(table).tolist()
    confidence = table[PROBABILITY_COLUMNS].max(axis=1)
    assert rows["confidence"].tolist() == pytest.approx(confidence.tolist(), abs=1e-4)


@pytest.mark.browser
def test_explorer_filters_and_sorts_without_a_network(table, chromium, tmp_path):
    table = table.head(200).assign(pid="</script><b onclick=alert(1)>")
    page = tmp_path / "page.html"
    page.write_text(f"<meta charset=utf-8>{slice_explorer(table)}")
    with chromium(390) as browser:
        browser.get(page.as_uri())

        def text(selector):
            query = "return document.querySelector(arguments[0]).textContent"
            return browser.execute_script(query, f"#slice-explorer {selector}")

        accuracy = (predict_classes(table) == table["y_true"]).mean()
        expected = f"200 of 200 slices, 1 patients: accuracy {accuracy:.1%}"
        assert text(".summary").startswith(expected)
        lowest = table.sort_values(["dice", "file"])["file"].iloc[0]
        assert int(text("td")) == lowest
        confident = table[table[PROBABILITY_COLUMNS].max(axis=1).round(4) >= 0.9]
        browser.execute_script(
            "const field = document.querySelector('[name=confidence]');"
            "field.value = '0.9';"
            "field.dispatchEvent(new Event('input', {bubbles: true}));"
        )
        assert text(".summary").startswith(f"{len(confident)} of 200")
        assert not browser.execute_script("return document.querySelector('td b')")
        assert not [e for e in browser.get_log("browser") if e["level"] == "SEVERE"]
