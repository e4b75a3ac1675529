"""`make fuzz`: damaged and hostile files through the code that reads them. The answer must be a slice that keeps all
promises, or a DatasetError of one line that names the file; anything else is a finding.

python tools/fuzz.py [--share 0.01] [--seed 1] [--only mat png]    --share: of the 10,000 .mat and 2,000 of the others

An input is decided by its kind, its number and the seed. They are read in processes of bounded memory and time; if one
of these dies, the input that it was at is the finding. Findings are written to _build/fuzz, the table of a full run to
results/tested/fuzz.csv and fuzz.json. Needs Linux.
"""

import argparse
import faulthandler
import gc
import gzip
import io
import json
import math
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pandas as pd
import PIL.Image
import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)
from tests.test_images import GRAY, PIXELS, RAS, SIDE, STANDARD, WIDE, as_volume, dicom, png
from results import keep
from tqdm import tqdm

from braintumor.core.errors import DatasetError
from braintumor.core.files import ROOT
from braintumor.data import formats as images
from braintumor.data.phantom import write_cvind, write_slice
from braintumor.data.prepared import LARGEST_SIDE, PLANES, Slice, find_slices, read_cvind, read_slice, scaled
from braintumor.training.provenance import machine

MEMORY = 2 << 30  # bytes that reading may take beyond what the child has when it starts
BATCH = 100  # inputs that one process reads
SECONDS = 20  # for one input; on a busy machine
LONGEST = 1000  # characters of a message
WANTS_MEMORY = ("allocation failed", "unable to allocate", "can't allocate", "memory", "out of space")
GOOD = ("read", "refused")
COUNTS = dict.fromkeys(("mat", "png", "jpeg", "tiff", "npy", "dicom", "nifti", "nifti-gz", "pairs", "cvind"), 2000)
COUNTS["mat"] = 10_000
NAMES = {"mat": "1.mat", "jpeg": "a.jpg", "dicom": "a.dcm", "nifti": "a.nii", "nifti-gz": "a.nii.gz"}
NAMES |= {"png": "a.png", "tiff": "a.tif", "npy": "a.npy", "cvind": "cvind.mat"}
PACKAGES = ("h5py", "numpy", "pillow", "pydicom", "nibabel", "pandas")
ODD = (0, 1, -1, 2, 3, 15, 16, 20, 24, 32, 127, 128, 255, 256, 4096, 4097, 2**15 - 1, 2**16 - 1, 2**31 - 1, 2**31)
ODD += (2**32 - 1, 2**63 - 1, -(2**31), -(2**63))
MASK = np.zeros((SIDE, SIDE), np.uint8)
MASK[5:12, 18:22] = 1
BORDER = np.array([[19.0, 6, 22, 6, 22, 12, 19, 12]])


# Seeds: small good files of many variants.


def saved(array, kind, **settings):
    image = array if isinstance(array, PIL.Image.Image) else PIL.Image.fromarray(array)
    out = io.BytesIO()
    image.save(out, kind, **settings)
    return out.getvalue()


