"""Decode photographs to upright sRGB pixels, and write images atomically.

Every fault of an image file becomes an ImageError of one line. Pixels are (H, W, 3) uint8 sRGB, row 0 at the top.
Pillow's process-wide settings are read, never changed.
"""

from __future__ import annotations

import io
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from ..errors import ImageError
from ..messages import Message
from .files import open_file, write_atomically

MAX_LONG_SIDE_PX = 4096  # photos are reduced to this; a face never needs more
MIN_SHORT_SIDE_PX = 32
MAX_MEGAPIXELS = 170  # just below the size at which Pillow itself refuses (179)
FILM_DIAGONAL_MM = math.hypot(36.0, 24.0)  # of a frame on 35 mm film

# Named, so that Pillow never starts an interpreter such as Ghostscript on somebody's upload.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "JPEG2000", "AVIF", "HEIF", "ICO", "TGA")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_EXIF_IFD, _EXIF_FOCAL_35MM = 0x8769, 0xA405
_EXIF_SIZE_TAGS, _TIFF_SIZE_TAGS, _ORIENTATION = (0xA002, 0xA003), (0x0100, 0x0101), 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ICC_SPACE = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}
_SAVE_OPTIONS = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"quality": 95}),
}


@dataclass(frozen=True)
class Photo:
    """A decoded photograph.
    Attributes:
        rgb: (H, W, 3) uint8 sRGB, upright, long side at most MAX_LONG_SIDE_PX.
        focal_px: focal length in pixels of `rgb`, or None without EXIF data. EXIF stores the 35 mm equivalent, which
            has the same angle of view over the diagonal: focal_px = focal_35mm * diagonal_px / 43.27.
        scale: size of `rgb` divided by the size of the original, at most 1.
        name: file name without its suffix; "photo" where there is no file.
    """

    rgb: np.ndarray
    focal_px: float | None
    scale: float
    name: str


@dataclass(frozen=True)
class _Exif:
    orientation: int = 1
    focal_35mm: float | None = None


def read_image(source: str | os.PathLike | Image.Image | np.ndarray | Photo) -> Photo:
    """Read a photograph: rotate it upright, convert to sRGB, composite over white, downscale if it is huge.

    Args:
        source: a file, a Pillow image, or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8, uint16, bool,
            integers in 0..255 or floats in 0..1. Of several frames the first is read. A Photo is returned unchanged.

    Raises:
        ImageError: the picture is missing, damaged, cut short, too small, too large or not a picture.
    """
    if isinstance(source, Photo):
        return source
    if isinstance(source, (str, os.PathLike)):
        return _read_file(Path(source))
    if isinstance(source, Image.Image):
        name = Path(getattr(source, "filename", "") or "photo").stem or "photo"
        return _decode(source, "the picture", name)
    if isinstance(source, np.ndarray) or hasattr(source, "__array__"):
        return _decode(Image.fromarray(_array_to_uint8(np.asarray(source))), "the array", "photo")
    raise ImageError("image.source_type", type=type(source).__name__)


def save_image(path: str | os.PathLike, rgb: np.ndarray) -> Path:
    """Encode an image and write the file atomically.

    Args:
        path: ends in .png, .jpg, .jpeg or .webp; its folder exists.
        rgb: (H, W, 3), (H, W, 4) or (H, W) uint8.

    Raises:
        ImageError: unknown suffix, wrong array, or the file cannot be written.
    """
    path = Path(path)
    return write_atomically(path, encoded_image(path, rgb), ImageError)


