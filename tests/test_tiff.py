"""TIFF files of every kind: the right values, or one sentence that says why not."""

import struct

import numpy as np
import pytest
from PIL import Image, ImageCms
from test_colour import BT709, CHART, D65_XY, WANTED, linear_of, parametric_tag, picture, read_patches, rgb_profile

from faceverse.errors import ImageError
from faceverse.io.images import read_image

tifffile = pytest.importorskip("tifffile")


@pytest.fixture(scope="module")
def rgb():
    """(96, 128, 3) uint8: smooth, coloured, and without any symmetry."""
    y, x = np.mgrid[0:96, 0:128]
    return np.stack([2 * x * 0.99, 2.5 * y, 200 - x - 0.5 * y], axis=-1).clip(0, 255).astype(np.uint8)


@pytest.fixture
def read(tmp_path):
    """Function that writes an array as a TIFF file and reads that as int."""

    def write_and_read(pixels, **options):
        path = tmp_path / "a.tif"
        options.setdefault("photometric", "minisblack" if pixels.ndim == 2 else "rgb")
        tifffile.imwrite(path, pixels, **options)
        return read_image(path).rgb.astype(int)

    return write_and_read


DEPTHS = {
    "uint8": lambda a: a,
    "uint16": lambda a: a.astype(np.uint16) * 257,
    "uint32": lambda a: a.astype(np.uint32) * 16_843_009,
    "16 of 32 bits": lambda a: a.astype(np.uint32) * 257,
    "float16": lambda a: (a / 255).astype(np.float16),
    "float32": lambda a: (a / 255).astype(np.float32),
    "float64": lambda a: a / 255,
    "float to 255": lambda a: a.astype(np.float32),
    "float to 65535": lambda a: a.astype(np.float32) * 257,
}
LAYOUTS = {
    "plain": {},
    "big": {"bigtiff": True},
    "big-endian": {"byteorder": ">"},
    "tiles": {"tile": (32, 32)},
    "strips, deflate": {"rowsperstrip": 7, "compression": "zlib"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("depth", DEPTHS)
def test_depths_and_layouts(read, rgb, depth, layout):
    deep, options = DEPTHS[depth](rgb), LAYOUTS[layout]
    assert np.abs(read(deep, **options) - rgb).max() <= 1
    grey = read(deep[..., 0], **options)
    assert np.abs(grey - rgb[..., :1]).max() <= 1


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("depth", ["uint8", "uint16", "float16", "float32"])
def test_separate_planes(read, rgb, depth, layout):
    planes = np.moveaxis(DEPTHS[depth](rgb), 2, 0)
    assert np.abs(read(planes, planarconfig="separate", **LAYOUTS[layout]) - rgb).max() <= 1


@pytest.mark.parametrize("depth", ["uint8", "uint16", "float32"])
def test_white_is_zero(read, rgb, depth):
    stored = DEPTHS[depth](255 - rgb[..., 0])
    assert np.abs(read(stored, photometric="miniswhite") - rgb[..., :1]).max() <= 1


@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
@pytest.mark.parametrize("depth", ["uint8", "uint16", "float32"])
def test_transparency_lies_over_white(read, rgb, depth, kind):
    alpha = np.full((96, 128, 1), 255, np.uint8)
    alpha[:40], alpha[40:60] = 0, 102
    stored = rgb if kind == "unassalpha" else np.rint(rgb * (alpha / 255)).astype(np.uint8)
    pixels = DEPTHS[depth](np.dstack([stored, alpha]))
    wanted = 255 + (rgb.astype(float) - 255) * (alpha / 255)
    assert np.abs(read(pixels, extrasamples=[kind]) - wanted).max() <= 2


def test_highlights_above_white_do_not_darken_the_picture(read, rgb):
    bright = (rgb / 255).astype(np.float32)
    bright[10:14, 10:14] = 7.5  # of a lamp, in a raw developer's file
    wanted = rgb.astype(int)
    wanted[10:14, 10:14] = 255
    assert np.abs(read(bright) - wanted).max() <= 1
    bright[0, 0] = np.nan
    with pytest.raises(ImageError, match="not numbers"):
        read(bright)


@pytest.mark.parametrize("depth", ["uint16", "float32"])
def test_linear_profile_of_a_deep_picture_keeps_the_shadows(tmp_path, depth):
    values = linear_of(np.concatenate([CHART[:-6], np.arange(1, 7)[:, None].repeat(3, axis=1) / 60]))
    deep = np.asarray(values, np.float32).reshape(6, 4, 3).repeat(16, axis=0).repeat(16, axis=1)
    if depth == "uint16":
        deep = np.rint(deep * 65535).astype(np.uint16)
    profile = rgb_profile(BT709, D65_XY, parametric_tag(1.0), "linear sRGB", 4)
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb", iccprofile=profile)
    wanted = np.concatenate([WANTED[:-6], np.rint(np.arange(1, 7)[:, None].repeat(3, axis=1) * 255 / 60)])
    assert np.abs(read_patches(read_image(tmp_path / "a.tif")) - wanted).max() <= 2


def ycbcr_tiff(rgb):
    """An uncompressed YCbCr TIFF of full range without subsampling."""
    ycc = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    height, width = ycc.shape[:2]
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, 158), (259, 3, 1, 1), (262, 3, 1, 6)]
    entries += [(273, 4, 1, 212), (277, 3, 1, 3), (278, 4, 1, height), (279, 4, 1, ycc.nbytes)]
    entries += [(530, 3, 2, 1 | 1 << 16), (532, 5, 6, 164)]
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + directory + bytes(4)
    levels = struct.pack("<3H", 8, 8, 8) + struct.pack("<12I", 0, 1, 255, 1, 128, 1, 255, 1, 128, 1, 255, 1)
    return head.ljust(158, b"\0") + levels.ljust(54, b"\0") + ycc.tobytes()


