"""Reading every kind of picture, refusing what is none, and writing without leaving half a file."""

import io
import os
import struct
import sys
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile

from faceverse.errors import ImageError
from faceverse.io import images
from faceverse.io.images import Photo, read_image, save_image

# How the sensor saw an upright picture, by EXIF orientation: 6 has the right column in its first row, and so on.
AS_STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.fixture
def rgb():
    """(96, 128, 3) uint8: smooth, coloured, and without any symmetry."""
    y, x = np.mgrid[0:96, 0:128]
    return np.stack([2 * x * 0.99, 2.5 * y, 200 - x - 0.5 * y], axis=-1).clip(0, 255).astype(np.uint8)


def difference(photo, expected):
    assert photo.rgb.dtype == np.uint8
    assert photo.rgb.shape == expected.shape
    return np.abs(photo.rgb.astype(int) - expected).max()


@pytest.mark.parametrize(
    ("suffix", "options", "tolerance"),
    [
        (".png", {}, 0),
        (".bmp", {}, 0),
        (".tif", {}, 0),
        (".ppm", {}, 0),
        (".webp", {"lossless": True}, 0),
        (".webp", {"quality": 95}, 20),
        (".jpg", {"quality": 97, "subsampling": 0}, 8),
        (".jpg", {"quality": 97, "subsampling": 0, "progressive": True}, 8),
        (".jp2", {}, 2),
    ],
)
def test_common_formats(tmp_path, rgb, suffix, options, tolerance):
    path = tmp_path / f"my.photo{suffix}"
    Image.fromarray(rgb).save(path, **options)
    photo = read_image(path)
    assert difference(photo, rgb) <= tolerance
    assert (photo.name, photo.scale, photo.focal_px) == ("my.photo", 1.0, None)
    assert difference(read_image(str(path)), rgb) <= tolerance


def test_heic(tmp_path, rgb):
    pillow_heif = pytest.importorskip("pillow_heif")
    path = tmp_path / "phone.heic"
    pillow_heif.from_pillow(Image.fromarray(rgb)).save(path, quality=95)
    assert np.abs(read_image(path).rgb.astype(int) - rgb).mean() < 4


def test_heic_without_its_reader_says_what_to_install(tmp_path, monkeypatch):
    path = tmp_path / "phone.heic"
    path.write_bytes(b"\x00\x00\x00\x18ftypheic" + bytes(100))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match="pip install pillow-heif"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path, rgb, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned{suffix}"
    Image.fromarray(np.ascontiguousarray(AS_STORED[orientation](rgb))).save(path, exif=exif, quality=97)
    photo = read_image(path)
    assert photo.rgb.shape == rgb.shape
    assert np.abs(photo.rgb.astype(int) - rgb).mean() < 3


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_transparency_lies_over_white(tmp_path, rgb, mode):
    path = tmp_path / "clear.png"
    if mode == "RGBA":
        alpha = np.full(rgb.shape[:2], 255, np.uint8)
        alpha[:, :64], alpha[:, 64:80] = 0, 51
        Image.fromarray(np.dstack([rgb, alpha])).save(path)
        expected = rgb.astype(float) + (255 - rgb.astype(float)) * (1 - alpha[..., None] / 255)
    elif mode == "LA":
        alpha = np.full(rgb.shape[:2], 255, np.uint8)
        alpha[:50] = 0
        Image.merge("LA", [Image.fromarray(rgb[..., 0]), Image.fromarray(alpha)]).save(path)
        expected = np.where(alpha[..., None] == 0, 255, rgb[..., :1].repeat(3, axis=2))
    elif mode == "P":
        indices = np.zeros((96, 128), np.uint8)
        indices[:, 40:] = 1
        image = Image.fromarray(indices, mode="L").convert("P")
        image.putpalette([10, 20, 30, 200, 100, 50])
        image.putdata(indices.ravel().tolist())
        image.save(path, transparency=0)
        expected = np.where(indices[..., None] == 0, 255, np.array([200, 100, 50]))
    else:
        key = rgb.copy()
        key[:30, :30] = (1, 2, 3)
        Image.fromarray(key).save(path, transparency=(1, 2, 3))
        expected = key.copy()
        expected[:30, :30] = 255
    assert difference(read_image(path), expected.astype(int)) <= 1


