"""Style of all figures: captions, and the colors of Okabe and Ito (2008)."""

import io
from base64 import b64encode
from dataclasses import dataclass
from functools import wraps

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib_inline.backend_inline import set_matplotlib_formats

from braintumor.core.templates import render

PROTOCOL_COLORS = {"slice": "#D55E00", "official": "#0072B2", "family": "#009E73"}
MAX_WIDTH = 9  # inches; a wider figure shrinks on the page until titles are unreadable
TEXT_WIDTH = 6.8  # inches; a figure as wide as the text is shown at its full size


def set_style():
    """Set the style of plots (vector graphics) and tables (no cell is cut off)."""
    set_matplotlib_formats("svg")
    sns.set_theme(context="notebook", style="ticks", palette="colorblind")
    settings = {"axes.spines.top": False, "axes.spines.right": False}
    settings |= {"axes.titlesize": "medium", "figure.constrained_layout.use": True}
    plt.rcParams.update(settings)
    pd.set_option("display.max_colwidth", None)


@dataclass(repr=False)
class CaptionedFigure:
    """A figure that displays itself with its caption, as SVG, or PNG with images."""

    figure: Figure
    caption: str
    alt: str

    def __post_init__(self):
        plt.close(self.figure)  # else it would be displayed a second time
        self.alt = " ".join(self.alt.split())  # titles in it may have several lines

    def __repr__(self):
        return self.caption

    def _repr_html_(self):
        kind, settings = "svg+xml", {"format": "svg", "metadata": {"Date": None}}
        if any(ax.images for ax in self.figure.axes):
            kind, settings = "png", {"dpi": 120}
        buffer = io.BytesIO()
        with plt.rc_context({"svg.hashsalt": "braintumor"}):  # same ids each time
            self.figure.savefig(buffer, **settings)
        image = b64encode(buffer.getvalue()).decode()
        width = round(96 * self.figure.get_figwidth())  # CSS pixels per inch
        texts = {"caption": self.caption, "alt": self.alt}
        texts["source"] = f"data:image/{kind};base64,{image}"
        return render("figure.html.j2", width=width, **texts)


def captioned(plot):
    """Make a CaptionedFigure of a plot's figure and texts, which calls may replace."""

    @wraps(plot)
    def wrapper(*args, caption=None, alt=None, **kwargs):
        figure, default_caption, default_alt = plot(*args, **kwargs)
        return CaptionedFigure(figure, caption or default_caption, alt or default_alt)

    return wrapper


def format_values(values, form="{:.2f}"):
    """Format a mapping or Series for a caption: "glioma (0.71), meningioma (0.93)"."""
    return ", ".join(f"{name} ({form.format(v)})" for name, v in dict(values).items())
