"""Colour spaces of pictures: how files name them, and their conversion to sRGB.

An embedded ICC profile is converted by LittleCMS with relative colorimetric intent and black point compensation:
colours that sRGB has keep their values, white stays white, and shadows keep their detail (the perceptual intent would
shift all colours; without compensation the shadows of print profiles become one black). Colour spaces that a file names
without a profile are computed from their primaries, white point and transfer curve. Colours outside sRGB are clipped in
each channel.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageCms

from ..graphics.lighting import linear_from_srgb, srgb_from_linear

_D65 = (0.3127, 0.3290)
_EXIF_IFD, _INTEROPERABILITY_IFD = 0x8769, 0xA005
_COLOR_SPACE, _INTEROPERABILITY_INDEX = 0xA001, 0x0001
_SRGB, _ADOBE_RGB, _UNCALIBRATED = 1, 2, 0xFFFF  # values of _COLOR_SPACE
_MODES_OF_PROFILE = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
_GRID = 17  # colours along each axis on which a profile is compared with sRGB
_ROWS_AT_ONCE = 256
REFERENCE_WHITE_CD_M2 = 203.0  # of diffuse white in HDR pictures, ITU-R BT.2408; brighter light is clipped
_HLG_PEAK_CD_M2, _HLG_GAMMA = 1000.0, 1.2


@dataclass(frozen=True)
class ColourSpace:
    """An RGB colour space.

    Attributes:
        primaries: CIE 1931 (x, y) of red, green, blue.
        white: (x, y) of the white point.
        transfer: "srgb", "pq", "hlg", or the exponent of the curve from pixel values to linear light.
    """

    primaries: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
    white: tuple[float, float] = _D65
    transfer: str | float = "srgb"


_BT709 = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
_BT601_625 = ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06))
_BT601_525 = ((0.63, 0.34), (0.31, 0.595), (0.155, 0.07))
_BT2020 = ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))
_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
SRGB = ColourSpace(_BT709)
# Adobe RGB (1998), section 4.3.1.1: the exponent is 2 51/256.
ADOBE_RGB = ColourSpace(((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), _D65, 563 / 256)

# Code points of ITU-T H.273, which HEIF, AVIF and PNG use.
_CODED_PRIMARIES = {
    1: (_BT709, _D65),
    4: (((0.67, 0.33), (0.21, 0.71), (0.14, 0.08)), (0.310, 0.316)),
    5: (_BT601_625, _D65),
    6: (_BT601_525, _D65),
    7: (_BT601_525, _D65),
    9: (_BT2020, _D65),
    11: (_P3, (0.314, 0.351)),
    12: (_P3, _D65),
    22: (((0.630, 0.340), (0.295, 0.605), (0.155, 0.077)), _D65),
}
# Files with the curve of video (1, 6, 14, 15) are shown by browsers and phones as if they had that of sRGB.
_CODED_TRANSFER: dict[int, str | float] = {4: 2.2, 5: 2.8, 8: 1.0, 16: "pq", 17: 2.6, 18: "hlg"}


def to_srgb(image: Image.Image, header: bytes, name: str) -> Image.Image:
    """Convert a picture of mode L, LA, RGB, RGBA, CMYK or LAB to sRGB over white.

    Args:
        image: with the metadata that Pillow read in `info`.
        header: beginning of its file; empty where Pillow reports all that matters.
        name: of the file; DCF names pictures in Adobe RGB with a leading underscore.
    """
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    if alpha is not None:
        image = image.convert(image.mode[:-1])
    rgb = _colours_to_srgb(image, header, name)
    if alpha is None:
        return rgb
    return Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha)


def _colours_to_srgb(image: Image.Image, header: bytes, name: str) -> Image.Image:
    coded = _cicp_of_png(header)  # the PNG specification puts it before the profile
    icc_profile = image.info.get("icc_profile")
    if icc_profile and not coded:
        converted = convert_profile(image, icc_profile)
        space = None
    else:
        converted, space = None, _space_without_profile(image, coded, header, name)
    if image.mode == "LAB" and converted is None:
        return convert_lab(image)
    if space is not None and image.mode in ("L", "RGB"):
        return Image.fromarray(convert_space(np.asarray(image.convert("RGB")), space))
    return image.convert("RGB") if converted is None else converted


def _space_without_profile(
    image: Image.Image, coded: dict[str, Any] | None, header: bytes, name: str
) -> ColourSpace | None:
    """Colour space of an RGB picture by what else its file says; None for sRGB."""
    coded = coded or image.info.get("nclx_profile") or _nclx_of_avif(header)
    if coded:
        space = _coded_space(coded)
    else:
        space = _png_space(image) or (ADOBE_RGB if _is_dcf_adobe_rgb(image, name) else SRGB)
    return None if space == SRGB else space


def _coded_space(coded: dict[str, Any]) -> ColourSpace:
    primaries = _CODED_PRIMARIES.get(coded["color_primaries"], (_BT709, _D65))
    return ColourSpace(*primaries, _CODED_TRANSFER.get(coded["transfer_characteristics"], "srgb"))


def _cicp_of_png(content: bytes) -> dict[str, int] | None:
    """Chunk cICP of a PNG file, which Pillow does not report."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return None
    at = 8
    while at + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        if kind == b"cICP" and length == 4 and at + 12 <= len(content):
            return {"color_primaries": content[at + 8], "transfer_characteristics": content[at + 9]}
        if kind == b"IDAT":
            return None
        at += 12 + length
    return None


