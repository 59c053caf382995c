"""Read the TIFF files that Pillow reads wrongly or not at all, with OpenCV.

Those are: more than 8 bits a channel (Pillow reads some as 8 bits, mixes up separate planes, leaves white-is-zero
inverted, and takes no floating-point colours), and YCbCr without JPEG compression.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

import numpy as np
from PIL import Image, TiffImagePlugin

from ..errors import ImageError
from .colour import convert_lab, convert_profile, convert_profile_deep

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_SAMPLES, _SUB_IFDS, _EXTRA, _FORMAT, _ICC, _DNG_VERSION = 277, 330, 338, 339, 34675, 50706
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _YCBCR, _CIELAB, _ICCLAB = 0, 1, 2, 6, 8, 9
_SENSOR_DATA = (32803, 34892)  # photometric interpretations: colour filter array, linear raw
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_JPEG = (6, 7)
_ORIENTATION, _PLANAR = 274, 284
_PIECES = (273, 279, 324, 325)  # offsets and lengths of strips and tiles
_SHORT = 3
_TYPE_BYTES = {3: 2, 4: 4, 16: 8}
_MAX_DECODED_BYTES = 2**29
_MAX_SAMPLES = 6  # Pillow prints a line about more
_ROWS_AT_ONCE = 256
_MEDIAN_STRIDE = 7


@dataclass(frozen=True)
class TiffHeader:
    """Tags of the first picture of a TIFF file that say how its pixels are stored."""

    width: int
    height: int
    bits: int
    sample_format: int
    samples: int
    photometric: int
    compression: int
    has_planes: bool
    has_premultiplied_alpha: bool
    icc_profile: bytes | None
    is_raw: bool

    @property
    def kind(self) -> str:
        """For messages, such as "16-bit float, YCbCr"."""
        formats = {_UNSIGNED: "", _SIGNED: " signed", _FLOAT: " float"}
        spaces = {_YCBCR: "YCbCr", _CIELAB: "CIELab", _ICCLAB: "ICCLab", 5: "CMYK", 3: "palette", 10: "ITULab"}
        space = spaces.get(self.photometric, "RGB" if self.samples >= 3 else "grey")
        return f"{self.bits}-bit{formats.get(self.sample_format, '')} {space}, compression {self.compression}"


def read_header(content: bytes) -> TiffHeader:
    """Read the tags of the first picture.

    Raises:
        Exception: of almost any type, where the file is damaged.
    """
    tags = TiffImagePlugin.ImageFileDirectory_v2(content[: 16 if content[:4] in MAGIC[2:] else 8])
    file = io.BytesIO(content)
    file.seek(tags.next)
    tags.load(file)
    bits = tags.get(_BITS, (1,))
    formats = tags.get(_FORMAT, (_UNSIGNED,))
    extra = tags.get(_EXTRA, ())
    is_thumbnail = tags.get(_SUBFILE, 0) & 1 and _SUB_IFDS in tags
    photometric = int(tags.get(_PHOTOMETRIC, _BLACK_IS_ZERO))
    return TiffHeader(
        width=int(tags[_WIDTH]),
        height=int(tags[_HEIGHT]),
        bits=max(bits if isinstance(bits, tuple) else (bits,)),
        sample_format=max(formats if isinstance(formats, tuple) else (formats,)),
        samples=int(tags.get(_SAMPLES, 1)),
        photometric=photometric,
        compression=int(tags.get(_COMPRESSION, 1)),
        has_planes=tags.get(_PLANAR, 1) == 2 and tags.get(_SAMPLES, 1) > 1,
        has_premultiplied_alpha=1 in (extra if isinstance(extra, tuple) else (extra,)),
        icc_profile=tags.get(_ICC),
        is_raw=bool(is_thumbnail) or _DNG_VERSION in tags or photometric in _SENSOR_DATA or content[8:10] == b"CR",
    )


def needs_opencv(header: TiffHeader) -> bool:
    """Whether `read_deep` is to read the file, or to refuse it, rather than Pillow."""
    if header.samples > _MAX_SAMPLES:
        return True
    if header.photometric == _YCBCR:
        return header.compression not in _JPEG
    if header.photometric in (_CIELAB, _ICCLAB):
        return header.bits > 8 or header.photometric == _ICCLAB
    return header.bits > 8 and header.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB)


def read_deep(content: bytes, header: TiffHeader, name: str) -> Image.Image:
    """Decode to an RGB picture in sRGB, over white where it is transparent, in the orientation of the file.

    The largest unsigned integer is white, but 65535 where no pixel of 32 bits is larger. Floating-point pixels have no
    fixed white: it is 1 if half of them or all are at most 1, else 255 or 65535 if no pixel is larger, else the largest
    pixel. Without a profile, their values are taken as encoded in sRGB, as those of all other files.

    Raises:
        ImageError: a kind of TIFF that OpenCV does not read, too many pixels, or pixels that are not numbers.
    """
    if header.width * header.height * max(header.samples, 1) * header.bits // 8 > _MAX_DECODED_BYTES:
        megapixels = _MAX_DECODED_BYTES // (max(header.samples, 1) * header.bits // 8) // 10**6
        raise ImageError("image.too_large", name=name, megapixels=megapixels)
    is_known = header.photometric != _YCBCR or not header.has_planes
    pixels = _decode(content, header) if is_known else None
    if pixels is None or pixels.shape[:2] != (header.height, header.width):
        raise ImageError("image.tiff_kind", name=name, kind=header.kind)
    if header.photometric in (_CIELAB, _ICCLAB):
        return _lab_to_srgb(pixels, header)
    white = white_level(pixels, name)
    picture = np.empty((header.height, header.width, 3), np.uint8)
    for row in range(0, header.height, _ROWS_AT_ONCE):
        picture[row : row + _ROWS_AT_ONCE] = _to_srgb(pixels[row : row + _ROWS_AT_ONCE], white, header)
    return Image.fromarray(picture)


def white_level(pixels: np.ndarray, name: str) -> float:
    """Value of white in pixels of any type, see `read_deep`."""
    high = float(pixels.max())
    if pixels.dtype.kind != "f":
        if pixels.dtype.itemsize == 1:
            return 255.0
        # Files of 32-bit integers nearly always hold 16-bit values; only larger ones use the whole range.
        return 65535.0 if high <= 65535 else float(np.iinfo(pixels.dtype).max)
    if not np.isfinite(pixels).all():
        raise ImageError("image.file_not_finite", name=name)
    if high <= 1 or np.median(pixels[::_MEDIAN_STRIDE, ::_MEDIAN_STRIDE]) <= 1:
        return 1.0
    return next((white for white in (255.0, 65535.0) if high <= white), high)


def levels_of(pixels: np.ndarray, white: float) -> np.ndarray:
    """Pixels of any type as float32 in 0..255."""
    return pixels.clip(0, white).astype(np.float32) * np.float32(255 / white)


def _decode(content: bytes, header: TiffHeader) -> np.ndarray | None:
    """(H, W) or (H, W, C) pixels as stored, RGB or RGBA in this order; None if OpenCV cannot read them."""
    # OpenCV turns the picture upright by itself, takes separate planes for interleaved pixels, and does not know 16-bit
    # floats and L*a*b*: it gets a file that calls them integers, RGB, and one grey picture for each plane.
    replaced = {_ORIENTATION: 1}
    is_half = header.bits == 16 and header.sample_format == _FLOAT
    if is_half:
        replaced[_FORMAT] = _UNSIGNED
    if header.photometric in (_CIELAB, _ICCLAB):
        replaced[_PHOTOMETRIC] = _RGB
    if header.has_planes:
        found = [_decode_as_stored(_edited(content, replaced, (k, header.samples))) for k in range(header.samples)]
        planes = [plane for plane in found if plane is not None]
        pixels = np.stack(planes, axis=-1) if len(planes) == header.samples else None
    else:
        pixels = _decode_as_stored(_edited(content, replaced))
        if pixels is not None and pixels.ndim == 3:
            pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    return pixels.view(np.float16) if pixels is not None and is_half else pixels


def _decode_as_stored(content: bytes) -> np.ndarray | None:
    import cv2  # opencv-contrib-python comes with mediapipe

    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    finally:
        cv2.utils.logging.setLogLevel(level)


def _edited(content: bytes, replaced: dict[int, int], plane: tuple[int, int] | None = None) -> bytes:
    """The file with changed tags in its first directory.

    Args:
        replaced: values of tags of type SHORT; all values of a tag become this one.
        plane: (k, n) makes it a grey picture of the k-th of n separate planes.
    """
    order = "<" if content[:2] == b"II" else ">"
    size, number, counter, entry_bytes = (8, "Q", "Q", 20) if content[:4] in MAGIC[2:] else (4, "I", "H", 12)
    (at,) = struct.unpack_from(order + number, content, size)
    (count,) = struct.unpack_from(order + counter, content, at)
    at += struct.calcsize(order + counter)
    changed = bytearray(content)
    for entry in range(at, at + count * entry_bytes, entry_bytes):
        tag, kind, values = struct.unpack_from(f"{order}HH{number}", content, entry)
        place = entry + 4 + size
        bytes_each = _TYPE_BYTES.get(kind, 1)
        (address,) = struct.unpack_from(order + number, content, place)
        if plane is not None and tag in (_BITS, _FORMAT, _SAMPLES, _PHOTOMETRIC, _PLANAR, _EXTRA):
            first = content[place:] if values * bytes_each <= size else content[address:]
            (value,) = struct.unpack_from(order + "H", first)
            value = replaced.get(tag, value) if tag in (_BITS, _FORMAT) else _BLACK_IS_ZERO
            struct.pack_into(f"{order}{number}H", changed, entry + 4, 0 if tag == _EXTRA else 1, value)
        elif plane is not None and tag in _PIECES:
            k, n = plane
            start = (place if values * bytes_each <= size else address) + k * (values // n) * bytes_each
            own = content[start : start + values // n * bytes_each]
            struct.pack_into(order + number, changed, entry + 4, values // n)
            own = own.ljust(size, b"\0") if len(own) <= size else struct.pack(order + number, start)
            changed[place : place + size] = own
        elif tag in replaced and kind == _SHORT:
            start = place if values * bytes_each <= size else address
            if start + 2 * values > len(content):
                raise struct.error("a list of values is longer than the file")
            struct.pack_into(f"{order}{values}H", changed, start, *[replaced[tag]] * values)
    return bytes(changed)


def _to_srgb(pixels: np.ndarray, white: float, header: TiffHeader) -> np.ndarray:
    """(H, W, 3) uint8 sRGB over white of some rows."""
    levels = levels_of(pixels, white)
    if header.photometric == _WHITE_IS_ZERO:
        levels = 255 - levels
    alpha = None
    if levels.ndim == 3 and levels.shape[2] == 4:
        levels, alpha = levels[..., :3], levels[..., 3:] / 255
        if header.has_premultiplied_alpha:
            levels = (levels / np.maximum(alpha, 1e-6)).clip(0, 255)
    converted = convert_profile_deep(levels, header.icc_profile) if header.icc_profile else None
    rgb = levels if converted is None else converted
    rgb = rgb[..., None] if rgb.ndim == 2 else rgb
    if alpha is not None:
        rgb = rgb * alpha + 255 * (1 - alpha)
    return np.broadcast_to((rgb + 0.5).astype(np.uint8), (*rgb.shape[:2], 3))


def _lab_to_srgb(pixels: np.ndarray, header: TiffHeader) -> Image.Image:
    """Convert CIELab and ICCLab pixels of 8 or 16 bits."""
    channels = pixels[..., :3].astype(np.float32)
    if header.photometric == _CIELAB:  # a* and b* are signed
        half = 2.0 ** (header.bits - 1)
        channels[..., 1:] = np.where(channels[..., 1:] >= half, channels[..., 1:] - half, channels[..., 1:] + half)
        white = 2.0**header.bits - 1
    else:
        white = 255.0 if header.bits == 8 else 65280.0
    channels[..., 0] *= 255 / white
    channels[..., 1:] /= 2.0 ** (header.bits - 8)
    bands = [Image.fromarray((band + 0.5).clip(0, 255).astype(np.uint8)) for band in np.moveaxis(channels, 2, 0)]
    lab = Image.merge("LAB", bands)
    converted = convert_profile(lab, header.icc_profile) if header.icc_profile else None
    return convert_lab(lab) if converted is None else converted
