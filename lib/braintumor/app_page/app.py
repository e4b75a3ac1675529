"""The app's page: an image or a slice of the dataset in, what the published networks say of it out.

One widget whose page is HTML that is made here; app.js puts it in place and reports what was done with it. Native
controls come with labels, keyboard and telephone, which ipywidgets' boxes do not all have.
"""

import html
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import anywidget
import numpy as np
import PIL.Image
import traitlets
from skimage.measure import approximate_polygon, find_contours

from braintumor.core.errors import ChoiceError, DatasetError
from braintumor.data import formats as images
from braintumor.data.prepared import KINDS, LABELS, LARGEST_SIDE, PLANES, open_data, slice_by_number
from braintumor.data.splits import FOLDS
from braintumor.evaluation import metrics
from braintumor.inference import report
from braintumor.plots.figures import CLASS_COLORS

LARGEST_MB = 200  # of an upload: a volume of 512 x 512 x 380 voxels of 16 bits
THUMBNAIL = 128  # pixels a side, as notebook 01 prepares too
SHOWN = 20  # thumbnails a page
LARGEST_SHOWN = 1024  # pixels a side of a picture on the page; the report has all
DRAWN = (
    "These patients are drawn, not scanned. The networks learned from real slices: how well they do on drawn ones says "
    "nothing about patients."
)
READY = "Ready: drop an image, or choose a slice."


class App(anywidget.AnyWidget):
    """The page. `data` is "phantom" or a folder of slices, as in `dataset.open_data`.

    What the page shows is in its traits, HTML but for `busy` and `limit` (bytes of an upload). Networks are loaded, and
    questions are answered, one after another in a thread of its own, so that the page can be used meanwhile; a question
    that a later one has overtaken is left out.
    """

    _esm = Path(__file__).with_name("app.js")
    _css = Path(__file__).with_name("app.css")
    page = traitlets.Unicode().tag(sync=True)
    status = traitlets.Unicode("Loading the five networks: some ten seconds.").tag(sync=True)
    error = traitlets.Unicode().tag(sync=True)
    gallery = traitlets.Unicode().tag(sync=True)
    chooser = traitlets.Unicode().tag(sync=True)
    answer = traitlets.Unicode().tag(sync=True)
    busy = traitlets.Bool(True).tag(sync=True)
    limit = traitlets.Int(LARGEST_MB * 10**6).tag(sync=True)

    def __init__(self, data="phantom"):
        super().__init__(page=page(), answer=NOTHING)
        self._data, self._work, self._upload, self._answered, self._asked = data, None, None, None, 0
        try:
            self._prepared = open_data(data, THUMBNAIL)
            self.gallery = gallery(self._prepared)
        except DatasetError as error:
            self._prepared, self.error = None, html.escape(f"The dataset cannot be browsed: {error}")
        self.on_msg(self._heard)

    @property
    def _figshare(self):
        """Whether the slices to browse are those that the networks learned from."""
        return self._prepared is not None and self._prepared.about["kind"].startswith("figshare")

    def _heard(self, _, content, buffers):
        self.send({"kind": "heard"})
        answers = {"open": self._open, "browse": self._browse, "row": self._row, "report": self._report}
        answers |= {"file": self._file, "slice": self._slice}
        given = {name: value for name, value in content.items() if name != "kind"}
        try:
            answers[content["kind"]](**given, **({"content": buffers[0]} if buffers else {}))
        except Exception as error:  # the page goes on whatever it was asked
            self._failed(unforeseen(error))

    def _open(self):
        """Begin once the page is there: TensorFlow's import would keep the messages that build it waiting."""
        if self._work is None:
            self._work = ThreadPoolExecutor(1)
            self._work.submit(self._load, [FOLDS] + [(fold,) for fold in FOLDS] * self._figshare)

    def _browse(self, **chosen):
        self.gallery = gallery(self._prepared, **chosen)

    def _row(self, file):
        def read():
            one = slice_by_number(self._data, file)
            row = self._prepared.index.set_index("file").loc[file]
            spacing = None if np.isnan(row["spacing_mm"]) else (row["spacing_mm"],) * 2
            # another dataset may have a patient of the same identifier
            patient = one.pid if self._figshare else None
            name = f"Slice {file}"
            return images.Image(name, one.image, spacing, patient=patient, label=one.label, mask=one.mask)

        self._upload, self.chooser = None, ""
        self._ask(f"Slice {file}", read, DRAWN if self._prepared.about["kind"] == "phantom" else "")

    def _file(self, name, at, size, content):
        """Takes the part of a file of `size` bytes that begins `at` there; asks once it is whole."""
        if at == 0:
            self._upload, self.chooser = (name, bytearray()), ""
            self.status, self.busy = html.escape(f"Reading {name}"), True
        upload = self._upload
        upload[1].extend(content)
        if len(upload[1]) == size:
            self._ask(name, lambda: self._middle(upload))

    def _middle(self, upload):
        """The slice of an upload; of several the middle one, and the means to choose another."""
        try:
            return uploaded(*upload)
        except ChoiceError as error:
            middle = (error.count + 1) // 2
            if self._upload is upload:
                self.chooser = chooser(upload[0], middle, error.count)
            return uploaded(*upload, middle)

    def _slice(self, number):
        upload = self._upload
        self._ask(f"{upload[0]}, slice {number}", lambda: uploaded(*upload, number))

    def _report(self):
        name = f"{self._answered.image.name}.html"
        self.send({"kind": "report", "name": name}, [report.page(self._answered).encode()])

    def _load(self, wanted):
        """Load the networks of each of `wanted`, the next after what was asked meanwhile."""
        if not self._asked and wanted[0] != FOLDS:
            self.status = f"Loading the networks that held patients out: {wanted[0][0]} of {len(FOLDS)}. Ask already."
        try:
            networks(wanted[0])
        except DatasetError as error:
            self._failed(f"The networks cannot be loaded: {error}")
            return
        except Exception as error:
            self._failed(unforeseen(error))
            return
        if wanted[1:]:
            self._work.submit(self._load, wanted[1:])
        elif not self._asked:
            self.status, self.busy = READY, False

    def _ask(self, name, read, note=""):
        self._asked += 1
        self.error, self.busy = "", True
        self.status = html.escape(f"Asking about {name}" + ("" if _loaded else ", as soon as the networks are loaded"))
        self._work.submit(self._answer, self._asked, name, read, note)

    def _answer(self, number, name, read, note):
        if number != self._asked:
            return
        try:
            image = read()
            answered = networks(folds_for(image)).predict([image])[0]
            shown, fault = answer(answered, note), None
        except DatasetError as error:
            fault = sentence(name, error)
        except Exception as error:
            fault = unforeseen(error)
        if number != self._asked:  # meanwhile
            return
        if fault:
            self._failed(fault)
            return
        self._answered, self.answer = answered, shown
        called, share = LABELS[answered.label], answered.probabilities.max()
        told = "Do not believe this answer" if answered.doubts else "Answered"  # the status is what is read aloud
        self.status = html.escape(f"{told}: {image.name} is called {called}, {share:.1%}.")
        self.busy = False

    def _failed(self, words):
        self._answered, self.answer = None, NOTHING
        self.error, self.status, self.busy = html.escape(words), "No answer.", False