def _nclx_of_avif(content: bytes) -> dict[str, int] | None:
    """First colour box of type nclx in an AVIF file, which Pillow does not report."""
    if content[4:8] != b"ftyp":
        return None
    properties = content
    for path, header in ((b"meta", 4), (b"iprp", 0), (b"ipco", 0)):
        found = next((body for kind, body in _boxes(properties) if kind == path), b"")
        properties = found[header:]
    for kind, body in _boxes(properties):
        if kind == b"colr" and body[:4] == b"nclx" and len(body) >= 8:
            primaries, transfer = struct.unpack_from(">HH", body, 4)
            return {"color_primaries": primaries, "transfer_characteristics": transfer}
    return None


def _boxes(content: bytes):
    """Kinds and bodies of the boxes of an ISO base media file, up to the first damaged one."""
    at = 0
    while at + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        if length < 8:
            return
        yield kind, content[at + 8 : at + length]
        at += length


def _png_space(image: Image.Image) -> ColourSpace | None:
    """Colour space by the chunks gAMA and cHRM of a PNG file; a chunk sRGB overrides them."""
    gamma, xy = image.info.get("gamma"), image.info.get("chromaticity")
    if image.format != "PNG" or "srgb" in image.info or (gamma is None and xy is None):
        return None
    transfer: str | float = "srgb"
    # 1 / 2.2 is how files in sRGB state their curve; see the PNG specification, section on sRGB.
    if gamma is not None and 0.1 < gamma < 2 and abs(gamma - 1 / 2.2) > 0.005:
        transfer = 1 / gamma
    primaries, white = _BT709, _D65
    if xy is not None and len(xy) == 8:
        points = [(float(xy[i]), float(xy[i + 1])) for i in range(0, 8, 2)]
        usable = all(0 <= x <= 1 and 0 < y <= 1 for x, y in points) and _area(points[1:]) > 0.02
        if usable and np.abs(np.array(points) - np.array((_D65, *_BT709))).max() > 0.002:
            white, primaries = points[0], (points[1], points[2], points[3])
    return ColourSpace(primaries, white, transfer)


def _area(corners) -> float:
    (ax, ay), (bx, by), (cx, cy) = corners
    return abs((bx - ax) * (cy - ay) - (cx - ax) * (by - ay)) / 2


