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
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from fuzz_inputs import GRAY, MASK, MUTATIONS, PIXELS, TABLE, damage, encode, make_seeds
from results import save_results
from tqdm import tqdm

from braintumor.core.errors import DatasetError
from braintumor.core.files import ROOT
from braintumor.data.figshare import Slice, read_cvind, read_mat
from braintumor.data.folder import find_slices, read_slice
from braintumor.data.labels import LABELS
from braintumor.data.preprocessing import MAX_SIDE, pad_to_square, preprocess_slice
from braintumor.data.splits import FOLDS
from braintumor.inference.formats import read_image
from braintumor.training.provenance import collect_environment

MEMORY = 2 << 30  # bytes that reading may take beyond the memory of the process
BATCH_SIZE = 100  # files per process
TIME_LIMIT = 20  # seconds per file
OUT_OF_MEMORY = ("allocation failed", "to allocate", "of memory", "out of space")
FILE_NAMES = {"mat": "1.mat", "png": "a.png", "jpeg": "a.jpg", "tiff": "a.tif"}
FILE_NAMES |= {"npy": "a.npy", "dicom": "a.dcm", "nifti": "a.nii"}
FILE_NAMES |= {"nifti-gz": "a.nii.gz", "pairs": "slices.csv", "cvind": "cvind.mat"}
N_INPUTS = dict.fromkeys(FILE_NAMES, 2000) | {"mat": 10_000}
PAIRS = {"a.png": encode(GRAY, "PNG"), "b.png": encode(PIXELS, "PNG")}
PAIRS |= {"m.png": encode(MASK * 255, "PNG"), "slices.csv": TABLE}
PACKAGES = ("h5py", "numpy", "pillow", "pydicom", "nibabel", "pandas")
FORK = multiprocessing.get_context("fork")


def make_input(seeds, seed, kind, number):
    """Make the input of a kind and a number: {file name: bytes}, slice number or None.

    `seeds` are the good files of each kind.
    """
    rng = random.Random(f"{seed} {kind} {number}")
    files, name = PAIRS if kind == "pairs" else {}, FILE_NAMES[kind]
    slice_number = rng.choice((None, None, 1, 2))
    if kind == "pairs" and rng.random() < 0.3:
        kind, name = "png", rng.choice(("a.png", "m.png"))
    content, other = rng.choice(seeds[kind]), rng.choice(seeds[kind])
    mutate, how = MUTATIONS.get(kind), rng.randrange(8)
    if mutate and how < 5:
        with warnings.catch_warnings(action="ignore"):  # about odd values
            content = mutate(rng, content)
    if how > 3 or not mutate:
        content = damage(rng, content, other)
    return files | {name: content}, slice_number


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
            problems = [f"invalid: {v}" for v in values if not is_valid(v)]
        except DatasetError as error:
            return judge_error(error, path)
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(frame.filename).name}, {frame.name}"
            return f"{type(error).__name__}: {error} ({where})"
    problems += [f"warning: {warning.message}" for warning in caught]
    return "; ".join(problems) or "read"


def read_input(kind, path, slice_number):
    """Return a list of what is read: Slice, InputImage or fold numbers."""
    if kind == "pairs":
        return [read_slice(source) for source in find_slices(path.parent)]
    if kind == "cvind":
        return [read_cvind(path.parent)]
    return [read_mat(path) if kind == "mat" else read_image(path, slice_number)]


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
    if str(path) not in message or not message.isprintable() or len(message) > 1000:
        return f"message: {message!r}"
    return "refused"


def is_valid(value):
    """Return whether a Slice, an InputImage or fold numbers are as promised."""
    if isinstance(value, np.ndarray):
        return value.ndim == 1 and value.size and np.isin(value, FOLDS).all()
    mask, spacing = value.mask, value.spacing_mm
    if isinstance(value, Slice):
        pixels, spacing = value.image, spacing and (spacing,)
        is_known = value.label in LABELS and 0 < len(value.pid) <= 64
        is_finite = np.isfinite(value.border).all() and value.border.shape[1] == 2
        if not (mask.any() and is_known and value.pid.isprintable() and is_finite):
            return False
    else:
        pixels = value.pixels
    prepared = preprocess_slice(pad_to_square(pixels), 16)
    return (
        pixels.ndim == 2
        and all(16 <= side <= MAX_SIDE for side in pixels.shape)
        and pixels.dtype.kind in "biuf"
        and pixels.dtype.isnative
        and np.isfinite(pixels).all()
        and pixels.min() < pixels.max()
        and (prepared.shape, prepared.dtype) == ((16, 16), np.uint8)
        and (mask is None or (mask.dtype, mask.shape) == (bool, pixels.shape))
        and all(0 < mm < math.inf for mm in spacing or ())
    )


# Processes of limited memory and time


def judge_all(inputs, make):
    """Yield input, its files, verdict and seconds, whatever befalls the readers.

    `make(kind, number)` returns the files and the slice number of an input.
    """
    while inputs:
        batch, results = [(kind, *make(kind, n)) for kind, n in inputs[:BATCH_SIZE]], []
        receiver, sender = FORK.Pipe(duplex=False)
        process = FORK.Process(target=judge_batch, args=(batch, sender))
        process.start()
        sender.close()
        with suppress(EOFError):
            while True:
                results.append(receiver.recv())
        process.join()
        if len(results) < len(batch):  # the process died at the next input
            is_hang = process.exitcode == -signal.SIGALRM
            crash = f"crash: exit code {process.exitcode}"
            results.append(("hang" if is_hang else crash, math.nan))
        for item, (_, files, _), result in zip(inputs, batch, results, strict=False):
            yield item, files, *result
        inputs = inputs[len(results) :]


def judge_batch(batch, sender):
    """Judge inputs in a forked process and send (verdict, seconds) of each."""
    faulthandler.enable()
    n_pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = n_pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    for kind, files, slice_number in batch:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "loop").symlink_to("loop")
            write_files(files, Path(folder))
            signal.setitimer(signal.ITIMER_REAL, TIME_LIMIT)  # ends this process
            started = time.perf_counter()
            verdict = judge(kind, Path(folder), slice_number)
            seconds = time.perf_counter() - started
            gc.collect()  # damage to the heap shows now
            signal.setitimer(signal.ITIMER_REAL, 0)
        sender.send((verdict[:1000], seconds))


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
    inputs = []
    for kind in args.only:
        inputs += [(kind, n) for n in range(math.ceil(N_INPUTS[kind] * args.share))]
    make, rows = partial(make_input, make_seeds(), args.seed), []
    gc.freeze()  # else each process would copy all memory when it collects
    results = tqdm(judge_all(inputs, make), total=len(inputs), mininterval=5)
    for (kind, number), files, verdict, seconds in results:
        rows.append((kind, verdict, seconds))
        if verdict not in ("read", "refused"):
            folder = ROOT / f"_build/fuzz/{kind}-{args.seed}-{number}"
            folder.mkdir(parents=True, exist_ok=True)
            write_files(files, folder)
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