def written(write, name):
    """The bytes that `write(path)` writes."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def turned():
    exif = PIL.Image.Exif()
    exif[274] = 6
    return exif


def mat_seeds():
    yield written(lambda path: write_slice(path, PIXELS, MASK, 2, "P1", BORDER), "1.mat")
    yield written(
        lambda path: write_slice(path, np.tile(PIXELS, (4, 4)), np.tile(MASK, (4, 4)), 1, "7", BORDER), "1.mat"
    )
    for libver, filters in (("earliest", {}), ("latest", {}), ("latest", {"compression": "gzip", "shuffle": True})):
        yield hdf5(libver, lambda struct, filters=filters: [add(struct, *item, **filters) for item in FIELDS.items()])


def png_seeds():
    color = PIL.Image.fromarray(np.dstack([GRAY, GRAY // 2, 255 - GRAY]))
    yield from (saved(array, "PNG") for array in (GRAY, WIDE, MASK.astype(bool), color))
    yield from (saved(color.convert(mode), "PNG") for mode in ("P", "LA", "RGBA"))
    yield saved(color.convert("P"), "PNG", transparency=3)
    yield saved(color, "PNG", transparency=(0, 0, 0), exif=turned(), icc_profile=bytes(200), dpi=(72, 72))
    notes = PIL.PngImagePlugin.PngInfo()
    notes.add_text("Comment", "a note", zip=True)
    notes.add_itxt("Title", "a slice", "en", "Title", zip=True)
    yield saved(GRAY, "PNG", pnginfo=notes)
    yield saved(color, "PNG", save_all=True, append_images=[color.rotate(90)])
    yield png(32, 20, b"".join(b"\2" + row.tobytes() for row in GRAY))


def jpeg_seeds():
    color = PIL.Image.fromarray(np.dstack([GRAY, GRAY // 2, 255 - GRAY]))
    yield from (saved(color.convert(mode), "JPEG", quality=50) for mode in ("L", "RGB", "CMYK"))
    yield from (saved(color, "JPEG", progressive=True, subsampling=sampling) for sampling in (0, 2))
    yield saved(color, "JPEG", exif=turned(), icc_profile=bytes(200), comment=b"a note", restart_marker_rows=1)
    yield saved(color, "MPO", save_all=True, append_images=[color])


def tiff_seeds():
    color = PIL.Image.fromarray(np.dstack([GRAY, GRAY // 2, 255 - GRAY]))
    yield from (saved(array, "TIFF") for array in (GRAY, WIDE, WIDE.astype(np.int32), WIDE.astype(np.float32), color))
    yield saved(PIL.Image.frombytes("I;16B", (32, 20), WIDE.astype(">u2").tobytes()), "TIFF")
    yield from (saved(color.convert(mode), "TIFF") for mode in ("1", "P", "LA", "RGBA", "CMYK", "YCbCr", "LAB"))
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield saved(color, "TIFF", compression=compression)
        yield saved(GRAY if compression == "jpeg" else WIDE, "TIFF", compression=compression)
    yield from (saved(color.convert("1"), "TIFF", compression=f"group{n}") for n in (3, 4))
    yield saved(WIDE, "TIFF", big_tiff=True)
    yield saved(WIDE, "TIFF", tiffinfo={262: 0})
    yield saved(GRAY, "TIFF", tiffinfo={274: 6})
    yield saved(GRAY, "TIFF", save_all=True, append_images=[PIL.Image.fromarray(GRAY.T)])


def npy_seeds():
    for dtype in ("u1", ">u2", "i2", "i8", "f2", "f4", ">f8", "?", "c8", "U2", "f16"):
        yield written(lambda path, dtype=dtype: np.save(path, GRAY.astype(dtype)), "a.npy")
    yield written(lambda path: np.save(path, np.asfortranarray(WIDE)), "a.npy")
    yield written(lambda path: np.save(path, GRAY.astype(object), allow_pickle=True), "a.npy")
    for number in ((2, 0), (3, 0)):
        out = io.BytesIO()
        np.lib.format.write_array(out, WIDE, number)
        yield out.getvalue()


def dicom_bytes(dataset, **settings):
    out = io.BytesIO()
    dataset.save_as(out, **({"enforce_file_format": True} | settings))
    return out.getvalue()


def in_groups(keyword, **attributes):
    item, groups = Dataset(), Dataset()
    item.update(attributes)
    setattr(groups, keyword, Sequence([item]))
    return groups


def dicom_seeds():
    yield dicom_bytes(dicom(WIDE))
    yield dicom_bytes(dicom(WIDE, RescaleSlope=2.5, RescaleIntercept=-10, PhotometricInterpretation="MONOCHROME1"))
    yield dicom_bytes(dicom(WIDE.astype(np.int16) - 1000, ImageOrientationPatient=[0, 1, 0, 0, 0, -1]))
    yield dicom_bytes(dicom(np.dstack([GRAY, GRAY // 2, GRAY])))
    yield dicom_bytes(dicom(np.dstack([GRAY, GRAY // 2, GRAY]), PhotometricInterpretation="YBR_FULL"))
    yield dicom_bytes(dicom(np.stack([WIDE, WIDE + 1, WIDE + 2])))
    for syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian):
        dataset = dicom(GRAY)
        dataset.file_meta.TransferSyntaxUID = syntax
        yield dicom_bytes(dataset)
    bare = dicom(WIDE)
    del bare.file_meta
    yield dicom_bytes(bare, implicit_vr=True, little_endian=True, enforce_file_format=False)
    for pixels in (WIDE, np.stack([GRAY, GRAY + 1])):
        dataset = dicom(pixels)
        dataset.compress(RLELossless, generate_instance_uid=False)
        yield dicom_bytes(dataset)
    smooth = np.add.outer(np.arange(20), np.arange(32) * 4).astype(np.uint8)
    for syntax, kind, settings in ((JPEG2000Lossless, "JPEG2000", {"no_jp2": True}), (JPEGBaseline8Bit, "JPEG", {})):
        dataset = dicom(smooth, PixelData=encapsulate([saved(smooth, kind, **settings)]))
        dataset.file_meta.TransferSyntaxUID = syntax
        yield dicom_bytes(dataset)
    shared = in_groups("PixelMeasuresSequence", PixelSpacing=[0.5, 0.75])
    each = [in_groups("PixelValueTransformationSequence", RescaleSlope=n, RescaleIntercept=1) for n in (1, 3)]
    for groups in each:
        groups.update(in_groups("PlaneOrientationSequence", ImageOrientationPatient=STANDARD))
    frames = {"SharedFunctionalGroupsSequence": Sequence([shared]), "PerFrameFunctionalGroupsSequence": Sequence(each)}
    own = {"storage": EnhancedMRImageStorage, "PixelSpacing": None, "ImageOrientationPatient": None}
    yield dicom_bytes(dicom(np.stack([WIDE, WIDE]), **frames, **own))


def nifti_seeds():
    volume = np.repeat(as_volume(PIXELS[:24, :20]), 3, axis=2)
    for dtype in ("u1", "i2", "u2", "i4", "f4", "f8", "i8", "c8"):
        yield nibabel.Nifti1Image(volume.astype(dtype), RAS, dtype=dtype).to_bytes()
    yield nibabel.Nifti2Image(volume, RAS).to_bytes()
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    header.set_slope_inter(2, -5)
    yield nibabel.Nifti1Image(volume.astype(np.int16), RAS, header).to_bytes()
    noted = nibabel.Nifti1Image(volume, RAS)
    noted.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"a note"))
    yield noted.to_bytes()
    for shape in ((20, 24), (20, 24, 1, 1), (1, 20, 24), (20, 24, 1)):
        yield nibabel.Nifti1Image(volume[..., 0].reshape(shape), np.diag([0.5, 3, 0.5, 1])).to_bytes()
    colors = np.zeros((20, 24, 1), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    yield nibabel.Nifti1Image(colors, np.eye(4)).to_bytes()


TABLE = b"image,mask,label,patient,fold,plane,spacing_mm\na.png,m.png,glioma,P1,1,axial,0.5\nb.png,m.png,1,P2,2,,\n"
PAIRS = {"a.png": saved(GRAY, "PNG"), "b.png": saved(WIDE, "PNG"), "m.png": saved(MASK[:20] * 255, "PNG")}
PAIRS["slices.csv"] = TABLE
FIELDS = {
    "image": PIXELS.astype(np.int16),
    "tumorMask": np.ascontiguousarray(MASK.T),
    "label": np.array([[2.0]]),
    "PID": np.array([[80], [49]], np.uint16),
    "tumorBorder": BORDER,
}
SEEDS = {
    "mat": mat_seeds,
    "png": png_seeds,
    "jpeg": jpeg_seeds,
    "tiff": tiff_seeds,
    "npy": npy_seeds,
    "dicom": dicom_seeds,
    "nifti": nifti_seeds,
    "nifti-gz": lambda: (gzip.compress(content, mtime=0) for content in nifti_seeds()),
    "pairs": lambda: [PAIRS["slices.csv"]],
    "cvind": lambda: [written(lambda path, n=n: write_cvind(path, [1, 2, 3, 4, 5] * n), "cvind.mat") for n in (1, 60)],
}


# Mutations that know nothing of the kind.


def number(chance, size, order="<"):
    """Bytes of an odd, or any, whole number."""
    value = chance.choice(ODD) if chance.random() < 0.8 else chance.getrandbits(8 * size)
    return (value % 2 ** (8 * size)).to_bytes(size, "little" if order == "<" else "big")


def damaged(chance, content, other):
    """`content` with some bytes changed, cut off, moved, or replaced by some of `other`."""
    content = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        # headers are where most is decided
        reach = len(content) if chance.random() < 0.5 else min(len(content), 1024)
        at, size = chance.randrange(reach + 1), chance.choice((1, 2, 4, 8, 16, 64, 512))
        how = chance.randrange(9)
        if how == 0 and at < len(content):
            content[at] ^= 1 << chance.randrange(8)
        elif how == 1:
            content[at : at + 1] = chance.randbytes(1)
        elif how in (2, 3):
            size = min(size, 8)
            content[at : at + size] = number(chance, size, chance.choice("<>"))
        elif how == 4 and chance.random() < 0.3:
            del content[at:]
        elif how == 5:
            content[at:at] = content[at : at + size]
        elif how == 6:
            del content[at : at + size]
        elif how == 7:
            begin = chance.randrange(len(other))
            content[at : at + size] = other[begin : begin + size]
        elif how == 8:
            content[at : at + size] = bytes(size)
    return bytes(content)


# Mutations that know the kind: what is changed gets past checksums and parsers.


def hdf5(libver, fill):
    """A .mat file as bytes: HDF5 with a group cjdata that `fill` fills."""
    with h5py.File("never written", "w", driver="core", backing_store=False, libver=libver) as file:
        fill(file.create_group("cjdata"))
        file.flush()
        return file.id.get_file_image()


def add(group, name, value, **settings):
    """A dataset, stored in chunks if it has filters."""
    if settings and np.ndim(value):
        settings = {"chunks": tuple(max(1, n // 2) for n in np.shape(value))} | settings
        group.create_dataset(name, data=value, **settings)
    else:
        group[name] = value


def tailored_mat(chance, _):
    """Fields that are missing, swapped, links, stored elsewhere, of other types and shapes, or declared huge."""
    wrong = set(chance.sample(list(FIELDS), chance.choice((1, 1, 1, 2, 5))))

    def fill(struct):
        for name, value in FIELDS.items():
            if name in wrong:
                odd_field(chance, struct, name, value)
            else:
                add(struct, name, value, **chance.choice(({}, {}, {"compression": "gzip"}, {"fletcher32": True})))

    return hdf5(chance.choice(("earliest", "latest")), fill)


def odd_field(chance, group, name, value):
    how = chance.randrange(16)
    if how == 0:
        return
    if how == 1:
        group[name] = chance.choice(list(FIELDS.values()))
    elif how == 2:
        group.create_group(name)
    elif how == 3:
        targets = ("/cjdata/label", "/cjdata/" + name, "/", "/cjdata", "nowhere")
        group[name] = h5py.SoftLink(chance.choice(targets))
    elif how == 4:
        targets = ("1.mat", "/dev/zero", "/etc/hostname", "nowhere", "/")
        group[name] = h5py.ExternalLink(chance.choice(targets), f"/cjdata/{name}")
    elif how == 5:
        target = chance.choice(("/dev/zero", "/etc/hostname", "1.mat", "nowhere"))
        group.create_dataset(name, value.shape, value.dtype, external=[(target, 0, value.nbytes)])
    elif how == 6:
        layout = h5py.VirtualLayout(value.shape, value.dtype)
        layout[...] = h5py.VirtualSource(chance.choice((".", "1.mat")), "/cjdata/image", value.shape)
        group.create_virtual_dataset(name, layout)
    elif how in (7, 8):
        kinds = ("?", "u1", "i1", ">i2", "<i4", "<u8", ">f4", "f8", "f2", "c16", "S5", "f16")
        group[name] = value.astype(chance.choice(kinds))
    elif how == 9:
        odd = ("a text", b"", h5py.Empty("f8"), np.array([(1, 2.0)], "i4,f8"), [b"a", b"bc"], h5py.Empty("S3"))
        group[name] = chance.choice(odd)
    elif how == 10:
        group.create_dataset(name, (3,), chance.choice((h5py.vlen_dtype("i4"), h5py.ref_dtype, h5py.string_dtype())))
    elif how == 11:
        side = chance.choice((0, 1, 15, 16, 33, 64, 4096, 4097, 2**20, 2**31))
        shape = chance.choice(((side, side), (side,), (side, 1), (), (side, 32), (2, side, 2), (1,) * 32))
        chunks = True if shape and 0 not in shape else None
        group.create_dataset(name, shape, chance.choice(("u1", "i2", "f8")), chunks=chunks)
    elif how == 12:
        chunk = chance.choice(((1, 1), (7, 3), (512, 512), (20_000, 20_000), (65_535, 65_535)))
        two = np.atleast_2d(value)
        group.create_dataset(name, two.shape, two.dtype, maxshape=(None, None), chunks=chunk)
        with_chunk(chance, group[name])
    elif how == 13:
        two = np.atleast_2d(value)
        filters = ({"compression": "gzip"}, {"compression": "lzf"}, {"scaleoffset": 3}, {"shuffle": True})
        group.create_dataset(name, data=two, chunks=two.shape, **chance.choice(filters))
        with_chunk(chance, group[name])
    elif how == 14:
        values = np.asarray(value, np.float64).copy()
        odd = (np.nan, np.inf, -np.inf, 1e308, -1e308, 5e-324, 1e39, 2**63, -1, 2, 0.5)
        values.flat[chance.randrange(values.size)] = chance.choice(odd)
        with np.errstate(all="ignore"):
            group[name] = values * chance.choice((1, 1, 0, 1e300, -1e-310))
    else:
        group[name] = np.resize(value, chance.choice((value.shape[::-1], (1, *value.shape), (16, 16), (7,), (40, 40))))


def with_chunk(chance, dataset):
    """Bytes of its first chunk that are not what they should be: noise, or much that is compressed small."""
    dataset.id.write_direct_chunk((0,) * dataset.ndim, chance.choice((chance.randbytes(40), *SMALL_BOMBS)))


def tailored_png(chance, content):
    """Chunks changed, repeated, left out and moved, with right checksums; also the rows that IDAT holds."""
    chunks, at = [], 8
    while at + 8 <= len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += size + 12
    for _ in range(chance.choice((1, 1, 2, 4))):
        where = chance.randrange(len(chunks))
        name, inside = chunks[where]
        how = chance.randrange(6)
        if how < 2:
            if name == b"IDAT" and chance.random() < 0.7:
                with suppress(zlib.error):  # damaged before
                    inside = zlib.compress(damaged(chance, zlib.decompress(inside), content))
            else:
                inside = damaged(chance, inside, content)
            chunks[where] = (name, inside)
        elif how == 2:
            sides = struct.pack(">II", *(n % 2**32 for n in chance.choices(ODD, k=2)))
            chunks[where] = (b"IHDR", sides + chance.choice(IHDR))
        elif how == 3:
            chunks.insert(where, chance.choice(chunks))
        elif how == 4 and len(chunks) > 1:
            del chunks[where]
        else:
            chunks.insert(where, (chance.choice(EXTRA), chance.choice((b"", b"a\0\0" + BOMB, chance.randbytes(30)))))
    return content[:8] + b"".join(
        struct.pack(">I", len(inside)) + name + inside + struct.pack(">I", zlib.crc32(name + inside))
        for name, inside in chunks
    )


SMALL_BOMBS = [zlib.compress(bytes(size)) for size in (10, 10**5, 10**7)]
BOMB = zlib.compress(bytes(2**27), 9)
IHDR = [bytes((depth, kind, 0, 0, lace)) for depth in (1, 2, 4, 8, 16) for kind in (0, 2, 3, 4, 6) for lace in (0, 1)]
EXTRA = b"zTXt iCCP iTXt tEXt eXIf PLTE tRNS gAMA pHYs acTL fcTL fdAT sBIT".split()


def tailored_jpeg(chance, content):
    """Segments changed, repeated, left out and moved; and frames that declare other sizes."""
    segments, at = [], 2
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] != 0xDA:
        size = 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        segments.append(content[at : at + size])
        at += size
    scans = content[at:]
    for _ in range(chance.choice((1, 1, 2, 4))):
        where = chance.randrange(len(segments))
        how = chance.randrange(6)
        if how == 0:
            segments[where] = segments[where][:4] + damaged(chance, segments[where][4:], content)
        elif how == 1:
            inside = damaged(chance, segments[where][4:], content)[: 2**16 - 3]
            segments[where] = segments[where][:2] + struct.pack(">H", len(inside) + 2) + inside
        elif how == 2:
            segments = [
                one[:5] + struct.pack(">HH", *(n % 2**16 for n in chance.choices(ODD, k=2))) + one[9:]
                if one[1] in (0xC0, 0xC2)
                else one
                for one in segments
            ]
        elif how == 3:
            segments.insert(where, chance.choice(segments))
        elif how == 4 and len(segments) > 1:
            del segments[where]
        else:
            scans += scans[: chance.randrange(len(scans))]
    return content[:2] + b"".join(segments) + scans


def tailored_tiff(chance, content):
    """Entries of the first directory changed: tag, type, count, value; or where the next directory is."""
    content, order = bytearray(content), "<" if content[:2] == b"II" else ">"
    if content[2:4] in (b"+\0", b"\0+"):  # BigTIFF
        return damaged(chance, content, content)
    first = struct.unpack_from(f"{order}I", content, 4)[0]
    count = struct.unpack_from(f"{order}H", content, first)[0]
    for _ in range(chance.choice((1, 1, 2, 3))):
        at = first + 2 + 12 * chance.randrange(count + 1)
        how = chance.randrange(6)
        if at >= first + 2 + 12 * count:
            content[at : at + 4] = struct.pack(f"{order}I", chance.choice((first, 8, 0, at, len(content))))
        elif how == 0:
            tags = (256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 338, 339)
            content[at : at + 2] = struct.pack(f"{order}H", chance.choice(tags))
        elif how == 1:
            content[at + 2 : at + 4] = struct.pack(f"{order}H", chance.randrange(20))
        elif how == 2:
            content[at + 4 : at + 8] = number(chance, 4, order)
        elif how == 3:
            content[at + 8 : at + 12] = number(chance, 4, order)
        else:
            content[at + 8 : at + 10] = struct.pack(f"{order}H", chance.choice((0, 1, 2, 3, 4, 5, 7, 8, 16, 32, 64)))
    return bytes(content)


def tailored_npy(chance, content):
    """Another header over the same values."""
    kinds = ("'<u2'", "'|O'", "'>f8'", "'<f2'", "'|b1'", "'<c8'", "'<U9'", "[('a','<u2')]", "'<M8[s]'", "'|V8'", "3")
    shapes = ("20, 32", "32, 20", "16, 16", "4096, 4096", "100000, 100000", "-1, 32", "20", "", "20, 32, 1", "1e3, 2")
    shapes += ("2**9, 32", "True, 32")
    order = chance.choice(("False", "True", "0", "None"))
    shape = f"({chance.choice(shapes)},)"
    head = f"{{'descr': {chance.choice(kinds)}, 'fortran_order': {order}, 'shape': {shape}, }}"
    odd = ("(" * 3000, head * 2, head + "\n" * 20_000, "__import__('os').getpid()", head[:-9])
    head = chance.choice((head, head, head, *odd))
    numbers = chance.choice(((1, 0), (2, 0), (3, 0), (4, 0)))
    size = struct.pack("<H", min(len(head), 2**16 - 1)) if numbers == (1, 0) else struct.pack("<I", len(head))
    return b"\x93NUMPY" + bytes(numbers) + size + head.encode() + content[128:]


def tailored_dicom(chance, content):
    """Elements replaced by odd values, by one another's values, repeated in sequences, or left out."""
    dataset = pydicom.dcmread(io.BytesIO(content), force=True)
    meta = getattr(dataset, "file_meta", None)
    syntax = (meta or {}).get("TransferSyntaxUID", ImplicitVRLittleEndian)
    little = syntax != ExplicitVRBigEndian
    values = (b"", b"\\", b"1\\2\\3", b"-1", b"1e300", b"nan", b"0", b"2147483648", b"a\nb", b"\xff\xfe", b"X" * 300)
    values += (b"RGB ", b"MONOCHROME1 ", b"YBR_FULL_422", b"1e-320\\1e300", b"0\\0\\0\\0\\0\\1", b"inf\\inf", b"1.2.3")
    for _ in range(chance.choice((1, 1, 2, 3))):
        tag = chance.choice(list(dataset.keys()))
        how = chance.randrange(4)
        vr = dataset.get_item(tag).VR or "UN"
        if how == 0:
            del dataset[tag]
            if not len(dataset):
                break
            continue
        if how == 1 and vr != "SQ":
            value = number(chance, chance.choice((1, 2, 4)), "<" if little else ">")
        elif how == 2:
            value = chance.choice(values)
        else:
            value = chance.randbytes(chance.choice((1, 2, 4, 100)))
        if chance.random() < 0.2:
            vr = chance.choice(("OB", "US", "DS", "SQ", "UN", "LO", "IS", "UI", "FD"))
        dataset[tag] = RawDataElement(tag, vr, len(value), value, 0, False, little)
    try:
        plain = {} if meta else {"implicit_vr": True, "little_endian": True}
        return dicom_bytes(dataset, enforce_file_format=False, **plain)
    except Exception:  # pydicom does not write all that it can be asked to read
        return content


