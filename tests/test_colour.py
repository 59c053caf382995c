"""Colours of pictures in every colour space: a chart, written with what its file says, is read back as sRGB."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from faceverse.io import colour
from faceverse.io.colour import ADOBE_RGB, SRGB, ColourSpace
from faceverse.io.images import read_image

D50 = np.array([0.9642, 1.0, 0.8249])
BT709 = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
DISPLAY_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
BT2020 = ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))
PROPHOTO = ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001))
D65_XY, D50_XY = (0.3127, 0.3290), (0.3457, 0.3585)
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


# Skin tones, greys, and colours that sRGB has with some distance from its limits: (24, 3) in 0..1.
CHART = np.array([
    [0.45, 0.32, 0.27], [0.77, 0.58, 0.51], [0.93, 0.80, 0.72], [0.24, 0.16, 0.13],
    [0.36, 0.48, 0.61], [0.35, 0.42, 0.26], [0.51, 0.51, 0.69], [0.40, 0.74, 0.67],
    [0.84, 0.49, 0.24], [0.28, 0.36, 0.64], [0.76, 0.33, 0.38], [0.36, 0.24, 0.42],
    [0.62, 0.73, 0.25], [0.88, 0.63, 0.20], [0.21, 0.24, 0.58], [0.27, 0.58, 0.29],
    [0.68, 0.20, 0.23], [0.91, 0.78, 0.19], [1.00, 1.00, 1.00], [0.78, 0.78, 0.78],
    [0.63, 0.63, 0.63], [0.48, 0.48, 0.48], [0.33, 0.33, 0.33], [0.12, 0.12, 0.12],
])  # fmt: skip
WANTED = np.rint(CHART * 255).astype(int)


def linear_of(srgb):
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def encoded(linear):
    linear = linear.clip(0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def xyz(point):
    return np.array([point[0] / point[1], 1, (1 - point[0] - point[1]) / point[1]])


def to_xyz(primaries, white):
    columns = np.stack([xyz(point) for point in primaries], axis=1)
    return columns * np.linalg.solve(columns, xyz(white))


def adapted(white, target):
    """(3, 3) Bradford adaptation between the XYZ of two white points."""
    gains = (BRADFORD @ target) / (BRADFORD @ xyz(white))
    return np.linalg.inv(BRADFORD) @ np.diag(gains) @ BRADFORD


def chart_in(primaries, white, encode):
    """The chart in another RGB space, (24, 3) in 0..1."""
    d50 = adapted(D65_XY, D50) @ to_xyz(BT709, D65_XY) @ linear_of(CHART).T
    linear = np.linalg.inv(adapted(white, D50) @ to_xyz(primaries, white)) @ d50
    assert linear.min() > -1e-3 and linear.max() < 1 + 1e-3, "the chart must lie in the space"
    return encode(linear.T.clip(0, 1))


def picture(values):
    """(96, 64, 3) uint8: each colour of the chart as a patch of 16 x 16 pixels."""
    patches = np.rint(np.asarray(values) * 255).astype(np.uint8).reshape(6, 4, 3)
    return patches.repeat(16, axis=0).repeat(16, axis=1)


def read_patches(photo):
    return photo.rgb.reshape(6, 16, 4, 16, 3)[:, 8, :, 8].reshape(24, 3).astype(int)


def icc_profile(space, tags, version=(2, 0x40), pcs=b"XYZ "):
    """An ICC profile of these tags, a display's, or a printer's for CMYK."""
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    table, body = b"", b""
    start = 132 + 12 * len(tags)
    for name, data in tags.items():
        data += b"\0" * (-len(data) % 4)
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data
    header = struct.pack(">I4s4B4s4s4s12x4s40x", 0, b"test", *version, 0, 0, kind, space, pcs, b"acsp")
    header = header[:68] + b"".join(s15(v) for v in D50) + b"\0" * 48
    content = header + struct.pack(">I", len(tags)) + table + body
    return struct.pack(">I", len(content)) + content[4:]


def s15(value):
    return struct.pack(">i", round(value * 65536))


def xyz_tag(values):
    return b"XYZ \0\0\0\0" + b"".join(s15(v) for v in values)


def curve_tag(decode):
    """A curve of 1,024 points."""
    points = np.rint(decode(np.linspace(0, 1, 1024)) * 65535).astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", 1024) + points.tobytes()


def parametric_tag(exponent):
    return b"para\0\0\0\0\0\0\0\0" + s15(exponent)


def text_tag(text, version):
    if version == 4:
        encoded_text = text.encode("utf-16-be")
        return b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(encoded_text), 28) + encoded_text
    return b"desc\0\0\0\0" + struct.pack(">I", len(text) + 1) + text.encode() + b"\0" * 79


def rgb_profile(primaries, white, curve, description="chart", version=2):
    columns = adapted(white, D50) @ to_xyz(primaries, white)
    tags = {b"desc": text_tag(description, version), b"wtpt": xyz_tag(D50)}
    tags |= {name: xyz_tag(column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns.T)}
    tags |= {name: curve for name in (b"rTRC", b"gTRC", b"bTRC")}
    return icc_profile(b"RGB ", tags, (version, 0x40 if version == 2 else 0))


def power(exponent):
    return lambda values: values**exponent


SPACES = {
    "linear": (BT709, D65_XY, 1.0),
    "adobe": (((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), D65_XY, 563 / 256),
    "prophoto": (PROPHOTO, D50_XY, 1.8),
    "bt2020": (BT2020, D65_XY, 2.4),
}


@pytest.mark.parametrize("version", [2, 4])
@pytest.mark.parametrize("space", SPACES)
def test_profile_of_a_display(tmp_path, space, version):
    primaries, white, exponent = SPACES[space]
    curve = curve_tag(power(exponent)) if version == 2 else parametric_tag(exponent)
    # The description says sRGB, as that of "linear sRGB" profiles does.
    profile = rgb_profile(primaries, white, curve, f"{space} sRGB", version)
    values = chart_in(primaries, white, power(1 / exponent))
    Image.fromarray(picture(values)).save(tmp_path / "chart.png", icc_profile=profile)
    read = read_patches(read_image(tmp_path / "chart.png"))
    # 8 bits of linear light are too coarse for dark colours: half a step there is up to 4 levels.
    tolerance = np.where((space == "linear") & (WANTED < 100), 4, 2)
    assert (np.abs(read - WANTED) <= tolerance).all()
    assert np.abs(np.rint(values * 255) - WANTED).max() > 10


def test_profile_in_every_format(tmp_path):
    profile = rgb_profile(*SPACES["adobe"][:2], curve_tag(power(563 / 256)))
    pixels = picture(chart_in(*SPACES["adobe"][:2], power(256 / 563)))
    for suffix, options in ((".jpg", {"quality": 100, "subsampling": 0}), (".webp", {"lossless": True}), (".tif", {})):
        Image.fromarray(pixels).save(tmp_path / f"chart{suffix}", icc_profile=profile, **options)
        assert np.abs(read_patches(read_image(tmp_path / f"chart{suffix}")) - WANTED).max() <= 3, suffix


@pytest.mark.parametrize("name", ["Pillow", "curve of 1,024 points", "version 4"])
def test_pixels_with_a_profile_of_srgb_stay_as_they_are(tmp_path, name):
    profile = {
        "Pillow": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        "curve of 1,024 points": rgb_profile(BT709, D65_XY, curve_tag(linear_of), "no name"),
        "version 4": rgb_profile(BT709, D65_XY, curve_tag(linear_of), "none", 4),
    }[name]
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png", icc_profile=profile)
    np.testing.assert_array_equal(read_image(tmp_path / "noise.png").rgb, pixels)


def test_grey_profiles(tmp_path):
    tags = {b"desc": text_tag("grey", 2), b"wtpt": xyz_tag(D50), b"kTRC": curve_tag(power(1.8))}
    ramp = np.arange(0, 256, dtype=np.uint8)[None].repeat(64, axis=0)
    wanted = np.rint(255 * encoded((ramp / 255) ** 1.8))[..., None].repeat(3, axis=2)
    profile = icc_profile(b"GRAY", tags)
    Image.fromarray(ramp).save(tmp_path / "grey.png", icc_profile=profile)
    assert np.abs(read_image(tmp_path / "grey.png").rgb - wanted).max() <= 2
    Image.fromarray(ramp.astype(np.uint16) * 257).save(tmp_path / "deep.png", icc_profile=profile)
    assert np.abs(read_image(tmp_path / "deep.png").rgb - wanted).max() <= 2
    # A picture stored as grey may have the profile of an RGB space, and transparent pixels.
    alpha = Image.new("L", (256, 64), 255)
    alpha.paste(51, (0, 0, 256, 32))
    see_through = Image.merge("LA", [Image.fromarray(ramp), alpha])
    see_through.save(tmp_path / "alpha.png", icc_profile=rgb_profile(BT709, D65_XY, curve_tag(power(1.8))))
    wanted[:32] = 255 + (wanted[:32] - 255) * 0.2  # over white in sRGB as encoded
    assert np.abs(read_image(tmp_path / "alpha.png").rgb - wanted).max() <= 2


def cmyk_profile():
    """A profile in which ink is the complement of light: L* = 100 (1 - K)(1 - mean of CMY), a* = b* = 0."""
    grid = 5
    c, m, y, k = np.meshgrid(*[np.linspace(0, 1, grid)] * 4, indexing="ij")
    light = (1 - k) * (1 - (c + m + y) / 3)
    lab = np.stack([light * 65280, np.full_like(light, 32768), np.full_like(light, 32768)], axis=-1)
    lut = b"mft2\0\0\0\0" + bytes([4, 3, grid, 0]) + b"".join(s15(v) for v in np.eye(3).ravel())
    lut += struct.pack(">HH", 2, 2)
    lut += np.array([0, 65535] * 4, ">u2").tobytes() + np.rint(lab).astype(">u2").tobytes()
    lut += np.array([0, 65535] * 3, ">u2").tobytes()
    tags = {b"desc": text_tag("ink", 2), b"wtpt": xyz_tag(D50), b"A2B0": lut, b"A2B1": lut}
    return icc_profile(b"CMYK", tags, pcs=b"Lab ")


@pytest.mark.parametrize("suffix", [".tif", ".jpg"])
def test_profile_of_a_printer(tmp_path, suffix):
    ink = np.zeros((64, 256, 4), np.uint8)
    ink[..., 3] = np.arange(256)
    path = tmp_path / f"print{suffix}"
    Image.fromarray(ink, mode="CMYK").save(path, icc_profile=cmyk_profile(), quality=100)
    lightness = np.linspace(100, 0, 256)
    luminance = np.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness / 903.3)
    read = read_image(path).rgb[32].astype(int)
    assert np.abs(read - np.rint(255 * encoded(luminance))[:, None]).max() <= 3
    # Without a profile, ink is the complement of light.
    Image.fromarray(ink, mode="CMYK").save(path, quality=100)
    assert np.abs(read_image(path).rgb[32] - np.arange(255, -1, -1)[:, None]).max() <= 2


def test_lab(tmp_path):
    lab = ImageCms.createProfile("LAB")
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), lab, "RGB", "LAB")
    stored = ImageCms.applyTransform(Image.fromarray(picture(CHART)), to_lab)
    for name, options in (("plain", {}), ("profile", {"icc_profile": ImageCms.ImageCmsProfile(lab).tobytes()})):
        stored.save(tmp_path / f"{name}.tif", **options)
        # A step of a* or b* is up to 5 levels of blue in a saturated yellow.
        assert np.abs(read_patches(read_image(tmp_path / f"{name}.tif")) - WANTED).max() <= 5, name


def test_broken_profiles_count_as_none(tmp_path):
    pixels = picture(CHART)
    good = rgb_profile(*SPACES["adobe"][:2], curve_tag(power(2.2)))
    huge = good[:200] + bytes(5_000_000)  # more than Pillow takes in a PNG file
    wrong_kind = icc_profile(b"GRAY", {b"wtpt": xyz_tag(D50), b"kTRC": curve_tag(power(1.8))})
    for profile in (b"x", good[:150], good[:-700], huge, wrong_kind):
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "PNG", icc_profile=profile)
        (tmp_path / "chart.png").write_bytes(content.getvalue())
        np.testing.assert_array_equal(read_image(tmp_path / "chart.png").rgb, pixels)


# -- named without a profile -------------------------------------------------------------------------------------------
ADOBE_PIXELS = picture(chart_in(ADOBE_RGB.primaries, D65_XY, power(256 / 563)))


@pytest.mark.parametrize(
    ("name", "color_space", "index", "is_adobe"),
    [
        ("photo", 0xFFFF, "R03", True),
        ("photo", None, "R03", True),
        ("photo", 2, None, True),
        ("_DSC0001", 0xFFFF, None, True),
        ("photo", 0xFFFF, None, False),
        ("photo", 1, "R98", False),
        ("photo", 1, "R03", False),
        ("_DSC0001", 1, None, False),
        ("_mine", None, None, False),
    ],
)
def test_adobe_rgb_by_exif(tmp_path, name, color_space, index, is_adobe):
    exif = Image.Exif()
    if color_space is not None:
        exif.get_ifd(0x8769)[0xA001] = color_space
    if index is not None:
        exif.get_ifd(0x8769)[0xA005] = {1: index, 2: b"0100"}
    path = tmp_path / f"{name}.jpg"
    Image.fromarray(ADOBE_PIXELS).save(path, exif=exif, quality=100, subsampling=0)
    wanted = WANTED if is_adobe else ADOBE_PIXELS[8::16, 8::16].reshape(24, 3)
    assert np.abs(read_patches(read_image(path)) - wanted).max() <= 3


def test_profile_counts_more_than_exif(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 2
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(picture(CHART)).save(tmp_path / "a.png", exif=exif, icc_profile=profile)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").rgb, picture(CHART))


def png(pixels, **chunks):
    """A PNG file with further chunks before its pixels."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    content = content.getvalue()
    for kind, body in chunks.items():
        chunk = kind.encode() + body
        chunk = struct.pack(">I", len(body)) + chunk + struct.pack(">I", zlib.crc32(chunk))
        content = content[:33] + chunk + content[33:]
    return content


