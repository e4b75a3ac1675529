"""Style of all figures: captions, and colors that color-blind readers can tell apart.

References
----------
Okabe, Ito (2008), Color universal design.
"""

import io
from base64 import b64encode
from dataclasses import dataclass
from functools import cached_property, wraps

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib_inline.backend_inline import set_matplotlib_formats

from braintumor.core.templates import render

CLASS_COLORS = {
    "meningioma": "#0072B2",
    "glioma": "#E69F00",
    "pituitary tumor": "#CC79A7",
}
PROTOCOL_COLORS = {"slice": "#D55E00", "official": "#0072B2", "family": "#009E73"}
TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE = "#56B4E9", "#F0E442", "#D55E00"
MAX_WIDTH = 9  # inches; a wider figure shrinks on the page until titles are unreadable


def set_style():
    """Set the style of plots (vector graphics) and tables (no cell is cut off)."""
    set_matplotlib_formats("svg")
    sns.set_theme(context="notebook", style="ticks", palette="colorblind")
    spines = {"axes.spines.top": False, "axes.spines.right": False}
    layout = {"axes.titlesize": "medium", "figure.constrained_layout.use": True}
    plt.rcParams.update(spines | layout)
    pd.set_option("display.max_colwidth", None)


@dataclass
class CaptionedFigure:
    """A figure that displays itself with its caption as one self-contained HTML output.

    Plots become SVG, figures with images PNG. The same figure gives the same bytes.
    Pyplot's figure is closed, so that it is not displayed a second time.

    Raises
    ------
    ValueError
        If the caption or the alternative text is empty.
    """

    figure: Figure
    caption: str
    alt: str

    def __post_init__(self):
        plt.close(self.figure)
        self.alt = " ".join(self.alt.split())  # titles in it may have several lines
        for name in ("caption", "alt"):
            if not getattr(self, name).strip():
                raise ValueError(f"{name}: got no text, expected a sentence.")

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"text/html": self.html, "text/plain": self.caption}

    @cached_property
    def html(self):
        """HTML with the image embedded as base64."""
        buffer, kind = io.BytesIO(), "svg+xml"
        settings = {"format": "svg", "dpi": 150, "metadata": {"Date": None}}
        if any(ax.images for ax in self.figure.axes):
            settings = {"format": "png", "dpi": 120, "metadata": {"Software": None}}
            kind = "png"
        with plt.rc_context({"svg.hashsalt": "braintumor"}):  # same ids each time
            self.figure.savefig(buffer, **settings)
        return render(
            "figure.html.j2",
            caption=self.caption,
            alt=self.alt,
            width=round(96 * self.figure.get_figwidth()),  # CSS pixels per inch
            source=f"data:image/{kind};base64,{b64encode(buffer.getvalue()).decode()}",
        )


def captioned(plot):
    """Turn the (figure, caption, alt) of a plot function into a CaptionedFigure.

    The function takes two more keywords, `caption` and `alt`, that replace its texts.
    """

    @wraps(plot)
    def wrapper(*args, caption=None, alt=None, **kwargs):
        figure, default_caption, default_alt = plot(*args, **kwargs)
        return CaptionedFigure(figure, caption or default_caption, alt or default_alt)

    return wrapper


def format_values(values, form="{:.2f}"):
    """Format a mapping or Series for a caption: "glioma (0.71), meningioma (0.93)"."""
    return ", ".join(f"{name} ({form.format(v)})" for name, v in dict(values).items())