def test_palette_one_bit_and_grey(tmp_path, rgb):
    grey = rgb[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert difference(read_image(tmp_path / "grey.png"), grey[..., None].repeat(3, axis=2)) == 0
    Image.fromarray(rgb).quantize(256).save(tmp_path / "palette.png")
    assert difference(read_image(tmp_path / "palette.png"), rgb) < 40
    Image.fromarray(grey > 128).save(tmp_path / "bits.png")
    assert difference(read_image(tmp_path / "bits.png"), np.where(grey[..., None] > 128, 255, [0, 0, 0])) == 0


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_grey_keeps_its_range(tmp_path, rgb, suffix):
    grey = rgb[..., 0]
    path = tmp_path / f"deep{suffix}"
    Image.fromarray(grey.astype(np.uint16) * 257).save(path)
    assert difference(read_image(path), grey[..., None].repeat(3, axis=2)) <= 1


def test_sixteen_bit_colour_png(tmp_path, rgb):
    deep = rgb.astype(">u2") * 257
    rows = b"".join(b"\x00" + row.tobytes() for row in deep.astype(">u2"))
    path = tmp_path / "deep.png"
    path.write_bytes(png_file(128, 96, 16, rows))
    assert difference(read_image(path), rgb) <= 1


def test_thirty_two_bit_and_float_tiff(tmp_path, rgb):
    grey = rgb[..., 0]
    expected = grey[..., None].repeat(3, axis=2)
    Image.fromarray(grey.astype(np.int32) * 257).save(tmp_path / "int.tif")
    assert difference(read_image(tmp_path / "int.tif"), expected) <= 1
    Image.fromarray((grey / 255).astype(np.float32)).save(tmp_path / "float.tif")
    assert difference(read_image(tmp_path / "float.tif"), expected) <= 1
    Image.fromarray(np.full((64, 64), np.nan, np.float32)).save(tmp_path / "nan.tif")
    with pytest.raises(ImageError, match="not numbers"):
        read_image(tmp_path / "nan.tif")


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk(tmp_path, rgb, suffix):
    path = tmp_path / f"print{suffix}"
    Image.fromarray(rgb).convert("CMYK").save(path, quality=97)
    assert np.abs(read_image(path).rgb.astype(int) - rgb).mean() < 3


def test_first_frame_of_an_animation(tmp_path, rgb):
    frames = [Image.fromarray(np.full((64, 64, 3), value, np.uint8)) for value in (10, 120, 240)]
    for suffix in (".gif", ".webp", ".tif"):
        path = tmp_path / f"moves{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
        assert difference(read_image(path), np.full((64, 64, 3), 10)) <= 6


def test_embedded_profile_is_converted(tmp_path):
    lab = ImageCms.createProfile("LAB")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # The same profile with red and green primaries exchanged: converted, the two channels change places.
    tags = {srgb[at : at + 4]: at for at in range(132, 132 + 12 * struct.unpack(">I", srgb[128:132])[0], 12)}
    swapped = bytearray(srgb)
    swapped[tags[b"rXYZ"] : tags[b"rXYZ"] + 4], swapped[tags[b"gXYZ"] : tags[b"gXYZ"] + 4] = b"gXYZ", b"rXYZ"
    swapped = bytes(swapped).replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))
    red = Image.new("RGB", (64, 64), (220, 30, 40))
    for name, profile, expected in (
        ("swapped", swapped, (30, 220, 40)),
        ("srgb", srgb, (220, 30, 40)),
        ("broken", b"not a profile", (220, 30, 40)),
        ("other", ImageCms.ImageCmsProfile(lab).tobytes(), (220, 30, 40)),
    ):
        red.save(tmp_path / f"{name}.png", icc_profile=profile)
        pixel = read_image(tmp_path / f"{name}.png").rgb[10, 10].astype(int)
        assert np.abs(pixel - expected).max() <= 2, name


def with_focal(tmp_path, size, focal_35mm, recorded=None):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = focal_35mm
    if recorded:
        exif.get_ifd(0x8769).update({0xA002: recorded[0], 0xA003: recorded[1]})
    path = tmp_path / "lens.jpg"
    Image.new("RGB", size, "grey").save(path, exif=exif)
    return path