_loaded = set()


@cache
def networks(folds):
    """The published networks of `folds`, ready: the first question takes seconds, and it is asked here."""
    # in here: TensorFlow takes seconds, and the page should be there before
    from braintumor.inference.predictor import Networks

    loaded = Networks(folds)
    loaded.predict([images.Image("none", np.add.outer(np.arange(256), np.arange(256)))])
    _loaded.add(folds)
    return loaded


def folds_for(image):
    """The networks to ask about an `images.Image`: the one that held its patient out, all of them about any other."""
    from braintumor.inference.predictor import fold_of

    fold = fold_of(image.patient)
    return FOLDS if fold is None else (fold,)


def uploaded(name, content, slice_number=None):
    """An uploaded file, `content` bytes, as `images.Image`, named `name`; it is on the disk only while it is read.

    Raises DatasetError, and ChoiceError, as `images.read` does; their messages do not name the file.
    """
    if len(content) > LARGEST_MB * 10**6:
        raise DatasetError(f"is over {LARGEST_MB} MB; expected one slice, or a smaller volume: save one slice of it")
    with tempfile.TemporaryDirectory(prefix="braintumor-") as folder:
        path = Path(folder) / "upload"  # a stranger's file name never becomes a path
        path.write_bytes(content)
        try:
            image = images.read(path, slice_number)
        except DatasetError as error:
            error.args = (str(error).replace(f"{path}: ", "").replace(str(path), "the file"),)
            raise
    return replace(image, name=image.name.replace(path.name, name, 1))


def sentence(name, error):
    """What is wrong with a file, for one who did not make it: the reader's message without a library's own words."""
    words = re.sub(r"^(cannot be read as .*?) \((?!HDF5).*\)(; it may)", r"\1\2", str(error), flags=re.DOTALL)
    begins = words.partition(" ")[0] in ("is", "has", "holds", "declares", "cannot")
    return f"{name} cannot be asked about: {'it ' if begins else ''}{words}."