def encoded_image(path: Path, rgb: np.ndarray) -> bytes:
    """Content of the file that `save_image` writes; see there.

    Raises:
        ImageError: unknown suffix, or wrong array.
    """
    if path.suffix.lower() not in _SAVE_OPTIONS:
        known = " ".join(_SAVE_OPTIONS)
        raise ImageError("image.write_suffix", name=path.name, known=known)
    rgb = np.asarray(rgb)
    if rgb.dtype != np.uint8 or 0 in rgb.shape or not (rgb.ndim == 2 or (rgb.ndim == 3 and rgb.shape[2] in (3, 4))):
        raise ImageError("image.write_array", name=path.name, shape=rgb.shape, dtype=rgb.dtype)
    image_format, options = _SAVE_OPTIONS[path.suffix.lower()]
    if image_format == "JPEG" and rgb.ndim == 3:
        rgb = rgb[:, :, :3]
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(content, format=image_format, **options)
    return content.getvalue()


def _read_file(path: Path) -> Photo:
    with open_file(path, ImageError) as file:
        try:
            header = file.read(12)
            if not header:
                raise ImageError("image.empty_file", name=path.name)
            formats = _known_formats(header, path.name)
            file.seek(0)
            with Image.open(file, formats=formats) as image:
                return _decode(image, path.name, path.stem, may_draft=True)
        except UnidentifiedImageError as error:
            raise ImageError("image.unreadable", name=path.name) from error
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ImageError("image.too_large", name=path.name, megapixels=MAX_MEGAPIXELS) from error
        except ImageError:
            raise
        except Exception as error:  # a damaged header makes Pillow's readers raise almost anything
            raise ImageError(_damaged(path.name, error)) from error


def _known_formats(header: bytes, what: str) -> list[str]:
    """Names of the formats to try; HEIC is read by an optional package."""
    if header[4:8] == b"ftyp" and header[8:12] in _HEIF_BRANDS:
        try:
            import pillow_heif
        except ImportError as error:
            raise ImageError("image.needs_heif", name=what) from error
        pillow_heif.register_heif_opener()
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _decode(image: Image.Image, what: str, name: str, may_draft: bool = False) -> Photo:
    """Decode an opened image; `what` names it in messages, `may_draft` lets the JPEG decoder downscale."""
    original = image.size
    if original[0] * original[1] > MAX_MEGAPIXELS * 1e6:
        width, height = original
        raise ImageError("image.too_many_pixels", name=what, width=width, height=height, megapixels=MAX_MEGAPIXELS)
    factor = min(1.0, MAX_LONG_SIDE_PX / max(original))
    if min(original) * factor < MIN_SHORT_SIDE_PX:
        width, height = original
        raise ImageError("image.too_small", name=what, width=width, height=height, minimum=MIN_SHORT_SIDE_PX)
    try:
        if may_draft and factor < 1:
            image.draft(None, (math.ceil(original[0] * factor), math.ceil(original[1] * factor)))
        image.load()
        exif = _read_exif(image)
        image = _reduce(_plain_mode(image, what), factor * max(original))
        image = _to_srgb(image)
    except ImageError:
        raise
    except Exception as error:  # a damaged file makes Pillow's readers raise almost anything
        raise ImageError(_damaged(what, error)) from error
    if exif.orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[exif.orientation])
    rgb = np.array(image)
    focal_px = None
    if exif.focal_35mm is not None:
        focal_px = exif.focal_35mm * math.hypot(*image.size) / FILM_DIAGONAL_MM
    return Photo(rgb=rgb, focal_px=focal_px, scale=max(image.size) / max(original), name=name)


def _read_exif(image: Image.Image) -> _Exif:
    """Orientation and focal length of a loaded image; damaged or implausible entries count as absent."""
    try:
        exif = image.getexif()
        details = exif.get_ifd(_EXIF_IFD)
        orientation = int(exif.get(_ORIENTATION, 1))
        focal_35mm = float(details.get(_EXIF_FOCAL_35MM, 0))
        shot_sizes = [tuple(float(source.get(tag, 0)) for tag in tags)
                      for source, tags in ((details, _EXIF_SIZE_TAGS), (exif, _TIFF_SIZE_TAGS))]
    except Exception:  # EXIF is written by thousands of devices, and a photo without it is still a photo
        return _Exif()
    if not 4 <= focal_35mm <= 3000:
        return _Exif(orientation)
    # A cropped picture keeps its EXIF block, and then the angle of view in it is not the picture's.
    aspect = max(image.size) / min(image.size)
    for sides in shot_sizes:
        if min(sides) > 0 and abs(max(sides) / min(sides) / aspect - 1) > 0.02:
            return _Exif(orientation)
    return _Exif(orientation, focal_35mm)