def tailored_nifti(chance, content):
    """Fields of the header of other values."""
    content = bytearray(content)
    second = content[4:8] == b"n+2\0"
    little = content[:4] in (struct.pack("<i", 348), struct.pack("<i", 540))
    kind = nibabel.Nifti2Header if second else nibabel.Nifti1Header
    names = ("dim", "datatype", "bitpix", "pixdim", "vox_offset", "scl_slope", "scl_inter", "qform_code", "sform_code")
    names += ("srow_x", "srow_y", "srow_z", "quatern_b", "magic", "sizeof_hdr", "intent_code")
    for _ in range(chance.choice((1, 1, 2, 3))):
        field, at = kind.template_dtype.fields[chance.choice(names)]
        field, shape = field.base, field.shape
        at += field.itemsize * chance.randrange(math.prod(shape))
        if field.kind == "f":
            odd = chance.choice((0, 1, -1, math.nan, math.inf, -math.inf, 1e38, 1e-40, 352, 353, 1e6, 0.5))
            with np.errstate(over="ignore"):
                value = np.array(odd, field.newbyteorder("<" if little else ">")).tobytes()
        else:
            value = number(chance, field.itemsize, "<" if little else ">")
            if field.itemsize == 2 and chance.random() < 0.5:  # a code, or a length that may be
                code = chance.choice((0, 1, 2, 4, 8, 16, 32, 64, 128, 512, 1536, 2048, 2304))
                value = struct.pack("<h" if little else ">h", code)
        content[at : at + field.itemsize] = value
    return bytes(content)


