"""Inputs of tools/fuzz.py: good files of every format, and mutations of them.

Mutations of a format get past its checksums and into the parser. The other formats have
no checksums: `damage` gets far enough.
"""

import gzip
import io
import struct
import tempfile
import zlib
from pathlib import Path

import h5py
import nibabel
import numpy as np
import PIL.Image
import pydicom

from braintumor.data.figshare import write_cvind, write_mat

PIXELS = np.random.default_rng(0).integers(0, 4000, (32, 32)).astype(np.uint16)
GRAY = (PIXELS // 16).astype(np.uint8)
MASK = np.zeros((32, 32), np.uint8)
MASK[5:12, 18:22] = 1
COLOR = PIL.Image.fromarray(np.dstack([GRAY, GRAY // 2, 255 - GRAY]))
FIELDS = {
    "image": PIXELS.astype(np.int16),
    "tumorMask": MASK,
    "label": np.array([[2.0]]),
    "PID": np.array([[80], [49]], np.uint16),
    "tumorBorder": np.array([[19.0, 6, 22, 6, 22, 12, 19, 12]]),
}
TABLE = b"image,mask,label,patient,fold,plane,spacing_mm\n"
TABLE += b"a.png,m.png,glioma,P1,1,axial,0.5\nb.png,m.png,1,P2,2,,\n"
FOLDS = np.array([[1.0, 2, 3, 4, 5]])
ODD_NUMBERS = [0, 1, -1, 2, 15, 16, 127, 255, 256, 4096, 4097, 2**15 - 1, 2**16 - 1]
ODD_NUMBERS += [2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, -(2**31), -(2**63)]
ODD_FLOATS = [0.5, -1.0, 1e39, 1e308, 5e-324, float("nan"), float("inf"), -float("inf")]
ODD_TEXTS = [b"", b"  ", b"-1", b"1e300", b"nan", b"inf", b"2147483648", b"1_0"]
ODD_TEXTS += [b'"', b'"a\nb"', b"\xff\xfe", b"\0", b"X" * 5000, b"\xef\xbc\x91"]
ODD_TEXTS += [b"../a.png", b"/etc/hostname", b"loop", b".", b"\x1b[31mred", b"image"]
BOMBS = [zlib.compress(bytes(size), 9) for size in (10, 10**5, 10**7, 2**27)]
CHUNKS = b"IHDR IDAT zTXt iCCP iTXt eXIf PLTE tRNS acTL fcTL".split()


def encode(image, file_format, **options):
    """Encode an array or a Pillow image as bytes."""
    image = PIL.Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(out := io.BytesIO(), file_format, **options)
    return out.getvalue()


def write_bytes(write, *arguments):
    """Return the bytes that `write(path, *arguments)` writes."""
    with tempfile.TemporaryDirectory() as folder:
        write(path := Path(folder) / "seed.npy", *arguments)
        return path.read_bytes()


def make_hdf5(fill, libver="earliest"):
    """Return the bytes of an HDF5 file that `fill(file)` has filled."""
    options = {"driver": "core", "backing_store": False, "libver": libver}
    with h5py.File("in memory", "w", **options) as file:
        fill(file)
        file.flush()
        return file.id.get_file_image()


def make_raster_seeds(file_format, modes, **options):
    rotated = PIL.Image.Exif()
    rotated[274] = 6
    yield encode(COLOR, file_format, exif=rotated, icc_profile=bytes(200), **options)
    yield from (encode(COLOR.convert(mode), file_format) for mode in modes.split())
    if file_format != "JPEG":
        yield encode(PIXELS, file_format)
        frames = [COLOR.convert("L")]
        yield encode(GRAY, file_format, save_all=True, append_images=frames)


def find_dicom_seeds():
    """The small test files that pydicom brings along."""
    for path in sorted(Path(pydicom.__file__).parent.glob("data/test_files/*.dcm")):
        if path.stat().st_size < 20_000:
            yield path.read_bytes()


def make_nifti_seeds():
    volume, affine = np.repeat(PIXELS[:24, :20, None], 3, axis=2), np.diag([1, 1, 3, 1])
    for dtype in ("u1", "i2", "u2", "i4", "f4", "f8", "i8", "c8"):
        yield nibabel.Nifti1Image(volume.astype(dtype), affine, dtype=dtype).to_bytes()
    yield nibabel.Nifti2Image(volume, affine).to_bytes()
    header = nibabel.Nifti1Header(endianness=">")
    yield nibabel.Nifti1Image(volume[..., :1], affine, header).to_bytes()


def make_seeds():
    """Return a list of good files (bytes) for each kind of input."""
    border = FIELDS["tumorBorder"]
    large = np.tile(PIXELS, (4, 4)), np.tile(MASK, (4, 4))
    slices = [(*pair, 2, "P1", border) for pair in ((PIXELS, MASK), large)]
    dtypes = ("u1", ">u2", "i2", "i8", "f2", "f4", ">f8", "?", "c8", "U2", "O")
    tiff = [encode(COLOR, "TIFF", compression=name) for name in ("packbits", "jpeg")]
    tiff.append(encode(PIXELS.astype(np.float32), "TIFF", big_tiff=True))
    tiff += make_raster_seeds("TIFF", "1 P LA RGBA CMYK LAB", compression="tiff_lzw")
    nifti = list(make_nifti_seeds())
    return {
        "mat": [write_bytes(write_mat, *values) for values in slices],
        "png": list(make_raster_seeds("PNG", "1 P LA RGBA")),
        "jpeg": list(make_raster_seeds("JPEG", "L CMYK", progressive=True)),
        "tiff": tiff,
        "npy": [write_bytes(np.save, GRAY.T.astype(dtype)) for dtype in dtypes],
        "dicom": list(find_dicom_seeds()),
        "nifti": nifti,
        "nifti-gz": [gzip.compress(seed, mtime=0) for seed in nifti],
        "pairs": [TABLE],
        "cvind": [write_bytes(write_cvind, np.tile(FOLDS.ravel(), 12))],
    }


def damage(rng, content, other):
    """Overwrite, insert, delete or repeat bytes, or take some of another file."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        end = len(content) if rng.random() < 0.5 else min(len(content), 1024)  # header
        at, size = rng.randrange(end + 1), rng.choice((1, 2, 4, 8, 16, 64, 512))
        old, start = content[at : at + size], rng.randrange(len(other))
        n_bytes, order = min(size, 8), rng.choice(("little", "big"))
        number = (rng.choice(ODD_NUMBERS) % 256**n_bytes).to_bytes(n_bytes, order)
        news = (number + old[8:], number + old[8:], bytes(size), b"", old * 2)
        news += (rng.randbytes(size), other[start : start + size])
        content[at : at + size] = rng.choice(news)
        if rng.random() < 0.03:
            del content[at:]
    return bytes(content)


def add_odd_field(rng, file, name, value):
    """Add a field that is linked, huge, damaged, or of another type or shape."""
    how = rng.randrange(7)  # 0: no field
    path = rng.choice(("/dev/zero", "/etc/hostname", "1.mat", "nowhere", "/"))
    if how == 1:
        links = [h5py.SoftLink(target) for target in ("/cjdata/label", f"/{name}", "/")]
        file[name] = rng.choice((*links, h5py.ExternalLink(path, f"/{name}")))
    elif how == 2:
        external = [(path, 0, value.nbytes)]
        file.create_dataset(name, value.shape, value.dtype, external=external)
    elif how == 3:
        odd = ["text", b"", h5py.Empty("f8"), np.array([(1, 2.0)], "i4,f8"), [b"a"]]
        types = ("?", "u1", ">i2", "<u8", ">f4", "f2", "c16", "S5", "f16")
        file[name] = rng.choice(odd + [value.astype(dtype) for dtype in types])
    elif how == 4:
        side = rng.choice((0, 1, 15, 16, 33, 4096, 4097, 2**20, 2**31))
        shape = rng.choice(((side, side), (side,), (side, 32), (2, side, 2), (1,) * 32))
        dtype = rng.choice(("u1", "f8", h5py.vlen_dtype("i4"), h5py.ref_dtype))
        file.create_dataset(name, shape, dtype, chunks=True if side else None)
    elif how == 5:
        options = {"compression": rng.choice((None, "gzip", "lzf"))}
        options["chunks"] = rng.choice((value.shape[0], 1, 512, 65_535)), value.shape[1]
        options["maxshape"] = (None, None)
        field = file.create_dataset(name, value.shape, value.dtype, **options)
        field.id.write_direct_chunk((0, 0), rng.choice((rng.randbytes(40), *BOMBS)))
    elif how == 6:
        values = value.astype(np.float64)
        values.flat[rng.randrange(values.size)] = rng.choice(ODD_FLOATS)
        shape = rng.choice((value.shape, value.shape[::-1], (1, *value.shape), (7,)))
        file[name] = np.resize(values, shape) * rng.choice((1, 1, 0, 1e300))


def mutate_mat(rng, _content):
    odd = rng.sample(list(FIELDS), rng.choice((1, 1, 1, 2, 5)))

    def fill(file):
        for name, value in FIELDS.items():
            if name in odd:
                add_odd_field(rng, file, f"cjdata/{name}", value)
            else:
                file[f"cjdata/{name}"] = value

    return make_hdf5(fill, rng.choice(("earliest", "latest")))


def mutate_cvind(rng, _content):
    return make_hdf5(lambda file: add_odd_field(rng, file, "cvind", FOLDS))


def mutate_png(rng, content):
    """Replace or add chunks, with correct checksums."""
    out, at = content[:8], 8
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        name, data = content[at + 4 : at + 8], content[at + 8 : at + 8 + size]
        at += size + 12
        if rng.random() < 0.2:
            pixels = zlib.compress(damage(rng, bytes(3 * 32 * 33), content))
            odd = (b"a\0\0" + BOMBS[-1], rng.randbytes(30), pixels)
            data = rng.choice((*odd, b"", damage(rng, data, content)))
            name = rng.choice((name, rng.choice(CHUNKS)))
        checked = name + data
        out += struct.pack(">I", len(data)) + checked + zlib.crc32(checked).to_bytes(4)
    return out


def mutate_gzip(rng, content):
    """Damage the compressed file, or make it huge."""
    content = gzip.decompress(content)
    content = damage(rng, content, content) + bytes(2**24) * (rng.random() < 0.01)
    return gzip.compress(content, 1, mtime=0)


def mutate_table(rng, content):
    """Change, add and drop cells."""
    rows = [line.split(b",") for line in content.splitlines()]
    for _ in range(rng.choice((1, 1, 2, 4))):
        row = rng.choice(rows)
        at, n_replaced = rng.randrange(len(row)), rng.choice((0, 1, 1, 1))
        row[at : at + n_replaced] = [rng.choice(ODD_TEXTS)]
    return rng.choice((b"\n", b"\n", b"\r\n", b"\r")).join(map(b",".join, rows))


MUTATIONS = {"mat": mutate_mat, "cvind": mutate_cvind, "png": mutate_png}
MUTATIONS |= {"nifti-gz": mutate_gzip, "pairs": mutate_table}