def _plain_mode(image: Image.Image, what: str) -> Image.Image:
    """Convert the image to one of the modes L, RGB, RGBA, CMYK."""
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_deep_grey_to_uint8(np.asarray(image), what))
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")


def _reduce(image: Image.Image, long_side: float) -> Image.Image:
    """Downscale the image until its long side has at most `long_side` pixels."""
    factor = long_side / max(image.size)
    if factor >= 1:
        return image
    width, height = (max(1, round(side * factor)) for side in image.size)
    reduced = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    reduced.info = image.info
    return reduced


def _to_srgb(image: Image.Image) -> Image.Image:
    """Convert L, RGB, RGBA or CMYK to RGB through the embedded colour profile if it is valid; alpha over white."""
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    icc_profile = image.info.get("icc_profile")
    if alpha is not None:
        image = image.convert("RGB")
    converted = _apply_icc(image, icc_profile) if icc_profile else None
    image = image.convert("RGB") if converted is None else converted
    if alpha is None:
        return image
    return Image.composite(image, Image.new("RGB", image.size, "white"), alpha)


def _apply_icc(image: Image.Image, icc_profile: bytes) -> Image.Image | None:
    """Convert to sRGB; None when the profile is sRGB already, broken, or for another colour space."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
        if profile.profile.xcolor_space.strip() != _ICC_SPACE[image.mode]:
            return None
        if image.mode == "RGB" and "srgb" in ImageCms.getProfileDescription(profile).lower():
            return None
        return ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _deep_grey_to_uint8(grey: np.ndarray, what: str) -> np.ndarray:
    """Convert Pillow's 16-bit, 32-bit and floating-point grey pixels to (H, W) uint8."""
    if grey.dtype.kind == "f":
        if not np.isfinite(grey).all():
            raise ImageError("image.file_not_finite", name=what)
        white = next((white for white in (1.0, 255.0, 65535.0) if grey.max() <= white), float(grey.max()))
    else:
        # Files of 32-bit integers nearly always hold 16-bit values; only larger ones use the whole range.
        white = 65535.0 if grey.max() <= 65535 else float(2**31 - 1)
    return np.clip(grey.astype(np.float32) * (255.0 / white) + 0.5, 0, 255).astype(np.uint8)


def _array_to_uint8(array: np.ndarray) -> np.ndarray:
    """Convert an array of any accepted shape and type to (H, W), (H, W, 3) or (H, W, 4) uint8."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        channels_first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        raise ImageError("image.channels_first" if channels_first else "image.array_shape", shape=array.shape)
    if 0 in array.shape:
        raise ImageError("image.array_empty", shape=array.shape)
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    if array.dtype == np.uint16:
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if array.dtype.kind not in "iuf":
        raise ImageError("image.array_dtype", dtype=array.dtype)
    if not np.isfinite(array).all():
        raise ImageError("image.array_not_finite")
    low, high = float(array.min()), float(array.max())
    white, slack = (1, 1e-3) if array.dtype.kind == "f" else (255, 0)
    if low < -slack or high > white + slack:
        raise ImageError("image.array_range", dtype=array.dtype, most=white, low=low, high=high)
    return np.clip(array * (255.0 / white) + 0.5, 0, 255).astype(np.uint8)


def _damaged(what: str, error: Exception) -> Message:
    words = str(error).lower()
    if isinstance(error, EOFError) or any(word in words for word in ("truncated", "premature", "end of file", "eof")):
        return Message("image.cut_short", name=what)
    return Message("image.damaged", name=what, reason=(str(error).splitlines() or [""])[0] or type(error).__name__)
