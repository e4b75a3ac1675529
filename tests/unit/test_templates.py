"""HTML templates."""

import pytest
from jinja2 import UndefinedError

from braintumor.core.templates import render

FIGURE = {"alt": "a 'line'", "caption": "<b>&", "width": 96}


def test_values_are_escaped_and_required():
    html = render("figure.html.j2", **FIGURE, source="data:,")
    assert "&lt;b&gt;&amp;" in html and "a &#39;line&#39;" in html
    with pytest.raises(UndefinedError, match="source"):
        render("figure.html.j2", **FIGURE)