def unforeseen(error):
    """A sentence about an exception that no reader and no network should have raised."""
    return f"This should not have happened ({type(error).__name__}: {error}). The app goes on; please report it."


# HTML. Names of files and patients come from strangers, and are escaped.


NOTHING = "<p class=empty>The answer appears here.</p>"


def page():
    """All that stays: the notice, the means to ask, and the places that the app's other traits fill."""
    return f"""
<div class=notice role=note><strong>{report.NOTICE}</strong></div>
<header>
<h1>Ask about a slice</h1>
<p>Networks trained on 3,064 contrast-enhanced T1 slices name the tumor on an MR slice, one of three kinds, and outline
it. They always name one, and always draw something: also where there is no tumor.</p>
</header>
<p id=status role=status></p>
<p id=error role=alert></p>
<div class=columns>
<div class=ask>
<section aria-labelledby=own>
<h2 id=own>Your own image</h2>
<div id=drop>
<label for=file>Drop an image here, or <span class=button>choose a file</span></label>
<input id=file type=file aria-describedby=kinds>
</div>
<p id=kinds class=small>PNG, JPEG, TIFF, DICOM, NIfTI, NumPy .npy or figshare’s .mat; up to {LARGEST_MB} MB and
{LARGEST_SIDE:,} pixels a side. It goes no further than this computer, and nothing of it is kept: it is on the disk only
while it is read, and in memory until the next image, or until this page is closed.</p>
<div id=chooser></div>
</section>
<section aria-labelledby=dataset>
<h2 id=dataset>Slices of the dataset</h2>
<div id=gallery></div>
</section>
</div>
<section id=answer aria-label=Answer></section>
</div>
"""


def chooser(name, number, count):
    """The means to choose one of the `count` slices that a file holds; `number` is the one that was taken."""
    return f"""<p>{html.escape(name)} holds {count} slices. Choose one:</p>
<label for=number>Slice <output for=number>{number}</output> of {count}</label>
<input id=number type=range min=1 max={count} value={number}>"""