def tailored_gz(chance, content):
    """The volume inside changed, or volumes that are very small when compressed."""
    inside = gzip.decompress(content)
    inside = chance.choice((tailored_nifti, lambda chance, inside: damaged(chance, inside, inside)))(chance, inside)
    if chance.random() < 0.01:
        inside += bytes(2**24)
    return gzip.compress(inside, 1, mtime=0)


def tailored_table(chance, content):
    """Cells of other values; more and fewer of them."""
    rows = [line.split(b",") for line in content.splitlines()]
    odd = (
        b"",
        b"  ",
        b'"',
        b'"a\nb"',
        b"nan",
        b"-1",
        b"1e9",
        b"\0",
        b"../a.png",
        b"/etc/hostname",
        b"a.png\0",
        b"x" * 5000,
    )
    odd += (
        b"\xff\xfe",
        b"9" * 5000,
        b"a.png",
        b"inf",
        b"1_0",
        b"\xef\xbc\x91",
        b"\x1b[31mred",
        b"image",
        b".",
        b"loop",
        b"sub/",
    )
    for _ in range(chance.choice((1, 1, 2, 4))):
        row = chance.choice(rows)
        how = chance.randrange(5)
        if how < 3:
            row[chance.randrange(len(row))] = chance.choice(odd)
        elif how == 3:
            row.append(chance.choice(odd))
        elif len(row) > 1:
            del row[chance.randrange(len(row))]
    if chance.random() < 0.1:
        rows = [[*row, b""] for row in rows[:1]] + [[*row, b"x", b"y"] for row in rows[1:]]
    return chance.choice((b"\n", b"\n", b"\n", b"\r\n", b"\r")).join(b",".join(row) for row in rows)


