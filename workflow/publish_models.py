"""Make models/fold-K.keras from a finished run of notebook 08: its networks with weights of 16 bits, compressed.

python workflow/publish_models.py [RUN]    RUN: the run's folder, default results/full

The archive stays one that keras.models.load_model reads, without running foreign code: only the type in which its
weights are stored changes. They become 32 bits again when it is loaded.
"""

import io
import sys
import zipfile
from pathlib import Path

import h5py

from braintumor.files import ROOT, atomic
from braintumor.splits import FOLDS

WEIGHTS = "model.weights.h5"  # Keras' own name for them within the archive


def halved(weights):
    """A weights file (bytes of HDF5) with its float32 arrays as float16, compressed: bytes."""
    out = io.BytesIO()
    with h5py.File(io.BytesIO(weights)) as source, h5py.File(out, "w") as target:

        def copy(name, found):
            if isinstance(found, h5py.Group):
                made = target.require_group(name)
            else:
                small = found.dtype == "float32" and found.shape
                options = {"dtype": "float16", "compression": "gzip", "shuffle": True} if small else {}
                made = target.create_dataset(name, data=found[()], **options)
            made.attrs.update(found.attrs)

        source.visititems(copy)
        target.attrs.update(source.attrs)
    return out.getvalue()


def publish(run):
    """Write the networks of the five folds of `run`, a folder under the project, to models/."""
    for fold in FOLDS:
        source = ROOT / Path(run) / "classify" / f"fold-{fold}" / "both.keras"
        target = ROOT / "models" / f"fold-{fold}.keras"
        with atomic(target) as path, zipfile.ZipFile(source) as archive, zipfile.ZipFile(path, "w") as out:
            for item in archive.infolist():
                content = archive.read(item)
                item.date_time, item.compress_type = (1980, 1, 1, 0, 0, 0), zipfile.ZIP_DEFLATED
                out.writestr(item, halved(content) if item.filename == WEIGHTS else content)
        print(f"{target.relative_to(ROOT)}: {target.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    publish(*sys.argv[1:] or ["results/full"])
