"""The app's widget: an image or a slice of the dataset in, the prediction out.

app.js displays the HTML of pages.py and sends what the user does. Native controls have
labels, keyboard and touch support, which ipywidgets' boxes lack in part.
"""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import anywidget
import numpy as np
import pages
import traitlets

from braintumor.core.errors import AmbiguousSliceError, DatasetError
from braintumor.data.labels import LABELS
from braintumor.data.prepared import open_data, read_slice_by_number
from braintumor.inference import report
from braintumor.inference.formats import InputImage, read_image
from braintumor.inference.predictor import (
    Predictor,
    find_networks,
    load_held_out_folds,
)

MAX_UPLOAD_MB = 200  # a volume of 512 x 512 x 380 voxels of 16 bits
THUMBNAIL_SIZE = 128  # pixels per side, as in notebook 01_explore
READY = "Ready: drop an image, or choose a slice."


class App(anywidget.AnyWidget):
    """The page, for "phantom" or a folder of slices, as in `open_data`.

    `page`, `gallery`, `selector` and `prediction` are HTML, `status` and `error` plain
    text. Networks are loaded, and predictions made, one after another in a thread of
    its own, so that the page stays usable; a request that a later one has replaced is
    skipped.
    """

    _esm = Path(__file__).with_name("app.js")
    _css = Path(__file__).with_name("app.css")
    page = traitlets.Unicode().tag(sync=True)
    status = traitlets.Unicode("Loading the networks.").tag(sync=True)
    error = traitlets.Unicode().tag(sync=True)
    gallery = traitlets.Unicode().tag(sync=True)
    selector = traitlets.Unicode().tag(sync=True)
    prediction = traitlets.Unicode().tag(sync=True)
    busy = traitlets.Bool(True).tag(sync=True)
    max_bytes = traitlets.Int(MAX_UPLOAD_MB * 10**6).tag(sync=True)

    def __init__(self, data="phantom"):
        super().__init__(page=pages.render_page(MAX_UPLOAD_MB))
        self._data = data
        self._executor = None
        self._upload = None  # (name, bytearray) of the last file
        self._prediction = None  # what the page shows
        self._n_requests = 0
        try:
            self._prepared = open_data(data, THUMBNAIL_SIZE)
            self.gallery = pages.render_gallery(self._prepared)
        except DatasetError as error:
            self._prepared = None
            self.error = f"The dataset cannot be browsed. {error}"
        self.on_msg(self._on_message)

    @property
    def _is_figshare(self):
        """Whether the slices to browse are those of the training."""
        kind = self._prepared.info["kind"] if self._prepared else ""
        return kind.startswith("figshare")

    def _on_message(self, _, content, buffers):
        """Call the handler of a message {"kind": ..., parameter: value}."""
        self.send({"kind": "received"})
        handlers = {
            "open": self._on_open,
            "browse": self._on_browse,
            "thumbnail": self._on_thumbnail,
            "file": self._on_file,
            "slice": self._on_slice,
            "report": self._on_report,
        }
        parameters = dict(content)
        handler = handlers.get(parameters.pop("kind"))
        if buffers:
            parameters["content"] = buffers[0]
        try:
            handler(**parameters)
        except Exception as error:  # the page must survive any message
            self._show_error(describe_bug(error))

    def _on_open(self):
        """Load the networks once the page is shown: importing TensorFlow blocks it."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1)
            self._executor.submit(self._load)

    def _on_browse(self, **filters):
        self.gallery = pages.render_gallery(self._prepared, **filters)

    def _on_thumbnail(self, file):
        self._upload, self.selector = None, ""
        is_phantom = self._prepared.info["kind"] == "phantom"
        note = pages.PHANTOM_NOTE if is_phantom else ""
        self._request(f"Slice {file}", lambda: self._read_slice(file), note)

    def _read_slice(self, file):
        example = read_slice_by_number(self._data, file)
        row = self._prepared.index.set_index("file").loc[file]
        spacing = row["spacing_mm"]
        return InputImage(
            f"Slice {file}",
            example.image,
            None if np.isnan(spacing) else (spacing, spacing),
            # another dataset may have a patient with the same identifier
            patient=example.pid if self._is_figshare else None,
            label=example.label,
            mask=example.mask,
        )

    def _on_file(self, name, start, size, content):
        """Append a part of an uploaded file; predict once it is complete."""
        if start == 0:
            self._upload, self.selector = (name, bytearray()), ""
            self.status, self.busy = f"Reading {name}", True
        upload = self._upload
        upload[1].extend(content)
        if len(upload[1]) == size:
            self._request(name, lambda: self._read_middle(upload))

    def _read_middle(self, upload):
        """Read an upload; of several slices the middle one, with a slice selector."""
        try:
            return read_upload(*upload)
        except AmbiguousSliceError as error:
            count = error.n_slices
            middle = (count + 1) // 2
            if self._upload is upload:
                self.selector = pages.render_selector(upload[0], middle, count)
            return read_upload(*upload, middle)

    def _on_slice(self, number):
        upload = self._upload
        name = f"{upload[0]}, slice {number}"
        self._request(name, lambda: read_upload(*upload, number))

    def _on_report(self):
        html = report.render_report(self._prediction)
        name = f"{self._prediction.image.name}.html"
        self.send({"kind": "report", "name": name}, [html.encode()])

    def _load(self):
        """Load the ensemble, so that the first prediction does not wait for it."""
        try:
            load_predictor(None)
        except DatasetError as error:
            self._show_error(f"The networks cannot be loaded. {error}")
        except Exception as error:
            self._show_error(describe_bug(error))
        else:
            if not self._n_requests:
                self.status, self.busy = READY, False

    def _request(self, name, read, note=""):
        """Queue a prediction of the image that `read()` returns."""
        self._n_requests += 1
        self.error, self.status, self.busy = "", f"Predicting on {name}", True
        self._executor.submit(self._predict, self._n_requests, read, note)

    def _predict(self, request, read, note):
        if request != self._n_requests:
            return
        prediction, problem = None, ""
        try:
            image = read()
            prediction = load_predictor(select_fold(image)).predict(image)
            html = pages.render_prediction(prediction, note)
        except DatasetError as error:
            problem = str(error)
        except Exception as error:
            problem = describe_bug(error)
        if request != self._n_requests:  # replaced meanwhile
            return
        if problem:
            self._show_error(problem)
            return
        self._prediction, self.prediction = prediction, html
        self.status, self.busy = describe_status(prediction), False

    def _show_error(self, message):
        self._prediction, self.prediction = None, ""
        self.error, self.status, self.busy = message, "No prediction.", False


@cache
def load_predictor(fold):
    """Load the networks that held out a fold, or all."""
    return Predictor(find_networks(fold))


def select_fold(image):
    """Return the held-out fold of the image's patient, or None if unknown."""
    return load_held_out_folds().get(image.patient)


