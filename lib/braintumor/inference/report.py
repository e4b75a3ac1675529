"""An answer as a person reads it: pictures, one page of HTML, one line of a table."""

import base64
import html
import io
import os

import matplotlib
import numpy as np
from PIL import Image
from scipy.ndimage import binary_erosion

from braintumor.core.files import atomic
from braintumor.data.prepared import LABELS, scaled
from braintumor.plots.figures import CLASS_COLORS, TRUE_POSITIVE

NOTICE = "For research and teaching. Not a medical device: do not use it for any decision about a person."

LONGEST_STEM = 180  # bytes


def gray(answer):
    """The image as it is shown: (rows, columns) uint8."""
    square = answer.image.square
    return answer.image.cropped(scaled(square, len(square)))


def overlay(answer, opacity=0.35):
    """The image with its mask in blue: (rows, columns, 3) uint8; the outline is not transparent."""
    blue = np.array(matplotlib.colors.to_rgb(TRUE_POSITIVE)) * 255
    shown = np.repeat(gray(answer)[..., None], 3, axis=2).astype(float)
    shown[answer.mask] += opacity * (blue - shown[answer.mask])
    shown[answer.mask & ~binary_erosion(answer.mask, iterations=max(1, len(shown) // 256))] = blue
    return shown.astype(np.uint8)


def heat(answer, opacity=0.5):
    """The image under its Grad-CAM, bright where the class was read from: (rows, columns, 3) uint8."""
    colors = matplotlib.colormaps["magma"](answer.grad_cam)[..., :3] * 255
    share = opacity * answer.grad_cam[..., None]
    return ((1 - share) * gray(answer)[..., None] + share * colors).astype(np.uint8)


def facts(answer):
    """What there is to say about an answer, in words and numbers, ready for JSON."""
    called = answer.label
    return {
        "image": answer.image.name,
        "called": LABELS[called],
        "probabilities": {LABELS[n + 1]: round(float(value), 4) for n, value in enumerate(answer.probabilities)},
        "spread": round(float(answer.spread[called - 1]), 4),
        "area_pixels": int(answer.mask.sum()),
        "area_mm2": None if answer.area_mm2 is None else round(answer.area_mm2, 1),
        "box": answer.box,
        "mask_agreement": None if answer.agreement is None else round(answer.agreement, 4),
        "out_of_distribution": answer.ood,
        "doubts": answer.doubts,
        "answered_by_folds": list(answer.folds),
    } | ({} if answer.image.label is None else {"dataset_says": LABELS[answer.image.label]})


HEADER = f"{'image':28} {'called':16} {'probability':>11} {'spread':>7} {'area (px)':>9} {'mm2':>7}  box and doubts"


def line(answer):
    """An answer as a line under HEADER."""
    area = "-" if answer.area_mm2 is None else f"{answer.area_mm2:.0f}"
    probability, spread = (values[answer.label - 1] for values in (answer.probabilities, answer.spread))
    doubts = "".join(f"; DOUBT: {doubt}" for doubt in answer.doubts)
    return (
        f"{answer.image.name:28} {LABELS[answer.label]:16} {probability:11.3f} {spread:7.3f} {answer.mask.sum():9,} "
        f"{area:>7}  {answer.box or 'nothing drawn'}{doubts}"
    )


def stems(paths):
    """Names for what is written of `paths`, all different: {path: its file name, numbered where it must be}.

    So much of a long one that there is room for more within the 255 bytes of a name.
    """
    given, taken = {}, set()
    for path in paths:
        own = os.fsencode(path.name)[:LONGEST_STEM].decode(errors="ignore")
        number, name = 1, own
        while name in taken:
            number += 1
            name = f"{own}-{number}"
        taken.add(name)
        given[path] = name
    return given


def page(answer):
    """One page of HTML that needs no other file and no network."""
    said = facts(answer)
    bars = "".join(
        f"<tr><th>{name}</th><td><div class=bar style='width:{14 * value:.2f}em;background:{CLASS_COLORS[name]}'></div>"
        f"{value:.1%}</td></tr>"
        for name, value in said["probabilities"].items()
    )
    pictures = "".join(
        f"<figure><img alt='{words}' src='data:image/png;base64,{png(picture)}'>"
        f"<figcaption>{words}</figcaption></figure>"
        for words, picture in (
            ("The image", gray(answer)),
            ("The mask", overlay(answer)),
            ("Grad-CAM: where the class was read from", heat(answer)),
        )
    )
    verdict = "".join(f"<li>{doubt}</li>" for doubt in answer.doubts)
    table = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows(answer).items())
    return _PAGE.format(
        name=html.escape(said["image"]),
        notice=NOTICE,
        verdict=f"<div class=doubt><b>Do not believe this answer:</b><ul>{verdict}</ul></div>" if verdict else "",
        called=said["called"],
        bars=bars,
        rows=table,
        pictures=pictures,
    )


def rows(answer):
    """The facts beside the class, each with the words that explain it: {name: value}, both to be shown as they are."""
    area = f"{answer.mask.sum():,} pixels" + ("" if answer.area_mm2 is None else f", {answer.area_mm2:,.0f} mm²")
    shown = {
        "Spread of its probability": f"{answer.spread[answer.label - 1]:.3f}: its deviation over networks and views",
        "Area of the mask": f"{area}; a mask is always drawn, tumor or not",
        "Box (top, left, bottom, right)": answer.box or "none: nothing is drawn",
        "Agreement of the masks": "one network" if answer.agreement is None else f"mean Dice {answer.agreement:.2f}",
        "Out of distribution (over 1)": ", ".join(f"{name} {score:.2f}" for name, score in answer.ood.items()),
        "Answered by": f"{len(answer.folds)} networks"
        if len(answer.folds) > 1
        else f"the network of fold {answer.folds[0]}",
    }
    return shown | ({} if answer.image.label is None else {"The dataset says": LABELS[answer.image.label]})


def write(answer, folder, stem):
    """Write STEM.mask.png, STEM.overlay.png and STEM.html into `folder`, each whole or not at all."""
    for name, picture in (("mask", answer.mask.astype(np.uint8) * 255), ("overlay", overlay(answer))):
        with atomic(folder / f"{stem}.{name}.png") as path:
            Image.fromarray(picture).save(path, format="PNG")
    with atomic(folder / f"{stem}.html") as path:
        path.write_text(page(answer), encoding="utf-8")


def png(picture):
    """A picture, (rows, columns) or (rows, columns, 3) uint8, as PNG in base64."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, format="PNG")
    return base64.b64encode(out.getvalue()).decode()


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{name}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60em; margin: 1em auto; padding: 0 1em; color: #222 }}
.notice {{ border: 3px solid #D55E00; padding: .5em 1em; font-weight: bold }}
.doubt {{ background: #F0E442; padding: .5em 1em; margin: 1em 0 }}
th {{ text-align: left; font-weight: normal; padding-right: 1em; vertical-align: top }}
.bar {{ display: inline-block; height: .8em; margin-right: .5em; min-width: 1px }}
.pictures {{ display: flex; flex-wrap: wrap; gap: 1em }} figure {{ margin: 0; flex: 1 1 16em }} img {{ width: 100% }}
</style></head><body>
<p class="notice">{notice}</p>
<h1>{name}</h1>
{verdict}
<p>Called <b>{called}</b>.</p>
<table>{bars}</table>
<table>{rows}</table>
<div class="pictures">{pictures}</div>
</body></html>
"""