def tailored_cvind(chance, _):
    with h5py.File("never written", "w", driver="core", backing_store=False) as file:
        odd_field(chance, file, "cvind", np.array([[1.0, 2, 3, 4, 5]]))
        file.flush()
        return file.id.get_file_image()


TAILORED = {
    "mat": tailored_mat,
    "png": tailored_png,
    "jpeg": tailored_jpeg,
    "tiff": tailored_tiff,
    "npy": tailored_npy,
    "dicom": tailored_dicom,
    "nifti": tailored_nifti,
    "nifti-gz": tailored_gz,
    "pairs": tailored_table,
    "cvind": tailored_cvind,
}


class Inputs:
    """All inputs of a seed: `made(kind, n)` gives the n-th of a kind as {file name: bytes}, and a slice_number."""

    def __init__(self, seed):
        self.seed = seed
        self.seeds = {kind: list(make()) for kind, make in SEEDS.items()}

    def warm_up(self):
        """Read all seeds once: what libraries load on first use is then there for the processes that are forked."""
        for kind, seeds in self.seeds.items():
            for content in seeds:
                files = PAIRS | {"slices.csv": content} if kind == "pairs" else {NAMES[kind]: content}
                with tempfile.TemporaryDirectory() as folder:
                    write(files, Path(folder))
                    verdict(kind, Path(folder), files, None)

    def made(self, kind, n):
        chance = random.Random(f"{self.seed} {kind} {n}")
        slice_number = chance.choice((None, None, 1, 2))
        with warnings.catch_warnings(action="ignore"):  # of what is written on purpose
            if kind != "pairs":
                return {NAMES[kind]: self._mutated(chance, kind)}, slice_number
            if chance.random() < 0.3:
                return PAIRS | {chance.choice(("a.png", "m.png")): self._mutated(chance, "png")}, slice_number
            return PAIRS | {"slices.csv": self._mutated(chance, kind)}, slice_number

    def _mutated(self, chance, kind):
        content, other = (chance.choice(self.seeds[kind]) for _ in range(2))
        how = chance.randrange(8)
        if how < 4:
            content = TAILORED[kind](chance, content)
        return damaged(chance, content, other) if how > 2 else content