def _is_dcf_adobe_rgb(image: Image.Image, name: str) -> bool:
    """Whether a camera's file says Adobe RGB in the way of DCF 2.0: by EXIF data and the first letter of its name."""
    try:
        exif = image.getexif()
        details = exif.get_ifd(_EXIF_IFD)
        declared = details.get(_COLOR_SPACE)
        has_index = _INTEROPERABILITY_IFD in details
        index = exif.get_ifd(_INTEROPERABILITY_IFD).get(_INTEROPERABILITY_INDEX) if has_index else None
    except Exception:  # EXIF is written by thousands of devices, and most pictures are sRGB anyway
        return False
    if declared == _ADOBE_RGB:
        return True
    return declared != _SRGB and (str(index).startswith("R03") or (declared == _UNCALIBRATED and name.startswith("_")))


# -- conversion -------------------------------------------------------------------------------------------------------
def convert_profile(image: Image.Image, icc_profile: bytes) -> Image.Image | None:
    """Convert a picture of mode L, RGB, CMYK or LAB to sRGB.

    Returns:
        Mode RGB; None when the profile is sRGB, broken, or for pictures of another kind.
    """
    try:
        mode, is_srgb = _examine_profile(icc_profile)
        if mode == "RGB" and image.mode == "L":
            image = image.convert("RGB")
        if mode != image.mode or is_srgb:
            return None
        return _apply(image, icc_profile, mode)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, KeyError):
        return None


def convert_profile_deep(levels: np.ndarray, icc_profile: bytes) -> np.ndarray | None:
    """Convert pixels of more than 8 bits to sRGB, because 8 bits of a linear space are too coarse in the shadows.

    LittleCMS as Pillow offers it takes 8 bits: it converts the neighbouring levels, between which this interpolates.

    Args:
        levels: (H, W) or (H, W, 3) float32 in 0..255.

    Returns:
        (H, W, 3) float32 in 0..255; None as `convert_profile`.
    """
    low = np.floor(levels.clip(0, 255))
    high = np.minimum(low + 1, 255)
    base = _convert_levels(low, icc_profile)
    if base is None:
        return None
    fraction = (levels - low).reshape(*levels.shape[:2], -1)
    result = base.copy()
    for channel in range(fraction.shape[2]):
        moved = low.copy()
        moved.reshape(fraction.shape)[..., channel] = high.reshape(fraction.shape)[..., channel]
        converted = _convert_levels(moved, icc_profile)
        assert converted is not None  # as for `low`
        result += fraction[..., channel : channel + 1] * (converted - base)
    return result.clip(0, 255)


def _convert_levels(levels: np.ndarray, icc_profile: bytes) -> np.ndarray | None:
    converted = convert_profile(Image.fromarray(levels.astype(np.uint8)), icc_profile)
    return None if converted is None else np.asarray(converted, np.float32)


def convert_lab(image: Image.Image) -> Image.Image:
    """Convert a picture of mode LAB (CIE L*a*b*, D50) without a profile to sRGB."""
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    return _apply(image, lab, "LAB")


def _apply(image: Image.Image, icc_profile: bytes, mode: str) -> Image.Image:
    converted = ImageCms.applyTransform(image, _transform(icc_profile, mode))
    assert converted is not None  # it is only when an image is converted in place
    return converted


@lru_cache(maxsize=8)
def _examine_profile(icc_profile: bytes) -> tuple[str, bool]:
    """Pillow's mode for the pictures of a profile, and whether it leaves sRGB's colours as they are, within a level."""
    mode = _MODES_OF_PROFILE[_open_profile(icc_profile).profile.xcolor_space.strip()]
    if mode in ("CMYK", "LAB"):
        return mode, False
    if mode == "L":
        colours = np.arange(256, dtype=np.uint8)[None]
        expected = np.repeat(colours[..., None], 3, axis=2)
    else:
        steps = np.linspace(0, 255, _GRID).round().astype(np.uint8)
        colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(_GRID, -1, 3)
        expected = colours
    converted = _apply(Image.fromarray(colours), icc_profile, mode)
    return mode, bool(np.abs(np.asarray(converted).astype(int) - expected).max() <= 1)


