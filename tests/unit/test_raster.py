"""PNG, JPEG and TIFF: gray at their own depth, upright, or refused by name."""

import struct
import zlib

import numpy as np
import PIL.Image
import pytest
from image_files import GRAY, WIDE, save, write_jpeg_scans

from braintumor.core.errors import AmbiguousSliceError, DatasetError
from braintumor.data.raster import read_raster

pytestmark = pytest.mark.filterwarnings("error")
SMOOTH = np.add.outer(np.arange(20), np.arange(32) * 4).astype(np.uint8)


def refuse(path, *words, page=None):
    with pytest.raises(DatasetError) as caught:
        read_raster(path, page)
    assert str(caught.value).startswith(f"{path}: ")
    assert [word for word in words if word not in str(caught.value)] == []


def png_chunk(name, content):
    crc = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + crc


def make_png(width, height, rows=b"", depth=8, color_type=0):
    """Bytes of a PNG file that need not match its header."""
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)
    content += png_chunk(b"IDAT", zlib.compress(rows))
    return content + png_chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
def test_gray_png_is_gray_in_any_mode(tmp_path, mode):
    PIL.Image.fromarray(GRAY).convert(mode).save(tmp_path / "a.png")
    pixels, is_color = read_raster(tmp_path / "a.png")
    assert np.array_equal(pixels, GRAY) and pixels.dtype == np.uint8 and not is_color


def test_transparent_pixels_are_black(tmp_path):
    rgba = np.dstack([GRAY, GRAY, GRAY, np.full_like(GRAY, 255)])
    rgba[:4] = (255, 0, 255, 0)
    pixels, is_color = read_raster(save(tmp_path / "a.png", rgba))
    assert not pixels[:4].any() and np.array_equal(pixels[4:], GRAY[4:])
    assert not is_color


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_color_is_converted_and_reported(tmp_path, name):
    photo = np.zeros((20, 32, 3), np.uint8)
    photo[:, :16] = (200, 40, 90)
    pixels, is_color = read_raster(save(tmp_path / name, photo))
    assert is_color and pixels.shape == (20, 32)
    assert pixels[10, 4] == pytest.approx(93.5, abs=2)  # ITU-R 601 luma


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_gray_jpeg_is_gray(tmp_path, mode):
    image = PIL.Image.fromarray(SMOOTH).convert("RGB").convert(mode)
    image.save(tmp_path / "a.jpg", quality=90)
    pixels, is_color = read_raster(tmp_path / "a.jpg")
    assert np.abs(pixels.astype(int) - SMOOTH).max() <= 6 and not is_color


@pytest.mark.parametrize("name, tolerance", [("a.jpg", 6), ("a.png", 0)])
def test_exif_orientation_is_applied(tmp_path, name, tolerance):
    exif = PIL.Image.Exif()
    exif[274] = 6  # a quarter turn to the right
    pixels, _ = read_raster(save(tmp_path / name, SMOOTH, exif=exif))
    expected = np.rot90(SMOOTH, -1)
    assert np.abs(pixels.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_tiff_with_an_orientation_is_refused(tmp_path, compression):
    tags = {274: 6}
    path = tmp_path / "a.tif"
    refuse(save(path, GRAY, compression=compression, tiffinfo=tags), "orientation")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
def test_tiff_keeps_its_depth(tmp_path, dtype):
    expected = (WIDE / (16 if dtype == np.uint8 else 1)).astype(dtype)
    pixels, _ = read_raster(save(tmp_path / "a.tif", expected))
    assert np.array_equal(pixels, expected) and pixels.dtype == dtype


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_white_is_zero_tiff_is_inverted(tmp_path, dtype):
    stored = (WIDE // 16).astype(dtype)
    stored[0, :2] = 0, 255
    pixels, _ = read_raster(save(tmp_path / "a.tif", stored, tiffinfo={262: 0}))
    assert np.array_equal(pixels, 255 - stored)


def test_page_of_a_tiff_is_chosen(tmp_path):
    path = tmp_path / "stack.tif"
    pages = [PIL.Image.fromarray(WIDE + n) for n in range(3)]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    with pytest.raises(AmbiguousSliceError) as caught:
        read_raster(path)
    assert caught.value.n_slices == 3 and str(path) in str(caught.value)
    assert np.array_equal(read_raster(path, 2)[0], WIDE + 1)
    for page in (0, -1, 4):
        refuse(path, "slice_number", page=page)


def test_tiff_of_very_many_pages_is_refused(tmp_path):
    content = bytearray(save(tmp_path / "a.tif", GRAY).read_bytes())
    first = int.from_bytes(content[4:8], "little")
    end = first + 2 + 12 * int.from_bytes(content[first : first + 2], "little")
    directory = bytes(content[first:end])
    content[end : end + 4] = len(content).to_bytes(4, "little")
    for _ in range(2001):
        content += directory
        content += (len(content) + 4).to_bytes(4, "little")
    (tmp_path / "a.tif").write_bytes(content)
    refuse(tmp_path / "a.tif", "pages", page=1)


def test_jpeg_of_very_many_scans_is_refused(tmp_path):
    path = tmp_path / "a.jpg"
    assert read_raster(write_jpeg_scans(path, 20))[0].shape == GRAY.shape
    refuse(write_jpeg_scans(path, 100), "scans")


@pytest.mark.parametrize("color_type, channels", [(2, 3), (4, 2)])
def test_16_bit_png_with_channels_is_refused(tmp_path, color_type, channels):
    rows = [b"\0" + np.repeat(row.astype(">u2"), channels).tobytes() for row in WIDE]
    content = make_png(32, 20, b"".join(rows), depth=16, color_type=color_type)
    (tmp_path / "a.png").write_bytes(content)
    refuse(tmp_path / "a.png", "16-bit")


@pytest.mark.parametrize("side", [5_000, 10_000, 30_000])  # Pillow warns, then raises
def test_declared_size_is_checked_before_decoding(tmp_path, side):
    (tmp_path / "a.png").write_bytes(make_png(side, side))
    refuse(tmp_path / "a.png")
