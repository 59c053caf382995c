"""Decode photographs to upright sRGB pixels, and write images atomically.

Every fault of an image file becomes an ImageError of one line, or a warning where most of the picture is there. Pixels
are (H, W, 3) uint8 sRGB, row 0 at the top. Pillow's process-wide settings are read, never changed.
"""

from __future__ import annotations

import io
import math
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import ImageError
from ..messages import Message
from . import tiff
from .colour import to_srgb
from .files import open_file, write_atomically
from .jpeg import check_jpeg
from .png import PNG_SIGNATURE, complete_png, without_texts

MAX_LONG_SIDE_PX = 4096  # photos are reduced to this; a face never needs more
MIN_SHORT_SIDE_PX = 32
MAX_MEGAPIXELS = 170  # just below the size at which Pillow itself refuses (179)
# Of a file that is cut short. Portraits have the chin above the lowest quarter, and less is no picture of a face.
MIN_PRESENT = 0.75
FILM_DIAGONAL_MM = math.hypot(36.0, 24.0)  # of a frame on 35 mm film
_JPEG_SIGNATURE = b"\xff\xd8"
_MAX_FILE_BYTES = 2**30
_HEADER_BYTES = 2**20  # holds the colour boxes of HEIF and AVIF files
_MISSING_GREY = (128, 128, 128)
_warnings_lock = threading.RLock()

# Named, so that Pillow never starts an interpreter such as Ghostscript on somebody's upload.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "JPEG2000", "AVIF", "HEIF", "ICO", "TGA")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_VIDEO_BRANDS = (b"isom", b"iso2", b"iso5", b"iso6", b"mp41", b"mp42", b"avc1", b"qt  ", b"M4V ", b"3gp4", b"3gp5")
_OTHER_KINDS = {
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"%PDF": "PDF",
    b"8BPS": "Photoshop",
    b"v/1\x01": "OpenEXR",
    b"<svg": "SVG",
}
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
        warnings: what is wrong with the file although it was read, such as damaged or missing data.
    """

    rgb: np.ndarray
    focal_px: float | None
    scale: float
    name: str
    warnings: tuple[Message, ...] = ()


@dataclass(frozen=True)
class _Opened:
    """A picture before decoding.

    Attributes:
        image: as Pillow opened it.
        what: names it in messages.
        name: see `Photo`.
        header: beginning of its file; empty without one.
        may_draft: lets the JPEG decoder downscale.
        present: share of the rows, from the top, that the file has.
        exif: of a file that Pillow did not open itself.
        warnings: see `Photo`.
    """

    image: Image.Image
    what: str
    name: str
    header: bytes = b""
    may_draft: bool = False
    present: float = 1.0
    exif: Image.Exif | None = None
    warnings: tuple[Message, ...] = ()


@dataclass(frozen=True)
class _Exif:
    orientation: int = 1
    focal_35mm: float | None = None


def read_image(source: str | os.PathLike | Image.Image | np.ndarray | Photo) -> Photo:
    """Read a photograph: rotate it upright, convert to sRGB, composite over white, downscale if it is huge.

    Colours are converted by the embedded profile or by what else the file says about its colour space, see `colour`.
    Transparent pixels are composited in sRGB as encoded, as browsers and image editors do. Files of more than 8 bits a
    channel keep their range, see `tiff.read_deep`. A JPEG or PNG file that lacks at most a quarter of its picture is
    read, what is missing is grey, and a warning says so; another warning is about JPEG files with damaged data.

    Args:
        source: a file, a Pillow image, or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8, uint16, bool,
            integers in 0..255 or floats in 0..1. Of several frames the first is read. A Photo is returned unchanged.

    Raises:
        ImageError: the picture is missing, damaged, mostly missing, too small, too large or not a picture.
    """
    if isinstance(source, Photo):
        return source
    if isinstance(source, (str, os.PathLike)):
        return _read_file(Path(source))
    if isinstance(source, Image.Image):
        name = Path(getattr(source, "filename", "") or "photo").stem or "photo"
        return _decode(_Opened(source, "the picture", name))
    if isinstance(source, np.ndarray) or hasattr(source, "__array__"):
        return _decode(_Opened(Image.fromarray(_array_to_uint8(np.asarray(source))), "the array", "photo"))
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
    with open_file(path, ImageError) as file, _errors_of_content(path.name), _without_warnings():
        header = file.read(_HEADER_BYTES)
        if not header:
            raise ImageError("image.empty_file", name=path.name)
        file.seek(0)
        if header.startswith(_JPEG_SIGNATURE):
            return _decode(_open_jpeg(_whole_file(file, path), path))
        if header.startswith(PNG_SIGNATURE):
            return _decode(_open_png(_whole_file(file, path), path))
        if header.startswith(tiff.MAGIC):
            return _decode(_open_tiff(_whole_file(file, path), path))
        _check_kind(header, os.fstat(file.fileno()).st_size, path.name)
        # From memory, because Pillow reserves the length that a part of a file states.
        content = io.BytesIO(_whole_file(file, path))
        with Image.open(content, formats=_known_formats(header, path.name)) as image:
            return _decode(_Opened(image, path.name, path.stem, header))


@contextmanager
def _errors_of_content(name: str) -> Iterator[None]:
    """Turn whatever decoding raises into an ImageError."""
    try:
        yield
    except UnidentifiedImageError as error:
        raise ImageError("image.unreadable", name=name) from error
    except Image.DecompressionBombError as error:
        raise ImageError("image.too_large", name=name, megapixels=MAX_MEGAPIXELS) from error
    except ImageError:
        raise
    except Exception as error:  # a damaged header makes Pillow's readers raise almost anything
        raise ImageError(_damaged(name, error)) from error


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep back what Pillow warns of: metadata that are damaged or too many, and pictures that are large.

    None of it changes the pixels. The filters of warnings belong to the process, so that one file is read at a time:
    otherwise the first thread to finish would restore them for the others, and the last one its own.
    """
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _whole_file(file: BinaryIO, path: Path) -> bytes:
    if os.fstat(file.fileno()).st_size > _MAX_FILE_BYTES:
        raise ImageError("image.too_large", name=path.name, megapixels=MAX_MEGAPIXELS)
    return file.read()