def test_ycbcr_without_compression(tmp_path, rgb):
    (tmp_path / "a.tif").write_bytes(ycbcr_tiff(rgb))
    assert np.abs(read_image(tmp_path / "a.tif").rgb.astype(int) - rgb).max() <= 3


@pytest.mark.parametrize("compression", ["jpeg", "tiff_lzw", "packbits", "tiff_deflate"])
def test_compressed_by_pillow(tmp_path, rgb, compression):
    options = {"quality": 97} if compression == "jpeg" else {}
    Image.fromarray(rgb).save(tmp_path / "a.tif", compression=compression, **options)
    tolerance = 12 if compression == "jpeg" else 0
    assert np.abs(read_image(tmp_path / "a.tif").rgb.astype(int) - rgb).max() <= tolerance


@pytest.mark.parametrize("photometric", ["cielab", "icclab"])
@pytest.mark.parametrize("bits", [8, 16])
def test_lab(read, photometric, bits):
    transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab = ImageCms.applyTransform(Image.fromarray(picture(CHART)), transform)
    bands = np.stack([np.frombuffer(lab.getchannel(i).tobytes(), np.uint8).reshape(96, 64) for i in range(3)], axis=-1)
    values = bands.astype(int)
    if photometric == "cielab":
        values[..., 1:] = (values[..., 1:] - 128) % 256
    if bits == 16:
        values[..., 0] *= 257 if photometric == "cielab" else 256
        values[..., 1:] *= 256
    read_back = read(values.astype(np.uint8 if bits == 8 else np.uint16), photometric=photometric)
    assert np.abs(read_back[8::16, 8::16].reshape(24, 3) - WANTED).max() <= 6


def test_orientation_of_a_deep_picture(tmp_path, rgb):
    turned = np.ascontiguousarray(np.rot90(rgb, -1)).astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "a.tif", turned, photometric="rgb", extratags=[(274, "H", 1, 8, True)])
    assert np.abs(read_image(tmp_path / "a.tif").rgb.astype(int) - rgb).max() <= 1
    tifffile.imwrite(tmp_path / "a.tif", rgb[::-1, ::-1] / 255, photometric="rgb", extratags=[(274, "H", 1, 3, True)])
    assert np.abs(read_image(tmp_path / "a.tif").rgb.astype(int) - rgb).max() <= 1


def test_large_deep_picture_is_reduced(tmp_path, monkeypatch, rgb):
    monkeypatch.setattr("faceverse.io.images.MAX_LONG_SIDE_PX", 64)
    tifffile.imwrite(tmp_path / "a.tif", rgb.astype(np.uint16) * 257, photometric="rgb")
    photo = read_image(tmp_path / "a.tif")
    assert photo.rgb.shape == (48, 64, 3) and photo.scale == 0.5
    assert np.abs(photo.rgb[24, 32].astype(int) - rgb[48, 64]).max() <= 4


def test_kinds_that_are_refused(tmp_path, rgb):
    path = tmp_path / "a.tif"

    def refused(match):
        with pytest.raises(ImageError, match=match) as caught:
            read_image(path)
        assert "\n" not in str(caught.value)

    tifffile.imwrite(path, np.zeros((64, 64, 3), np.complex64), photometric="rgb")
    refused("of a kind that cannot be read")
    tifffile.imwrite(path, rgb, photometric="rgb", extratags=[(50706, "B", 4, (1, 4, 0, 0), True)])
    refused("raw file; develop it first")
    path.write_bytes(ycbcr_tiff(rgb)[:-5000])
    refused("cut short|kind that cannot be read|damaged")
    width, wide = (struct.pack("<HHII", 256, 4, 1, value) for value in (128, 10**9))
    path.write_bytes(ycbcr_tiff(rgb).replace(width, wide))
    refused("too many pixels")
    monstrous = ycbcr_tiff(np.zeros((64, 64, 3), np.uint8))
    path.write_bytes(monstrous[:4] + struct.pack("<I", 2**31) + monstrous[8:])
    refused("damaged|not a picture|cut short")


def test_a_list_that_is_longer_than_the_file_takes_no_memory(tmp_path, rgb):
    path = tmp_path / "a.tif"
    pixels = (rgb / 255).astype(np.float16)
    tifffile.imwrite(path, pixels, photometric="rgb", extratags=[(274, 3, 1, 6, True)])
    content = bytearray(path.read_bytes())
    entry = content.index(struct.pack("<HHI", 274, 3, 1))
    content[entry + 4 : entry + 8] = struct.pack("<I", 0x20000001)
    path.write_bytes(content)
    with pytest.raises(ImageError, match="a list of values is longer than the file"):
        read_image(path)
