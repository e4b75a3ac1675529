"""Captioned figures and HTML templates."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from IPython.core.formatters import DisplayFormatter
from jinja2 import UndefinedError

from braintumor.core.templates import render
from braintumor.plots.style import captioned


@captioned
def plot(image=False):
    figure, ax = plt.subplots()
    ax.imshow(np.eye(4)) if image else ax.plot([1, 2, 3])
    return figure, 'Half < "all"', "A line\nfrom 1 to 3"


def display(figure):
    """What IPython displays for a captioned figure, by MIME type."""
    return DisplayFormatter().format(figure)[0]


def test_figure_displays_as_html_with_caption_and_alt():
    data = display(plot())
    assert data["text/plain"] == 'Half < "all"'
    assert "<figcaption>Half &lt; &#34;all&#34;</figcaption>" in data["text/html"]
    assert 'alt="A line from 1 to 3"' in data["text/html"]
    assert 'alt="Other"' in display(plot(alt="Other"))["text/html"]
    assert not plt.get_fignums()


@pytest.mark.parametrize(("image", "kind"), [(False, "svg+xml"), (True, "png")])
def test_format_follows_content_and_bytes_repeat(image, kind):
    html = display(plot(image))["text/html"]
    assert f'src="data:image/{kind};base64,' in html
    assert display(plot(image))["text/html"] == html


def test_values_of_templates_are_required():
    with pytest.raises(UndefinedError, match="source"):
        render("figure.html.j2", alt="a line", caption="A line", width=96)
