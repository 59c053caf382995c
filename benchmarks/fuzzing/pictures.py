"""Seed files of photographs and videos: a small picture without a person, in every format that is read."""

from __future__ import annotations

import io
import subprocess
import tempfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

Seed = dict[str, bytes]
"""Files by name; the first one is the one that is read."""

HEIGHT, WIDTH, FRAMES = 40, 48, 6


def picture(seed: int = 0) -> np.ndarray:
    """(40, 48, 3) uint8: gradients with a bright square and some noise."""
    row, column = np.indices((HEIGHT, WIDTH))
    noise = np.random.default_rng(seed).integers(0, 12, (HEIGHT, WIDTH, 3))
    colours = np.stack([5 * column, 6 * row, 3 * (row + column) % 255], axis=-1)
    colours[8:20, 10 + seed : 24 + seed] = (240, 200, 60)
    return np.clip(colours + noise, 0, 255).astype(np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str, **options) -> bytes:
    """The file that Pillow writes."""
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, kind, **options)
    return stream.getvalue()


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    exif.get_ifd(0x8769).update({0xA405: 28, 0xA002: WIDTH, 0xA003: HEIGHT, 0x829A: (1, 60), 0xA001: 1})
    exif.get_ifd(0x8825).update({1: "N", 2: (50.0, 4.0, 3.0)})
    return exif


def _profile() -> bytes:
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = bytes(12)  # the time at which it was made
    return bytes(profile).replace(b"sRGB", b"wide")  # a profile by the name of sRGB would not be applied


def _alpha() -> Image.Image:
    alpha = (np.indices((HEIGHT, WIDTH))[1] * 5).astype(np.uint8)
    return Image.fromarray(np.dstack([picture(), alpha]))


def photographs(kind: str) -> list[Seed]:
    """Seeds of one of the kinds of `PHOTOGRAPHS`."""
    suffix, contents = PHOTOGRAPHS[kind]
    return [{f"photo{suffix}": content} for content in contents()]


def _jpeg() -> list[bytes]:
    image, xmp = Image.fromarray(picture()), b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
    tags = {"exif": _exif(), "icc_profile": _profile(), "xmp": xmp, "comment": b"a comment"}
    frames = [Image.fromarray(picture(k)) for k in range(2)]
    return [
        encoded(image, "JPEG", quality=80, **tags),
        encoded(image, "JPEG", quality=60, progressive=True),
        encoded(image, "JPEG", quality=90, subsampling=0, restart_marker_blocks=4),
        encoded(image.convert("L"), "JPEG", exif=_exif()),
        encoded(image.convert("CMYK"), "JPEG"),
        encoded(frames[0], "MPO", save_all=True, append_images=frames[1:]),
    ]


def _png() -> list[bytes]:
    image, text = Image.fromarray(picture()), PngInfo()
    text.add_text("Comment", "a text")
    text.add_itxt("Title", "ein Text", zip=True)
    deep = Image.fromarray(np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 30)
    return [
        encoded(image, "PNG", exif=_exif(), icc_profile=_profile(), pnginfo=text),
        encoded(_alpha(), "PNG"),
        encoded(deep, "PNG"),
        encoded(image.quantize(16), "PNG", transparency=3),
        encoded(image.convert("1"), "PNG"),
        encoded(image.convert("L"), "PNG", transparency=7),
        encoded(image, "PNG", save_all=True, append_images=[Image.fromarray(picture(1))]),
    ]


def _webp() -> list[bytes]:
    image, frames = Image.fromarray(picture()), [Image.fromarray(picture(k)) for k in (1, 2)]
    return [
        encoded(image, "WEBP", quality=70, exif=_exif(), icc_profile=_profile()),
        encoded(_alpha(), "WEBP", lossless=True),
        encoded(image, "WEBP", save_all=True, append_images=frames),
    ]


def _tiff() -> list[bytes]:
    image = Image.fromarray(picture())
    deep = Image.fromarray(np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 30)
    real = Image.fromarray(np.linspace(0, 1, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH))
    made = [
        encoded(image, "TIFF", compression=name)
        for name in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    ]
    made += [encoded(image, "TIFF", icc_profile=_profile(), exif=_exif(), resolution=300)]
    made += [encoded(one, "TIFF") for one in (deep, real, image.convert("CMYK"), image.quantize(16), _alpha())]
    for pixels in (picture().astype(np.uint16) * 257, np.float32(picture() / 255), picture().astype(np.uint32)):
        made.append(cv2.imencode(".tif", pixels)[1].tobytes())
    return [*made, encoded(image.convert("1"), "TIFF", compression="group4")]