def chromaticities(primaries, white):
    return struct.pack(">8I", *(round(v * 100_000) for point in (white, *primaries) for v in point))


def test_chunks_of_png(tmp_path):
    path = tmp_path / "chart.png"
    plain = picture(CHART)

    def patches(pixels, **chunks):
        path.write_bytes(png(pixels, **chunks))
        return read_patches(read_image(path))

    gamma = struct.pack(">I", 55556)  # 1 / 1.8
    assert np.abs(patches(picture(linear_of(CHART) ** (1 / 1.8)), gAMA=gamma) - WANTED).max() <= 2
    prophoto = picture(chart_in(PROPHOTO, D50_XY, power(1 / 1.8)))
    assert np.abs(patches(prophoto, gAMA=gamma, cHRM=chromaticities(PROPHOTO, D50_XY)) - WANTED).max() <= 2
    display_p3 = picture(chart_in(DISPLAY_P3, D65_XY, encoded))
    assert np.abs(patches(display_p3, cICP=bytes([12, 13, 0, 1])) - WANTED).max() <= 2
    assert np.abs(patches(display_p3, cHRM=chromaticities(DISPLAY_P3, D65_XY)) - WANTED).max() <= 2
    # What says sRGB, in whichever way, leaves the pixels as they are; so does what makes no sense.
    for chunks in (
        {"gAMA": struct.pack(">I", 45455), "cHRM": chromaticities(BT709, D65_XY)},
        {"sRGB": b"\0", "gAMA": gamma},
        {"cICP": bytes([1, 13, 0, 1])},
        {"gAMA": struct.pack(">I", 0)},
        {"cHRM": bytes(32)},
        {"cHRM": struct.pack(">8I", *[31270, 32900] * 4)},
    ):
        np.testing.assert_array_equal(patches(plain, **chunks), WANTED)