def _open_jpeg(content: bytes, path: Path) -> _Opened:
    report = check_jpeg(content)
    noted = [Message("image.jpeg_damaged", name=path.name)] if report.damaged else []
    if not report.complete or report.present < 1:
        noted.append(_about_missing(path.name, report.present, report.lacks_detail))
        content = report.content
    image = Image.open(io.BytesIO(content), formats=("JPEG", "MPO"))
    return _Opened(image, path.name, path.stem, b"", True, report.present, None, tuple(noted))


def _open_png(content: bytes, path: Path) -> _Opened:
    completed, present = complete_png(content), 1.0
    noted: tuple[Message, ...] = ()
    if completed is not None:
        content, present = completed
        noted = (_about_missing(path.name, present),)
    try:
        image = Image.open(io.BytesIO(content), formats=("PNG",))
    except ValueError:  # of texts and profiles that are too large
        rest, profile = without_texts(content)
        image = Image.open(io.BytesIO(rest), formats=("PNG",))
        image.info["icc_profile"] = profile
    return _Opened(image, path.name, path.stem, content, False, present, None, noted)


def _open_tiff(content: bytes, path: Path) -> _Opened:
    try:
        header = tiff.read_header(content)
    except Exception:  # a damaged header makes Pillow's parser raise almost anything; its reader says what is wrong
        header = None
    if header is not None and header.is_raw:
        raise ImageError("image.raw_camera", name=path.name)
    if header is None or not tiff.needs_opencv(header):
        try:
            return _Opened(Image.open(io.BytesIO(content), formats=("TIFF",)), path.name, path.stem)
        except UnidentifiedImageError:
            if header is None:
                raise
            raise ImageError("image.tiff_kind", name=path.name, kind=header.kind) from None
    _check_size(header.width, header.height, path.name)
    exif = Image.Exif()
    try:
        exif.load_from_fp(io.BytesIO(content))
    except Exception:  # as in `_read_exif`
        exif = Image.Exif()
    return _Opened(tiff.read_deep(content, header, path.name), path.name, path.stem, exif=exif)


def _about_missing(what: str, present: float, lacks_detail: bool = False) -> Message:
    """Warning about a file that ends early.

    Raises:
        ImageError: too little of the picture is there.
    """
    percent = 100 * (1 - present)
    if present < MIN_PRESENT:
        raise ImageError("image.mostly_missing", name=what, percent=percent)
    if present < 1:
        return Message("image.rows_missing", name=what, percent=max(percent, 1))
    return Message("image.detail_missing" if lacks_detail else "image.end_missing", name=what)


