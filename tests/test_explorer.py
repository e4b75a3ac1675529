"""The slice explorer: small, in one piece, and of use in a browser."""

import json
import re

import pandas as pd
import pytest
from browser import foreign, heard

from braintumor.data.prepared import figshare_table
from braintumor.evaluation import scores as evaluate
from braintumor.evaluation.metrics import PROBABILITIES, predicted_label
from braintumor.plots.explorer import explorer


@pytest.fixture(scope="module")
def table():
    """The published run, a row a slice."""
    segmented = evaluate.gather("results/full", "segment")[0]
    classified = evaluate.gather("results/full", "classify")[0]
    table = classified.merge(segmented.drop(columns=["pid", "fold", "label"]), on="file")
    return table.assign(plane=table["file"].map(figshare_table()["plane"]))


def test_explorer_holds_every_slice_and_is_small(table):
    page = explorer(table).data
    assert len(page.encode()) < 300_000 and "<img" not in page
    data = json.loads(re.search(r'application/json"[^>]*>(.*?)</script>', page).group(1))
    found = pd.DataFrame(data["rows"], columns=data["columns"])
    assert found["file"].tolist() == table["file"].tolist() and len(found) == 3064
    assert found["called"].tolist() == predicted_label(table).tolist()
    assert found["surety"].round(3).tolist() == pytest.approx(table[PROBABILITIES].max(axis=1).tolist(), abs=1e-3)


def test_explorer_sorts_and_filters_without_a_network(table, chromium, tmp_path):
    given = table.head(200).assign(pid="</script><b onclick=alert(1)>")
    (tmp_path / "page.html").write_text(f"<meta charset=utf-8>{explorer(given).data}")
    with chromium(390) as browser:
        browser.get(address := f"file://{tmp_path}/page.html")

        def choose(name, value):
            browser.execute_script(
                f"const one = document.querySelector('[name={name}]'); one.value = '{value}';"
                "one.dispatchEvent(new Event('input', {bubbles: true}));"
            )
            return browser.execute_script("return document.querySelector('#slice-explorer .found').textContent")

        right = (predicted_label(given) == given["label"]).mean()
        assert f"200 of 200 slices, of 1 patients: {right:.1%}".replace("%", " %") in choose("label", "")
        first = browser.execute_script("return document.querySelector('#slice-explorer td').textContent")
        assert int(first) == given.sort_values(["dice", "file"])["file"].iloc[0]
        sure = given[given[PROBABILITIES].max(axis=1).round(4) >= 0.9]
        assert choose("surety", "0.9").startswith(f"{len(sure)} of 200 slices")
        assert not browser.execute_script("return document.querySelectorAll('#slice-explorer td b').length")
        requests, console = heard(browser)
        assert foreign(requests) == [address] and not console
