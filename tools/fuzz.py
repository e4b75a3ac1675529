"""Read damaged and hostile files (`make fuzz`).

    python tools/fuzz.py [--share 0.01] [--seed 1] [--only mat png]

Each of 28,000 files must be read as a valid slice, or raise a DatasetError of one line
that names the file; anything else is a finding. Files are read in processes of limited
memory and time. Findings go to _build/fuzz, the table of a full run to fuzz.csv and
fuzz.json. Needs Linux.
"""

import argparse
import faulthandler
import gc
import math
import multiprocessing
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from fuzz_mutations import MUTATIONS, damage
from fuzz_seeds import GRAY, MASK, PIXELS, TABLE, encode, make_seeds
from results import save_results
from tqdm import tqdm

from braintumor.core.errors import DatasetError
from braintumor.core.files import ROOT
from braintumor.data.figshare import Slice, read_cvind, read_mat
from braintumor.data.folder import find_slices, read_slice
from braintumor.data.labels import LABELS, PLANES
from braintumor.data.preprocessing import MAX_SIDE, pad_to_square, preprocess_slice
from braintumor.inference.formats import read_image
from braintumor.training.provenance import collect_environment

MEMORY = 2 << 30  # bytes that reading may take beyond the memory of the process
BATCH_SIZE = 100  # files per process
TIME_LIMIT = 20  # seconds per file
MAX_MESSAGE = 1000  # characters
OUT_OF_MEMORY = ("allocation failed", "to allocate", "of memory", "out of space")
FILE_NAMES = {"mat": "1.mat", "png": "a.png", "jpeg": "a.jpg", "tiff": "a.tif"}
FILE_NAMES |= {"npy": "a.npy", "dicom": "a.dcm", "nifti": "a.nii"}
FILE_NAMES |= {"nifti-gz": "a.nii.gz", "pairs": "slices.csv", "cvind": "cvind.mat"}
N_INPUTS = dict.fromkeys(FILE_NAMES, 2000) | {"mat": 10_000}
PAIRS = {"a.png": encode(GRAY, "PNG"), "b.png": encode(PIXELS, "PNG")}
PAIRS |= {"m.png": encode(MASK * 255, "PNG"), "slices.csv": TABLE}
PACKAGES = ("h5py", "numpy", "pillow", "pydicom", "nibabel", "pandas")


class Corpus:
    """All inputs of a random seed, each decided by its kind and number."""

    def __init__(self, seed):
        self.seed, self.seeds = seed, make_seeds()

    def make_input(self, kind, number):
        """Return {file name: bytes}, and a slice number or None."""
        rng = random.Random(f"{self.seed} {kind} {number}")
        slice_number = rng.choice((None, None, 1, 2))
        files, name = PAIRS if kind == "pairs" else {}, FILE_NAMES[kind]
        if kind == "pairs" and rng.random() < 0.3:
            kind, name = "png", rng.choice(("a.png", "m.png"))
        with warnings.catch_warnings(action="ignore"):  # about odd values
            return files | {name: self._mutate(rng, kind)}, slice_number

    def _mutate(self, rng, kind):
        content, other = rng.choice(self.seeds[kind]), rng.choice(self.seeds[kind])
        mutate, how = MUTATIONS.get(kind), rng.randrange(8)
        if mutate and how < 5:
            content = mutate(rng, content)
        return damage(rng, content, other) if how > 3 or not mutate else content


def write_files(files, folder):
    for name, content in files.items():
        (folder / name).write_bytes(content)


# The verdict on one input


def judge(kind, folder, slice_number):
    """Read an input; return "read", "refused", or what is wrong."""
    path = folder / FILE_NAMES[kind]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            values = read_input(kind, path, slice_number)
            problems = [problem for value in values for problem in find_problems(value)]
        except DatasetError as error:
            return judge_error(error, path)
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(frame.filename).name}, {frame.name}"
            return f"{type(error).__name__}: {error} ({where})"
    problems += [f"warning: {warning.message}" for warning in caught]
    return f"invalid: {'; '.join(problems)}" if problems else "read"


def read_input(kind, path, slice_number):
    """Return a list of what is read: Slice, InputImage or fold numbers."""
    if kind == "mat":
        return [read_mat(path)]
    if kind == "cvind":
        return [read_cvind(path.parent)]
    if kind == "pairs":
        return [read_slice(source) for source in find_slices(path.parent)]
    return [read_image(path, slice_number)]


def judge_error(error, path):
    """Return "refused", or what is wrong with a DatasetError or its cause."""
    message, cause = str(error), error
    while cause := cause.__context__:
        text = str(cause).lower()
        is_memory = any(words in text for words in OUT_OF_MEMORY)
        # HDF5 allocates an "on disk image buffer", but reads nothing into it
        is_memory = is_memory and "disk image" not in text
        if isinstance(cause, MemoryError) or is_memory:
            return f"memory: {cause}"
    if str(path) not in message:
        return f"message without the file: {message}"
    if not message.isprintable() or len(message) > MAX_MESSAGE:
        return f"message of several lines, or {len(message)} characters: {message!r}"
    return "refused"