def _check_kind(header: bytes, size: int, name: str) -> None:
    """Refuse what people often take for a picture that can be read, and say what it is."""
    text = header[:200].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        raise ImageError("image.web_page", name=name)
    brand = header[8:12] if header[4:8] == b"ftyp" else b""
    if brand in _VIDEO_BRANDS or header.startswith(b"\x1a\x45\xdf\xa3") or header[8:12] == b"AVI ":
        raise ImageError("image.video", name=name)
    for signature, kind in _OTHER_KINDS.items():
        if header.startswith(signature) or (text.startswith(b"<?xml") and signature in text):
            raise ImageError("image.other_kind", name=name, kind=kind)
    if header.startswith(b"RIFF") and header[8:12] == b"WEBP" and size < int.from_bytes(header[4:8], "little"):
        raise ImageError("image.cut_short", name=name)


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


def _check_size(width: int, height: int, what: str) -> None:
    if width * height > MAX_MEGAPIXELS * 1e6:
        raise ImageError("image.too_many_pixels", name=what, width=width, height=height, megapixels=MAX_MEGAPIXELS)
    if min(width, height) * min(1.0, MAX_LONG_SIDE_PX / max(width, height)) < MIN_SHORT_SIDE_PX:
        raise ImageError("image.too_small", name=what, width=width, height=height, minimum=MIN_SHORT_SIDE_PX)


def _decode(opened: _Opened) -> Photo:
    image, what = opened.image, opened.what
    original = image.size
    _check_size(*original, what)
    factor = min(1.0, MAX_LONG_SIDE_PX / max(original))
    try:
        if opened.may_draft and factor < 1:
            image.draft(None, (math.ceil(original[0] * factor), math.ceil(original[1] * factor)))
        image.load()
        exif = _read_exif(image.getexif() if opened.exif is None else opened.exif, image.size)
        image = _reduce(_plain_mode(image, what), factor * max(original))
        image = to_srgb(image, opened.header, opened.name)
    except ImageError:
        raise
    except Exception as error:  # a damaged file makes Pillow's readers raise almost anything
        raise ImageError(_damaged(what, error)) from error
    if opened.present < 1:
        image.paste(_MISSING_GREY, (0, int(opened.present * image.height), *image.size))
    if exif.orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[exif.orientation])
    rgb = np.array(image)
    focal_px = None
    if exif.focal_35mm is not None:
        focal_px = exif.focal_35mm * math.hypot(*image.size) / FILM_DIAGONAL_MM
    scale = max(image.size) / max(original)
    return Photo(rgb=rgb, focal_px=focal_px, scale=scale, name=opened.name, warnings=opened.warnings)


def _read_exif(exif: Image.Exif, size: tuple[int, int]) -> _Exif:
    """Orientation and focal length of an image of this size; damaged or implausible entries count as absent."""
    try:
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
    aspect = max(size) / min(size)
    for sides in shot_sizes:
        if min(sides) > 0 and abs(max(sides) / min(sides) / aspect - 1) > 0.02:
            return _Exif(orientation)
    return _Exif(orientation, focal_35mm)


def _plain_mode(image: Image.Image, what: str) -> Image.Image:
    """Convert the image to one of the modes L, LA, RGB, RGBA, CMYK, LAB; its profile stays with it."""
    if image.mode.startswith(("I", "F")):
        pixels = np.asarray(image)
        levels = tiff.levels_of(pixels, tiff.white_level(pixels, what))
        grey = Image.fromarray((levels + 0.5).astype(np.uint8))
        grey.info = image.info
        return grey
    if image.has_transparency_data:
        return image.convert("LA" if image.mode in ("L", "LA", "La") else "RGBA")
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in ("L", "RGB", "CMYK", "LAB") else image.convert("RGB")


def _reduce(image: Image.Image, long_side: float) -> Image.Image:
    """Downscale the image until its long side has at most `long_side` pixels."""
    factor = long_side / max(image.size)
    if factor >= 1:
        return image
    width, height = (max(1, round(side * factor)) for side in image.size)
    reduced = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    reduced.info = image.info
    return reduced


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
