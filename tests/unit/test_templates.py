"""HTML templates."""

import pytest
from jinja2 import UndefinedError

from braintumor.core.templates import render

FIGURE = {"alt": "a 'line'", "caption": "<b>&", "width": 96, "source": "data:,"}


def test_values_are_escaped():
    html = render("figure.html.j2", **FIGURE)
    assert "&lt;b&gt;&amp;" in html and "a &#39;line&#39;" in html


def test_missing_value_raises():
    with pytest.raises(UndefinedError, match="caption"):
        render("figure.html.j2", **{k: FIGURE[k] for k in FIGURE if k != "caption"})