def read_upload(name, content, slice_number=None):
    """Read the bytes of an uploaded file as InputImage; the disk keeps nothing.

    Raises
    ------
    DatasetError, AmbiguousSliceError
        As `read_image`, naming the file as the user does.
    """
    if len(content) > MAX_UPLOAD_MB * 10**6:
        raise DatasetError(
            f"{name}: got over {MAX_UPLOAD_MB} MB, expected one slice or a smaller "
            "volume. Export one slice."
        )
    with tempfile.TemporaryDirectory(prefix="braintumor-") as folder:
        path = Path(folder) / "upload"  # the user's file name never becomes a path
        path.write_bytes(content)
        try:
            image = read_image(path, slice_number)
        except DatasetError as error:
            error.args = (str(error).replace(str(path), name),)
            raise
    return replace(image, name=image.name.replace(path.name, name, 1))


def describe_status(prediction):
    """Describe a prediction in one sentence, which screen readers read aloud."""
    name, probability = LABELS[prediction.label], prediction.probabilities.max()
    prefix = "Unreliable prediction" if prediction.warnings else "Prediction"
    return f"{prefix} for {prediction.image.name}: {name}, {probability:.1%}."


def describe_bug(error):
    """Describe an exception that should not have happened."""
    return f"Unexpected {type(error).__name__}: {error}. Please report it."