# The verdict on one input.


def read_all(kind, folder, name, slice_number):
    """What the reading code gives for an input: a list of Slice, Image or fold numbers."""
    if kind == "mat":
        return [read_slice(folder / name)]
    if kind == "cvind":
        return [read_cvind(folder)]
    if kind == "pairs":
        return [read_slice(source) for source in find_slices(folder)]
    return [images.read(folder / name, slice_number)]


def verdict(kind, folder, files, slice_number):
    """What came of reading an input: "read", "refused", or what is wrong in words."""
    name = "slices.csv" if kind == "pairs" else next(iter(files))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            found = read_all(kind, folder, name, slice_number)
            broken = [promise for one in found for promise in broken_promises(one)]
        except DatasetError as error:
            return judged(error, folder / name)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            return f"{type(error).__name__}: {error} ({Path(where.filename).name}, {where.name})"
    broken += [f"warns: {one.message}" for one in warned]
    return f"promises: {'; '.join(broken)}" if broken else "read"


def judged(error, path):
    """What is to be thought of a DatasetError: "refused", or what is wrong with its message or its cause."""
    message, cause = str(error), error
    while cause := cause.__context__:
        if isinstance(cause, MemoryError) or (
            any(words in str(cause).lower() for words in WANTS_MEMORY)
            and "on disk image buffer" not in str(cause)  # HDF5 takes it, but reads nothing into it from a small file
        ):
            return f"memory: {cause}"
    if str(path) not in message:
        return f"message: does not name the file: {message}"
    if not message.isprintable():
        return f"message: is not one printable line: {message!r}"
    if len(message) > LONGEST:
        return f"message: {len(message)} characters: {message[:200]}"
    return "refused"


