"""PNG, JPEG and TIFF: gray at their own depth, upright, or refused by name."""

import struct
import zlib

import numpy as np
import PIL.Image
import pytest
from image_files import GRAY, WIDE, refuse, save, write_jpeg_scans

from braintumor.data.raster import read_raster

pytestmark = pytest.mark.filterwarnings("error")
SMOOTH = np.add.outer(np.arange(20), np.arange(32) * 4).astype(np.uint8)


@pytest.fixture
def png(tmp_path):
    return tmp_path / "a.png"


@pytest.fixture
def tif(tmp_path):
    return tmp_path / "a.tif"


def write_png(path, width, height, rows=b"", depth=8, color_type=0):
    """Write a PNG file that need not match its header."""
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(rows), b"IEND": b""}
    for name, chunk in chunks.items():
        crc = struct.pack(">I", zlib.crc32(name + chunk))
        content += struct.pack(">I", len(chunk)) + name + chunk + crc
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
def test_gray_png_is_gray_in_any_mode(png, mode):
    PIL.Image.fromarray(GRAY).convert(mode).save(png)
    pixels, _, is_color = read_raster(png)
    assert np.array_equal(pixels, GRAY) and pixels.dtype == np.uint8 and not is_color


def test_transparent_pixels_are_black(png):
    rgba = np.dstack([GRAY, GRAY, GRAY, np.full_like(GRAY, 255)])
    rgba[:4] = (255, 0, 255, 0)
    pixels, _, is_color = read_raster(save(png, rgba))
    assert np.array_equal(pixels[4:], GRAY[4:]) and not pixels[:4].any()
    assert not is_color


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_color_is_converted_and_reported(tmp_path, name):
    photo = np.zeros((20, 32, 3), np.uint8)
    photo[:, :16] = (200, 40, 90)
    pixels, _, is_color = read_raster(save(tmp_path / name, photo))
    assert is_color and pixels[10, 4] == pytest.approx(93.5, abs=2)  # ITU-R 601 luma


@pytest.mark.parametrize("name, tolerance", [("a.jpg", 6), ("a.png", 0)])
def test_exif_orientation_is_applied(tmp_path, name, tolerance):
    exif = PIL.Image.Exif()
    exif[274] = 6  # a quarter turn to the right
    pixels, _, _ = read_raster(save(tmp_path / name, SMOOTH, exif=exif))
    expected = np.rot90(SMOOTH, -1)
    assert np.abs(pixels.astype(int) - expected).max() <= tolerance


def test_tiff_with_an_orientation_is_refused(tif):
    refuse(save(tif, GRAY, tiffinfo={274: 6}), "orientation")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
def test_tiff_keeps_its_depth(tif, dtype):
    expected = (WIDE // 16).astype(dtype)
    pixels, _, _ = read_raster(save(tif, expected))
    assert np.array_equal(pixels, expected) and pixels.dtype == dtype


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_white_is_zero_tiff_is_inverted(tif, dtype):
    stored = (WIDE // 16).astype(dtype)
    stored[0, :2] = 0, 255
    pixels, _, _ = read_raster(save(tif, stored, tiffinfo={262: 0}))
    assert np.array_equal(pixels, 255 - stored)


def test_page_of_a_tiff_is_chosen(tif):
    pages = [PIL.Image.fromarray(WIDE + n) for n in range(3)]
    pages[0].save(tif, save_all=True, append_images=pages[1:])
    assert refuse(tif, "slice_number").n_slices == 3
    assert np.array_equal(read_raster(tif, 2)[0], WIDE + 1)
    for page in (0, 4):
        refuse(tif, "slice_number", slice_number=page)


def test_tiff_of_very_many_pages_is_refused(tif):
    content = bytearray(save(tif, GRAY).read_bytes())
    first = int.from_bytes(content[4:8], "little")
    end = first + 2 + 12 * int.from_bytes(content[first : first + 2], "little")
    directory = bytes(content[first:end])
    content[end : end + 4] = len(content).to_bytes(4, "little")
    for _ in range(2001):
        content += directory
        content += (len(content) + 4).to_bytes(4, "little")
    tif.write_bytes(content)
    refuse(tif, "pages", slice_number=1)


def test_jpeg_of_very_many_scans_is_refused(tmp_path):
    path = tmp_path / "a.jpg"
    assert read_raster(write_jpeg_scans(path, 20))[0].shape == GRAY.shape
    refuse(write_jpeg_scans(path, 100), "scans")


@pytest.mark.parametrize("color_type, channels", [(2, 3), (4, 2)])
def test_16_bit_png_with_channels_is_refused(png, color_type, channels):
    rows = [b"\0" + np.repeat(row.astype(">u2"), channels).tobytes() for row in WIDE]
    refuse(write_png(png, 32, 20, b"".join(rows), 16, color_type), "16-bit")


@pytest.mark.parametrize("side", [5_000, 10_000, 30_000])  # Pillow warns, then raises
def test_declared_size_is_checked_before_decoding(png, side):
    refuse(write_png(png, side, side))