def gallery(prepared, label="", patient="", plane="", start=0):
    """One page of thumbnails of a `dataset.Prepared`, and the means to choose which.

    `label` (1 to 3), `patient` and `plane` as text, "" for all; `start` is the first to show of those that remain.
    """
    index = prepared.index
    chosen = index[index["label"].astype(str).eq(label)] if label else index
    patients = chosen["pid"].value_counts().sort_index()
    patient = patient if patient in patients else ""
    chosen = chosen[chosen["pid"].eq(patient)] if patient else chosen
    chosen = chosen[chosen["plane"].eq(plane)] if plane else chosen
    start = max(0, min(int(start), (len(chosen) - 1) // SHOWN * SHOWN))
    shown = chosen.iloc[start : start + SHOWN]
    classes = {"": "all"} | {str(n): name for n, name in LABELS.items()}
    people = {"": f"all {len(patients)}"} | {pid: f"{pid} ({count})" for pid, count in patients.items()}
    planes = {"": "all"} | {name: name for name in PLANES if index["plane"].eq(name).any()}
    selects = _select("label", "Class", label, classes) + _select("patient", "Patient", patient, people)
    selects += _select("plane", "Plane", plane, planes)
    thumbnails = "".join(_thumbnail(prepared, *row) for row in shown[["file", "label", "plane"]].itertuples())
    place = f"{start + 1} to {start + len(shown)} of {len(chosen):,}" if len(chosen) else "no slice is of all these"
    kind = prepared.about["kind"]
    return f"""<p class=small>{DRAWN if kind == "phantom" else f"Shown is {KINDS[kind]}."}</p>
<div class=selects>{selects}</div>
<div class=thumbnails>{thumbnails}</div>
<div class=pager>{_pager("previous", "Previous", start - SHOWN, start > 0)}<span>{place}</span>
{_pager("next", "Next", start + SHOWN, start + SHOWN < len(chosen))}</div>"""


def _select(name, title, chosen, options):
    given = "".join(
        f"<option value='{html.escape(value)}'{' selected' if value == chosen else ''}>{html.escape(words)}</option>"
        for value, words in options.items()
    )
    return f"<label>{title}<select id={name} name={name}>{given}</select></label>"


def _thumbnail(prepared, row, file, label, plane):
    words = f"slice {file}, {LABELS[label]}, {plane if plane != 'unknown' else 'plane unknown'}"
    return (
        f"<button type=button class=thumbnail data-file={file} title='{words}'>"
        f"<img alt='{words}' src='data:image/png;base64,{report.png(prepared.images[row])}'></button>"
    )


def _pager(name, words, start, possible):
    # not disabled: the focus would be lost at the last page
    return (
        f"<button type=button id={name} data-start={start} aria-disabled={str(not possible).lower()}>{words}</button>"
    )


def answer(answered, note=""):
    """What an `inference.Answer` says; `note` is for the reader to know first."""
    image, called = answered.image, LABELS[answered.label]
    bars = "".join(
        f"<tr><th scope=row>{name}</th><td><div class=bar style='width:{value:.1%};background:{CLASS_COLORS[name]}'>"
        f"</div></td><td>{value:.1%}</td></tr>"
        for name, value in zip(CLASS_COLORS, answered.probabilities, strict=True)
    )
    rows = report.rows(answered).items()
    facts = "".join(f"<tr><th scope=row>{name}</th><td>{value}</td></tr>" for name, value in rows)
    return f"""<h2>{html.escape(image.name)}</h2>
{_verdict(answered, note)}
<div class=said>
<p class=called>Called <strong>{called}</strong></p>
{_truth(answered)}
<table class=bars><caption>Probability of each class</caption>{bars}</table>
<p class=small>{_who(answered)}</p>
</div>
<div class=pictures>{_pictures(answered)}</div>
<details open><summary><h3>More about this answer</h3></summary><table class=facts>{facts}</table></details>
<button type=button id=report class=button>Download this report</button>
<p class=small>One HTML file with the pictures, made here and now.</p>"""


def _verdict(answered, note):
    noted = f"<p class=calm>{note}</p>" if note else ""
    if answered.doubts:
        listed = "".join(f"<li>{doubt[0].upper() + doubt[1:]}.</li>" for doubt in answered.doubts)
        return f"{noted}<div class=doubt><h3>Do not believe this answer</h3><ul>{listed}</ul></div>"
    return f"{noted}<p class=calm>No check finds this image foreign to the networks. They can still be wrong.</p>"


def _who(answered):
    if len(answered.folds) > 1:
        return f"The mean of {len(answered.folds)} networks, each of which saw the image and its mirror image."
    return f"Answered by the network of fold {answered.folds[0]} alone: the one that did not learn from this patient."


def _truth(answered):
    image = answered.image
    if image.label is None:
        return ""
    right = "As the dataset says."
    if image.label != answered.label:
        right = f"The dataset says <strong>{LABELS[image.label]}</strong>."
    dice = metrics.dice(image.mask, answered.mask)
    return f"<p>{right} Dice of the mask with the true border: {dice:.2f}.</p>"


def _pictures(answered):
    rows, columns = answered.mask.shape
    gray = _shown(report.gray(answered))
    mask, true = outline(answered.mask), "" if answered.image.mask is None else outline(answered.image.mask)
    size = f"viewBox='0 0 {columns} {rows}'"
    words = "The image with the outline of the networks’ mask" + (" and the true border" if true else "")
    switch = "<label><input id=true type=checkbox checked data-keep> True border (dashed)</label>"
    return f"""<figure class=large>
<div class=stage><img alt="{words}" src="data:image/png;base64,{gray}">
<svg {size} aria-hidden=true><path class=mask d="{mask}"/><path class=line d="{mask}"/>
<path class=true d="{true}"/></svg></div>
<figcaption><strong>Overlay</strong>
<span class=key><span class=blue></span> the networks’ mask</span>
{f"<span class=key><span class=yellow></span>{switch}</span>" if true else ""}
<label class=opacity for=opacity>Opacity of the mask</label>
<input id=opacity type=range min=0 max=100 value=35 data-keep>
</figcaption></figure>
<figure><div class=stage><img alt="The image alone" src="data:image/png;base64,{gray}"></div>
<figcaption><strong>Image</strong></figcaption></figure>
<figure><div class=stage><svg {size} role=img aria-label="The mask alone, white on black">
<path class=white d="{mask}"/></svg></div>
<figcaption><strong>Mask</strong></figcaption></figure>
<figure><div class=stage><img alt="Grad-CAM: the image, brighter where the class was read from"
 src="data:image/png;base64,{_shown(report.heat(answered))}"></div>
<figcaption><strong>Grad-CAM</strong> bright where the class was read from</figcaption></figure>"""


def _shown(picture):
    small = PIL.Image.fromarray(picture)
    small.thumbnail((LARGEST_SHOWN, LARGEST_SHOWN))
    return report.png(np.asarray(small))


def outline(mask):
    """The outline of a mask (rows, columns) bool as an SVG path, in pixels with the origin at the picture's corner."""
    found = find_contours(np.pad(mask, 1), 0.5)  # padded: an outline is closed at the picture's edge too
    points = [approximate_polygon(one, 0.3)[:, ::-1] - 0.5 for one in found]
    return "".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in one) + "Z" for one in points)