def pq_of(nits):
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    power_of = (nits / 10000) ** m1
    return ((c1 + c2 * power_of) / (1 + c3 * power_of)) ** m2


def hlg_of(nits, luminance):
    scene = nits / 1000 * (luminance / 1000) ** ((1 - 1.2) / 1.2)
    bright = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), bright)


def test_hdr_pictures_have_their_diffuse_white_at_203_candela(tmp_path):
    nits = 203 * chart_in(BT2020, D65_XY, power(1.0))
    luminance = nits @ to_xyz(BT2020, D65_XY)[1]
    path = tmp_path / "hdr.png"
    # A step of 8 bits of PQ is up to 5 levels in sRGB.
    path.write_bytes(png(picture(pq_of(nits)), cICP=bytes([9, 16, 0, 1])))
    assert np.abs(read_patches(read_image(path)) - WANTED).max() <= 5
    path.write_bytes(png(picture(hlg_of(nits, luminance[:, None])), cICP=bytes([9, 18, 0, 1])))
    assert np.abs(read_patches(read_image(path)) - WANTED).max() <= 5


def test_coded_colours_of_heif_and_avif(tmp_path):
    display_p3 = Image.fromarray(picture(chart_in(DISPLAY_P3, D65_XY, encoded)))
    path = tmp_path / "chart.avif"
    display_p3.save(path, quality=100, subsampling="4:4:4")
    content = path.read_bytes()
    assert content.count(b"nclx\0\x01\0\x0d") == 1
    path.write_bytes(content.replace(b"nclx\0\x01\0\x0d", b"nclx\0\x0c\0\x0d"))
    assert np.abs(read_patches(read_image(path)) - WANTED).max() <= 4
    pillow_heif = pytest.importorskip("pillow_heif")
    options = {"color_primaries": 12, "transfer_characteristics": 13, "matrix_coefficients": 6, "full_range_flag": 1}
    pillow_heif.from_pillow(display_p3).save(tmp_path / "chart.heic", quality=100, chroma=444, **options)
    assert np.abs(read_patches(read_image(tmp_path / "chart.heic")) - WANTED).max() <= 4


def test_grey_picture_of_a_named_space(tmp_path):
    ramp = np.arange(256, dtype=np.uint8)[None].repeat(64, axis=0)
    (tmp_path / "grey.png").write_bytes(png(ramp, gAMA=struct.pack(">I", 100_000)))
    wanted = np.rint(255 * encoded(ramp / 255))[..., None]
    assert np.abs(read_image(tmp_path / "grey.png").rgb - wanted).max() <= 1


def test_srgb_itself_converts_to_itself():
    pixels = np.random.default_rng(0).integers(0, 256, (300, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal(colour.convert_space(pixels, SRGB), pixels)
    wide = ColourSpace(DISPLAY_P3)
    assert colour.convert_space(np.array([[[0, 255, 0]]], np.uint8), wide).tolist() == [[[0, 255, 0]]]  # clipped


def test_files_that_went_wrong(shared):
    folder = shared / "real" / "failing"
    wanted = read_image(folder / "ycbcr.tif").rgb.astype(int)
    for name in ("linear_srgb.jpg", "adobe_rgb_dcf.jpg"):
        assert np.abs(read_image(folder / name).rgb - wanted).mean() < 3, name