def broken_promises(one):
    """What Slice, Image and read_cvind promise, and `one` does not keep: a list of names."""
    if isinstance(one, np.ndarray):
        good = one.ndim == 1 and 0 < one.size < 10**6 and one.dtype.kind == "i" and np.isin(one, range(1, 6)).all()
        return [] if good else ["folds"]
    is_slice = isinstance(one, Slice)
    pixels, mask = one.image if is_slice else one.pixels, one.mask
    square = pixels if is_slice else one.square
    small = scaled(square, 16)
    kept = {
        "two axes": pixels.ndim == 2,
        "size": all(16 <= side <= LARGEST_SIDE for side in pixels.shape),
        "square": square.ndim == 2 and square.shape[0] == square.shape[1],
        "numbers": pixels.dtype.kind in "biuf" and pixels.dtype.isnative,
        "finite": pixels.dtype.kind != "f" or bool(np.isfinite(pixels).all()),
        "something to see": pixels.min() < pixels.max(),
        "scaled": small.shape == (16, 16) and small.dtype == np.uint8,
        "mask": mask is None or (mask.dtype == bool and mask.shape == pixels.shape and bool(mask.any())),
    }
    spacing = one.spacing_mm if not is_slice else one.spacing_mm and (one.spacing_mm,)
    kept["spacing"] = spacing is None or all(isinstance(mm, float) and 0 < mm < math.inf for mm in spacing)
    if is_slice:
        kept |= {
            "mask there": mask is not None,
            "label": type(one.label) is int and one.label in (1, 2, 3),
            "patient": 0 < len(one.pid) <= 64 and one.pid.isprintable(),
            "border": one.border.shape[1:] == (2,) and len(one.border) > 2 and bool(np.isfinite(one.border).all()),
            "fold": one.fold is None or (type(one.fold) is int and one.fold in range(1, 6)),
            "plane": one.plane is None or one.plane in PLANES,
        }
    else:
        kept |= {"color": isinstance(one.color, bool), "name": bool(one.name)}
    return [name for name, true in kept.items() if not true]