def test_focal_length_from_exif(tmp_path, monkeypatch):
    diagonal_mm = (36**2 + 24**2) ** 0.5
    path = with_focal(tmp_path, (600, 400), 50, recorded=(6000, 4000))
    assert read_image(path).focal_px == pytest.approx(50 * (600**2 + 400**2) ** 0.5 / diagonal_mm)
    monkeypatch.setattr(images, "MAX_LONG_SIDE_PX", 300)
    reduced = read_image(path)
    assert reduced.rgb.shape == (200, 300, 3)
    assert reduced.scale == 0.5
    assert reduced.focal_px == pytest.approx(50 * (300**2 + 200**2) ** 0.5 / diagonal_mm)


def test_focal_length_that_cannot_be_right_is_ignored(tmp_path):
    assert read_image(with_focal(tmp_path, (600, 400), 0)).focal_px is None
    assert read_image(with_focal(tmp_path, (300, 400), 50, recorded=(6000, 4000))).focal_px is None
    assert read_image(with_focal(tmp_path, (400, 600), 50, recorded=(6000, 4000))).focal_px is not None


def test_damaged_exif_is_passed_over_in_silence(tmp_path, rgb, recwarn):
    exif = Image.Exif()
    exif[0x010F], exif.get_ifd(0x8769)[0xA405] = "A camera's maker", 50
    Image.fromarray(rgb).save(tmp_path / "a.jpg", exif=exif.tobytes()[:-20], quality=97)
    filters = list(warnings.filters)
    assert difference(read_image(tmp_path / "a.jpg"), rgb) <= 8
    assert not recwarn.list
    assert warnings.filters == filters


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_large_photo_is_reduced(tmp_path, suffix):
    y, x = np.mgrid[0:300, 0:5000]
    large = np.stack([x / 20, y / 2, 255 - x / 20], axis=-1).astype(np.uint8)
    Image.fromarray(large).save(tmp_path / f"large{suffix}", quality=95)
    photo = read_image(tmp_path / f"large{suffix}")
    assert photo.rgb.shape == (246, 4096, 3)
    assert photo.scale == pytest.approx(0.8192)
    assert np.abs(photo.rgb[123, [409, 2048, 3686]].astype(int) - large[150, [500, 2500, 4500]]).max() <= 6


@pytest.mark.parametrize(
    "make",
    [
        lambda a: a,
        lambda a: a.astype(np.int64),
        lambda a: a.astype(np.uint16) * 257,
        lambda a: a / 255,
        lambda a: (a / 255).astype(np.float32),
        lambda a: np.dstack([a, np.full(a.shape[:2], 255, np.uint8)]),
        np.asfortranarray,
    ],
)
def test_arrays(rgb, make):
    assert difference(read_image(make(rgb)), rgb) == 0


def test_grey_arrays(rgb):
    expected = rgb[..., :1].repeat(3, axis=2)
    assert difference(read_image(rgb[..., 0]), expected) == 0
    assert difference(read_image(rgb[..., :1]), expected) == 0
    assert difference(read_image(rgb[..., 0] > 100), np.where(expected > 100, 255, 0)) == 0


def test_pixels_are_a_copy(rgb):
    photo = read_image(rgb)
    before = photo.rgb.copy()
    rgb[:] = 0
    np.testing.assert_array_equal(photo.rgb, before)


def test_pillow_image_is_left_as_it_was(tmp_path, rgb):
    Image.fromarray(rgb).save(tmp_path / "a.jpg", quality=97)
    with Image.open(tmp_path / "a.jpg") as image:
        assert difference(read_image(image), rgb) <= 8
        assert (image.size, image.mode) == ((128, 96), "RGB")
        assert read_image(image).name == "a"
    assert read_image(Image.fromarray(rgb)).name == "photo"


def test_photo_is_returned_as_it_is(rgb):
    photo = read_image(rgb)
    assert isinstance(photo, Photo)
    assert read_image(photo) is photo


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 64, 64), np.uint8), "channels last"),
        (np.zeros((64,), np.uint8), r"\(H, W, 3\)"),
        (np.zeros((64, 64, 5), np.uint8), r"\(H, W, 3\)"),
        (np.zeros((0, 64, 3), np.uint8), "empty"),
        (np.full((64, 64, 3), np.nan), "not numbers"),
        (np.full((64, 64, 3), 200.0), r"0\.\.1"),
        (np.full((64, 64, 3), -1), r"0\.\.255"),
        (np.full((64, 64, 3), 300), r"0\.\.255"),
        (np.zeros((64, 64, 3), complex), "complex"),
        (np.full((64, 64, 3), "a"), "uint8"),
        (np.zeros((31, 64, 3), np.uint8), "at least 32"),
    ],
)
def test_wrong_arrays(array, message):
    with pytest.raises(ImageError, match=message):
        read_image(array)