def _gif() -> list[bytes]:
    image, frames = Image.fromarray(picture()).quantize(16), [Image.fromarray(picture(k)) for k in (1, 2)]
    return [
        encoded(image, "GIF"),
        encoded(image, "GIF", transparency=2, interlace=1),
        encoded(frames[0], "GIF", save_all=True, append_images=frames),
    ]


def _bmp() -> list[bytes]:
    image = Image.fromarray(picture())
    return [encoded(one, "BMP") for one in (image, image.quantize(16), image.convert("1"), _alpha())]


def _ppm() -> list[bytes]:
    image, text = Image.fromarray(picture()), " ".join(map(str, picture().reshape(-1)))
    plain = f"P3\n# a comment\n{WIDTH} {HEIGHT}\n255\n{text}\n".encode()
    real = np.linspace(0, 1, HEIGHT * WIDTH, dtype="<f4").tobytes()
    return [
        encoded(image, "PPM"), encoded(image.convert("L"), "PPM"), encoded(image.convert("1"), "PPM"), plain,
        f"Pf\n{WIDTH} {HEIGHT}\n-1.0\n".encode() + real,
    ]  # fmt: skip


def _ico() -> list[bytes]:
    large = Image.fromarray(picture()).resize((64, 64))
    return [encoded(large, "ICO"), encoded(large, "ICO", bitmap_format="bmp")]


def _tga() -> list[bytes]:
    image = Image.fromarray(picture())
    return [encoded(image, "TGA"), encoded(image, "TGA", compression="tga_rle"), encoded(_alpha(), "TGA"),
            encoded(image.quantize(16), "TGA")]  # fmt: skip


def _jpeg_2000() -> list[bytes]:
    image = Image.fromarray(picture())
    return [
        encoded(image, "JPEG2000"),
        encoded(image, "JPEG2000", no_jp2=True),
        encoded(_alpha(), "JPEG2000", irreversible=True),
    ]


def _avif() -> list[bytes]:
    image = Image.fromarray(picture())
    return [
        encoded(image, "AVIF", quality=50, exif=_exif()),
        encoded(_alpha(), "AVIF", quality=50, icc_profile=_profile()),
    ]


def _heif() -> list[bytes]:
    import pillow_heif

    pillow_heif.register_heif_opener()
    image = Image.fromarray(picture()).resize((64, 64))
    return [
        encoded(image, "HEIF", quality=50, exif=_exif().tobytes()),
        encoded(image.convert("RGBA"), "HEIF", quality=50),
    ]


PHOTOGRAPHS = {
    "jpeg": (".jpg", _jpeg),
    "png": (".png", _png),
    "webp": (".webp", _webp),
    "tiff": (".tif", _tiff),
    "gif": (".gif", _gif),
    "bmp": (".bmp", _bmp),
    "ppm": (".ppm", _ppm),
    "ico": (".ico", _ico),
    "tga": (".tga", _tga),
    "jpeg2000": (".jp2", _jpeg_2000),
    "avif": (".avif", _avif),
    "heif": (".heic", _heif),
}


# -- videos -----------------------------------------------------------------------------------------------------------
_X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-threads", "1")
_ENCODERS = {
    "mp4": (("clip.mp4", *_X264), ("clip.mp4", *_X264, "-movflags", "+faststart+frag_keyframe"),
            ("clip.mp4", "-c:v", "mpeg4", "-threads", "1")),
    "mov": (("clip.mov", *_X264), ("clip.mov", "-c:v", "mjpeg", "-threads", "1"), ("clip.mov", "-c:v", "png")),
    "webm": (("clip.webm", "-c:v", "libvpx", "-threads", "1"), ("clip.mkv", *_X264)),
    "avi": (("clip.avi", "-c:v", "mjpeg", "-threads", "1"), ("clip.avi", "-c:v", "rawvideo", "-pix_fmt", "bgr24")),
    "gif-video": (("clip.gif",),),
}  # fmt: skip


def videos(kind: str) -> list[Seed]:
    """Seeds of one of the kinds of `VIDEOS`: six frames, ten a second."""
    made = []
    for name, *options in _ENCODERS[kind]:
        with tempfile.TemporaryDirectory() as folder:
            made.append({name: _video(Path(folder) / name, options)})
    return made


def _video(path: Path, options: list[str]) -> bytes:
    import imageio_ffmpeg

    frames = b"".join(picture(k).tobytes() for k in range(FRAMES))
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", "10", "-i", "-"]
    exact = ["-fflags", "+bitexact", "-flags", "+bitexact", "-map_metadata", "-1"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *source, *options, *exact, "-y", str(path)]
    subprocess.run(command, input=frames, check=True, timeout=60)
    return path.read_bytes()


VIDEOS = tuple(_ENCODERS)


def folder_of_pictures() -> list[Seed]:
    """A folder whose pictures are the frames of a video."""
    return [{f"frame_{k}.png": encoded(picture(k), "PNG") for k in range(3)}]