# Reading is done by a process of its own, a batch of inputs each.


def answers(asked, seed):
    """Yield (verdict, seconds) of the inputs `asked`, a list of (kind, n), in order, whatever befalls the readers."""
    inputs, at = Inputs(seed), 0
    inputs.warm_up()
    gc.freeze()  # else each process would copy all of it when it collects
    while at < len(asked):
        batch = asked[at : at + BATCH]
        reading, writing = os.pipe()
        with tempfile.TemporaryFile() as errors, tempfile.TemporaryDirectory() as folder:
            process = os.fork()
            if process == 0:
                read_apart(inputs, batch, Path(folder), writing, errors)
            os.close(writing)
            with open(reading) as lines:
                for line in lines:
                    yield json.loads(line)
                    at += 1
                    batch.pop(0)
            code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            errors.seek(0)
            printed = errors.read().decode(errors="replace").strip()
        if batch:
            end = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            yield "hang" if code == -signal.SIGALRM else f"crash: {end}: {printed[-1000:]}", math.nan
            at += 1


def read_apart(inputs, batch, folder, writing, errors):
    """In the forked process: read within bounds, write a line of JSON for each input to `writing`, and end."""
    try:
        faulthandler.enable(errors)
        os.dup2(errors.fileno(), 1)
        os.dup2(errors.fileno(), 2)
        (folder / "loop").symlink_to(folder / "loop")
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        for kind, n in batch:
            files, slice_number = inputs.made(kind, n)
            write(files, folder)
            resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
            signal.setitimer(signal.ITIMER_REAL, SECONDS)  # its signal ends this process, wherever it is
            began = time.perf_counter()
            said = verdict(kind, folder, files, slice_number)
            seconds = time.perf_counter() - began
            gc.collect()  # what reading may have damaged shows now
            signal.setitimer(signal.ITIMER_REAL, 0)
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            for name in files:
                (folder / name).unlink()
            os.write(writing, json.dumps([said[:1000], seconds]).encode() + b"\n")
        os._exit(0)
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(1)


def write(files, folder):
    for name, content in files.items():
        (folder / name).write_bytes(content)


def table_of(rows):
    """Rows (kind, verdict, seconds) counted by kind."""
    table = pd.DataFrame(rows, columns=["kind", "verdict", "seconds"])
    table["verdict"] = table["verdict"].where(table["verdict"].isin(GOOD), "findings")
    counts = table.groupby("kind", sort=False)["verdict"].value_counts().unstack(fill_value=0)
    counts = counts.reindex(columns=[*GOOD, "findings"], fill_value=0)
    counts.insert(0, "inputs", counts.sum(axis=1))
    seconds = table.groupby("kind", sort=False)["seconds"]
    return counts.assign(seconds=seconds.sum().round(1), slowest=seconds.max().round(2)).reset_index()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--share", type=float, default=1.0, help="of the full number of inputs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=COUNTS, default=list(COUNTS), metavar="KIND")
    args = parser.parse_args()
    asked = [(kind, n) for kind in args.only for n in range(math.ceil(COUNTS[kind] * args.share))]
    rows, findings = [], ROOT / "_build/fuzz"
    told = tqdm(answers(asked, args.seed), total=len(asked), unit=" inputs", mininterval=5)
    for (kind, n), (said, seconds) in zip(asked, told, strict=True):
        rows.append((kind, said, seconds))
        if said not in GOOD:
            place = findings / f"{kind}-{args.seed}-{n}"
            place.mkdir(parents=True, exist_ok=True)
            write(Inputs(args.seed).made(kind, n)[0], place)
            tqdm.write(f"{place.relative_to(ROOT)}: {said}")
    table = table_of(rows)
    print(table.to_string(index=False))
    if args.share == 1 and args.only == list(COUNTS):
        about = machine(1)
        record = {
            "seed": args.seed,
            "git": about["git"],
            "memory_mb": MEMORY >> 20,
            "seconds_an_input": SECONDS,
            "packages": {name: version(name) for name in PACKAGES},
            "python": about["python"],
            "processor": about["processor"],
        }
        keep("fuzz", table, record)
    return int(table["findings"].sum() > 0)


if __name__ == "__main__":
    sys.exit(main())
