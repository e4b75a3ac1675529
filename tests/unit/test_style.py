"""Captioned figures."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter

from braintumor.plots.style import CaptionedFigure, captioned, format_values


def line_plot():
    figure, ax = plt.subplots()
    ax.plot([1, 2, 3], label="a")
    ax.legend()
    return figure


def image_plot():
    figure, ax = plt.subplots()
    ax.imshow(np.eye(4))
    return figure


def bundle(figure, caption="caption", alt="alt"):
    """What IPython displays for a captioned figure, by MIME type."""
    return DisplayFormatter().format(CaptionedFigure(figure, caption, alt))[0]


def test_figure_displays_as_html_with_caption_and_alt():
    data = bundle(line_plot(), 'Half < "all"', "A line\nfrom 1 to 3")
    assert data["text/plain"] == 'Half < "all"'
    assert "<figcaption>Half &lt; &#34;all&#34;</figcaption>" in data["text/html"]
    assert 'alt="A line from 1 to 3"' in data["text/html"]
    assert not plt.get_fignums()


@pytest.mark.parametrize(
    ("plot", "kind"), [(line_plot, "svg+xml"), (image_plot, "png")]
)
def test_format_follows_content_and_bytes_repeat(plot, kind):
    html = bundle(plot())["text/html"]
    assert f'src="data:image/{kind};base64,' in html
    assert bundle(plot())["text/html"] == html


@pytest.mark.parametrize(("caption", "alt"), [("", "alt"), ("caption", " ")])
def test_empty_text_raises(caption, alt):
    with pytest.raises(ValueError, match="caption, alt"):
        CaptionedFigure(line_plot(), caption, alt)


def test_texts_can_be_replaced():
    plot = captioned(lambda: (line_plot(), "caption", "alt"))(alt="other")
    assert (plot.caption, plot.alt) == ("caption", "other")


def test_values_are_formatted_with_their_names():
    values = pd.Series({"glioma": 0.714, "meningioma": 0.93})
    assert format_values(values) == "glioma (0.71), meningioma (0.93)"