def test_wrong_types():
    for source in (None, 3, [1, 2], b"bytes"):
        with pytest.raises(ImageError, match="expected a file name"):
            read_image(source)


def png_file(width, height, depth, rows):
    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def noise_file(image_format):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format=image_format)
    return buffer.getvalue()


BAD_FILES = {
    "text.jpg": (b"Dear diary, today I renamed a text file.\n" * 50, "not a picture"),
    "empty.jpg": (b"", "empty"),
    "cut.jpg": (noise_file("JPEG")[:9000], "cut short"),
    "cut.png": (noise_file("PNG")[:9000], "cut short"),
    "cut.webp": (noise_file("WEBP")[:9000], "cut short"),
    "saved.jpg": (b"\n<!DOCTYPE html><html><body>404", "is a web page and no picture"),
    "clip.jpg": (b"\0\0\0\x18ftypmp42" + bytes(500), "is a video; track it"),
    "clip.webp": (b"\x1a\x45\xdf\xa3" + bytes(500), "is a video; track it"),
    "new.jxl": (b"\xff\x0a" + bytes(500), "in the format JPEG XL"),
    "drawing.svg": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "in the format SVG"),
    "paper.jpg": (b"%PDF-1.7" + bytes(500), "in the format PDF"),
    "header.jpg": (noise_file("JPEG")[:40], "cut short|damaged|not a picture"),
    "broken.png": (png_file(64, 64, 8, b"\x00" * 100), "cut short|damaged"),
    "huge.png": (png_file(100_000, 100_000, 8, b""), "170 megapixels"),
    "wide.png": (png_file(1_000_000, 40, 8, b""), "too small"),
    "dot.png": (png_file(1, 1, 8, b"\x00\x00\x00\x00"), "1 x 1 pixels, too small"),
    "drawing.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n", "not a picture"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_refused_in_one_line(tmp_path, name):
    content, message = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=message) as caught:
        read_image(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file_and_a_folder(tmp_path):
    with pytest.raises(ImageError, match="there is no file"):
        read_image(tmp_path / "nobody.jpg")
    with pytest.raises(ImageError, match="is a folder"):
        read_image(tmp_path)


def test_pillow_settings_stay(tmp_path, monkeypatch):
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    for name, (content, _) in BAD_FILES.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError):
            read_image(tmp_path / name)
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES) == before
    # The limit holds as well where a program has switched Pillow's own off.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ImageError, match="100000 x 100000"):
        read_image(tmp_path / "huge.png")


@pytest.mark.parametrize(("suffix", "tolerance"), [(".png", 0), (".jpg", 8), (".JPEG", 8), (".webp", 25)])
def test_save_and_read(tmp_path, rgb, suffix, tolerance):
    path = tmp_path / f"out{suffix}"
    path.write_bytes(b"something older")
    assert save_image(path, rgb) == path
    assert difference(read_image(path), rgb) <= tolerance
    assert os.listdir(tmp_path) == [path.name]


def test_save_grey_and_transparent(tmp_path, rgb):
    save_image(tmp_path / "grey.png", rgb[..., 0])
    with Image.open(tmp_path / "grey.png") as image:
        assert image.mode == "L"
    clear = np.dstack([rgb, rgb[..., 0]])
    save_image(tmp_path / "clear.png", clear)
    with Image.open(tmp_path / "clear.png") as image:
        np.testing.assert_array_equal(np.asarray(image), clear)


def test_save_refuses(tmp_path, rgb):
    for path, array, message in (
        (tmp_path / "a.xyz", rgb, "must end in"),
        (tmp_path / "a.png", rgb / 255, "uint8"),
        (tmp_path / "a.png", rgb[..., :2], r"\(H, W, 3\)"),
        (tmp_path / "missing" / "a.png", rgb, "cannot write"),
    ):
        with pytest.raises(ImageError, match=message):
            save_image(path, array)
    assert os.listdir(tmp_path) == []


def test_failed_save_keeps_the_old_file(tmp_path, rgb, small_files):
    path = tmp_path / "a.png"
    save_image(path, rgb)
    before = path.read_bytes()
    with small_files(10), pytest.raises(ImageError, match="larger than the system allows"):
        save_image(path, 255 - rgb)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.png"]