def _open_profile(icc_profile: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))


@lru_cache(maxsize=8)
def _transform(icc_profile: bytes, mode: str) -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(
        _open_profile(icc_profile),
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


def convert_space(rgb: np.ndarray, space: ColourSpace) -> np.ndarray:
    """Convert pixels of an RGB colour space to sRGB.

    Args:
        rgb: (H, W, 3) uint8.

    Returns:
        (H, W, 3) uint8.
    """
    decoded = _linear_light(np.arange(256, dtype=np.float32) / 255, space.transfer)
    matrix = _matrix_to_srgb(space).astype(np.float32)
    encoded = _encoding_table()
    result = np.empty_like(rgb)
    for row in range(0, len(rgb), _ROWS_AT_ONCE):
        linear = decoded[rgb[row : row + _ROWS_AT_ONCE]]
        if space.transfer == "hlg":
            linear = _hlg_display_light(linear, space)
        linear = (linear @ matrix.T).clip(0, 1)
        result[row : row + _ROWS_AT_ONCE] = encoded[(linear * 65535 + 0.5).astype(np.uint16)]
    return result


def _linear_light(values: np.ndarray, transfer: str | float) -> np.ndarray:
    """Pixel values 0..1 to linear light, 1 at white; of HLG the light of the scene, 1 at its peak."""
    if transfer == "srgb":
        return linear_from_srgb(torch.from_numpy(values)).numpy()
    if transfer == "pq":  # SMPTE ST 2084
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        power = values.astype(np.float64) ** (1 / m2)
        nits = 10000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)
        return (nits / REFERENCE_WHITE_CD_M2).astype(np.float32)
    if transfer == "hlg":  # ITU-R BT.2100
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        return np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12).astype(np.float32)
    return (values ** float(transfer)).astype(np.float32)


def _hlg_display_light(scene: np.ndarray, space: ColourSpace) -> np.ndarray:
    """Light of a display of 1000 cd/m2, 1 at the reference white, see ITU-R BT.2100, table 5."""
    luminance = scene @ _matrix_to_xyz(space)[1].astype(np.float32)
    gain = np.maximum(luminance, 1e-6) ** (_HLG_GAMMA - 1) * (_HLG_PEAK_CD_M2 / REFERENCE_WHITE_CD_M2)
    return scene * gain[..., None]


@lru_cache(maxsize=1)
def _encoding_table() -> np.ndarray:
    """(65536,) uint8 sRGB of linear light in 16 bits."""
    return (srgb_from_linear(torch.linspace(0, 1, 65536, dtype=torch.float64)) * 255 + 0.5).to(torch.uint8).numpy()


def _matrix_to_srgb(space: ColourSpace) -> np.ndarray:
    """(3, 3) from linear RGB of the space to linear sRGB, adapted to its white point by Bradford's method."""
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    gains = (bradford @ _xyz_of(_D65)) / (bradford @ _xyz_of(space.white))
    adaptation = np.linalg.inv(bradford) @ (gains[:, None] * bradford)
    return np.linalg.inv(_matrix_to_xyz(SRGB)) @ adaptation @ _matrix_to_xyz(space)


def _matrix_to_xyz(space: ColourSpace) -> np.ndarray:
    """(3, 3) from linear RGB to XYZ, with luminance 1 for white."""
    columns = np.stack([_xyz_of(point) for point in space.primaries], axis=1)
    return columns * np.linalg.solve(columns, _xyz_of(space.white))


def _xyz_of(point: tuple[float, float]) -> np.ndarray:
    x, y = point
    return np.array([x / y, 1.0, (1 - x - y) / y])