def find_problems(value):
    """Return the names of the checks that a Slice, InputImage or folds fail."""
    if isinstance(value, np.ndarray):
        is_valid = value.ndim == 1 and value.size and np.isin(value, range(1, 6)).all()
        return [] if is_valid else ["folds"]
    is_slice = isinstance(value, Slice)
    pixels, mask = value.image if is_slice else value.pixels, value.mask
    spacing = (value.spacing_mm,) if is_slice else value.spacing_mm or (None,)
    prepared = preprocess_slice(pad_to_square(pixels), 16)
    checks = {
        "size": pixels.ndim == 2 and all(16 <= n <= MAX_SIDE for n in pixels.shape),
        "dtype": pixels.dtype.kind in "biuf" and pixels.dtype.isnative,
        "finite": bool(np.isfinite(pixels).all()),
        "constant": pixels.min() < pixels.max(),
        "prepared": prepared.shape == (16, 16) and prepared.dtype == np.uint8,
        "mask": mask is None or (mask.dtype == bool and mask.shape == pixels.shape),
        "spacing": all(mm is None or 0 < mm < math.inf for mm in spacing),
    }
    if is_slice:
        border = value.border
        checks |= {
            "tumor": mask is not None and bool(mask.any()),
            "label": type(value.label) is int and value.label in LABELS,
            "patient": 0 < len(value.pid) <= 64 and value.pid.isprintable(),
            "border": border.shape[1:] == (2,) and bool(np.isfinite(border).all()),
            "fold": value.fold in (None, 1, 2, 3, 4, 5),
            "plane": value.plane in (None, *PLANES),
        }
    return [name for name, is_valid in checks.items() if not is_valid]


# Processes of limited memory and time


def judge_all(inputs, corpus):
    """Yield (verdict, seconds) of each (kind, number), whatever befalls the readers."""
    fork, remaining = multiprocessing.get_context("fork"), list(inputs)
    while remaining:
        batch, n_judged = remaining[:BATCH_SIZE], 0
        receiver, sender = fork.Pipe(duplex=False)
        process = fork.Process(target=judge_batch, args=(corpus, batch, sender))
        process.start()
        sender.close()
        with suppress(EOFError):
            while True:
                yield receiver.recv()
                n_judged += 1
        process.join()
        if n_judged < len(batch):  # the process died at the next input
            is_hang = process.exitcode == -signal.SIGALRM
            yield (
                "hang" if is_hang else f"crash: exit code {process.exitcode}",
                math.nan,
            )
            n_judged += 1
        del remaining[:n_judged]


def judge_batch(corpus, batch, sender):
    """Judge inputs in a forked process and send (verdict, seconds) of each."""
    faulthandler.enable()
    n_pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = n_pages * resource.getpagesize() + MEMORY
    unlimited = resource.RLIM_INFINITY
    for kind, number in batch:
        files, slice_number = corpus.make_input(kind, number)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "loop").symlink_to("loop")
            write_files(files, Path(folder))
            resource.setrlimit(resource.RLIMIT_AS, (limit, unlimited))
            signal.setitimer(signal.ITIMER_REAL, TIME_LIMIT)  # ends this process
            started = time.perf_counter()
            verdict = judge(kind, Path(folder), slice_number)
            seconds = time.perf_counter() - started
            gc.collect()  # damage to the heap shows now
            signal.setitimer(signal.ITIMER_REAL, 0)
            resource.setrlimit(resource.RLIMIT_AS, (unlimited, unlimited))
        sender.send((verdict[:1000], seconds))


def warm_up(corpus):
    """Read all seeds, so that forked processes find their libraries loaded."""
    for kind, seeds in corpus.seeds.items():
        for seed in seeds:
            with tempfile.TemporaryDirectory() as folder:
                files = PAIRS if kind == "pairs" else {}
                write_files(files | {FILE_NAMES[kind]: seed}, Path(folder))
                judge(kind, Path(folder), None)
    gc.freeze()  # else each process would copy all memory when it collects


def count_verdicts(rows):
    """Count rows (kind, verdict, seconds) by kind."""
    table = pd.DataFrame(rows, columns=["kind", "verdict", "seconds"])
    is_good = table["verdict"].isin(["read", "refused"])
    verdicts = table["verdict"].where(is_good, "findings")
    counts = pd.crosstab(table["kind"], verdicts, margins=True, margins_name="inputs")
    columns = ["inputs", "read", "refused", "findings"]
    counts = counts.reindex(table["kind"].unique(), columns=columns, fill_value=0)
    seconds = table.groupby("kind")["seconds"]
    counts = counts.assign(seconds=seconds.sum(), slowest=seconds.max())
    return counts.round(2).reset_index()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--share", type=float, default=1.0, help="of all inputs")
    parser.add_argument("--seed", type=int, default=1)
    kinds = list(N_INPUTS)
    parser.add_argument("--only", nargs="+", choices=kinds, default=kinds)
    args = parser.parse_args()
    counts = {kind: math.ceil(N_INPUTS[kind] * args.share) for kind in args.only}
    inputs = [(kind, n) for kind, count in counts.items() for n in range(count)]
    corpus, rows = Corpus(args.seed), []
    warm_up(corpus)
    verdicts = tqdm(judge_all(inputs, corpus), total=len(inputs), mininterval=5)
    for (kind, number), (verdict, seconds) in zip(inputs, verdicts, strict=True):
        rows.append((kind, verdict, seconds))
        if verdict not in ("read", "refused"):
            folder = ROOT / f"_build/fuzz/{kind}-{args.seed}-{number}"
            folder.mkdir(parents=True, exist_ok=True)
            write_files(corpus.make_input(kind, number)[0], folder)
            tqdm.write(f"{folder.relative_to(ROOT)}: {verdict}")
    table = count_verdicts(rows)
    print(table.to_string(index=False))
    if args.share == 1 and args.only == kinds:
        limits = {"memory_mb": MEMORY >> 20, "seconds_per_input": TIME_LIMIT}
        record = {"seed": args.seed} | limits | collect_environment(threads=1)
        record["packages"] = {name: version(name) for name in PACKAGES}
        save_results("fuzz", table, record)
    return int(table["findings"].sum() > 0)


if __name__ == "__main__":
    sys.exit(main())
