"""Style of all figures: colors that color-blind readers can tell apart, captions.

References
----------
Okabe, Ito (2008), Color universal design.
"""

import io
from base64 import b64encode
from dataclasses import dataclass
from functools import cached_property

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
TRAINING, VALIDATION, KEPT = "0.55", "#0072B2", "#D55E00"
MAX_WIDTH = 9  # inches; a wider figure shrinks on the page until titles are unreadable


def set_style():
    """Set the style of plots (vector graphics) and tables (no cell is cut off)."""
    set_matplotlib_formats("svg")
    sns.set_theme(context="notebook", style="ticks", palette="colorblind")
    plt.rcParams.update(
        {
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": "medium",
            "figure.constrained_layout.use": True,
        }
    )
    pd.set_option("display.max_colwidth", None)


@dataclass
class CaptionedFigure:
    """A figure that displays itself with its caption as one self-contained HTML output.

    Plots become SVG, figures with images PNG. The same figure gives the same bytes.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        Is closed, so that pyplot does not display it a second time.
    caption : str
        The message of the figure in one sentence, then how to read it.
    alt : str
        What is shown, for readers who do not see the figure.

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
                raise ValueError(f"{name}: got empty text, expected a sentence.")

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"text/html": self.html, "text/plain": self.caption}

    @cached_property
    def html(self):
        """HTML with the image embedded as base64."""
        kind, buffer = "png", io.BytesIO()
        if any(ax.images for ax in self.figure.axes):
            self.figure.savefig(
                buffer, format="png", dpi=120, metadata={"Software": None}
            )
        else:
            kind = "svg+xml"
            with plt.rc_context({"svg.hashsalt": "braintumor"}):  # same ids each time
                self.figure.savefig(
                    buffer, format="svg", dpi=150, metadata={"Date": None}
                )
        return render(
            "figure.html.j2",
            caption=self.caption,
            alt=self.alt,
            width=round(96 * self.figure.get_figwidth()),  # CSS pixels per inch
            source=f"data:image/{kind};base64,{b64encode(buffer.getvalue()).decode()}",
        )


def format_values(values, form="{:.2f}"):
    """Format a mapping or Series for a caption: "glioma (0.71), meningioma (0.93)"."""
    return ", ".join(f"{name} ({form.format(v)})" for name, v in dict(values).items())
