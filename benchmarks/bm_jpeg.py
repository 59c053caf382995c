"""Measure the check of JPEG data: damage that shows and is found, false alarms, and time beside that of decoding.

    python benchmarks/bm_jpeg.py --photos DIR

Without --photos it uses the portrait that comes with scikit-image. Each photograph is encoded anew, and its data are
damaged at seeded places: one bit, 16 zeros or 16 random bytes. Damage counts if Pillow still decodes the file and more
than 2 % of its pixels change visibly.
"""

import argparse
import io
import time
from pathlib import Path

import numpy as np
from common import table
from PIL import Image

import faceverse as fv
from faceverse.io.images import read_image
from faceverse.io.jpeg import check_jpeg

ENCODINGS = {
    "4:4:4": {"subsampling": 0, "quality": 90},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "progressive": {"progressive": True, "quality": 90},
    "restart marker a row": {"restart_marker_rows": 1},
}
VISIBLE_LEVELS, VISIBLE_SHARE = 12, 0.02
LONG_SIDE_PX, LARGE_PX = 640, (3000, 4000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, help="folder of photographs")
    parser.add_argument("--damages", type=int, default=24, metavar="N", help="to each photograph and encoding")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    photos = list(_photos(options.photos))
    print(f"{len(photos)} photographs, {options.damages} damages each, seed {options.seed}")
    rows = []
    for name, encoding in ENCODINGS.items():
        contents = [_encoded(photo, encoding) for photo in photos]
        alarms = sum(not _is_clean(content) for content in contents)
        rng = np.random.default_rng(options.seed)
        results = np.array([_damage(content, options.damages, rng) for content in contents]).sum(axis=0)
        share = f"{results[1] / results[0]:.0%}" if results[0] else "-"
        rows.append([name, str(results[0]), str(results[1]), share, str(alarms)])
    print(table(["encoding", "shown", "found", "share", "false alarms"], rows))
    large = photos[0].resize(LARGE_PX[::-1], Image.Resampling.BICUBIC)
    for name in ("4:2:0", "progressive"):
        content = _encoded(large, ENCODINGS[name])
        check_s = _least_time(lambda content=content: check_jpeg(content))
        decode_s = _least_time(lambda content=content: _pixels(content))
        print(f"12 megapixels, {name}: {check_s:.2f} s, {check_s / decode_s:.2f} of the time of decoding")


def _photos(folder: Path | None):
    if folder is None:
        from skimage.data import astronaut

        yield Image.fromarray(astronaut())
        return
    for path in sorted(folder.iterdir()):
        try:
            photo = Image.fromarray(read_image(path).rgb)
        except fv.ImageError:
            continue
        photo.thumbnail((LONG_SIDE_PX, LONG_SIDE_PX))
        yield photo


def _damage(content: bytes, count: int, rng: np.random.Generator) -> tuple[int, int]:
    """Numbers of damages that show, and of those that are found."""
    good, start = _pixels(content), content.index(b"\xff\xda") + 20
    shown = found = 0
    for kind in range(count):
        at = int(rng.integers(start, len(content) - 100))
        damaged = bytearray(content)
        if kind % 3 == 0:
            damaged[at] ^= 1 << int(rng.integers(8))
        else:
            damaged[at : at + 16] = bytes(16) if kind % 3 == 1 else rng.integers(0, 256, 16, dtype=np.uint8).tobytes()
        try:
            changed = np.abs(_pixels(bytes(damaged)) - good).max(axis=2) > VISIBLE_LEVELS
        except (OSError, SyntaxError):  # the decoder refuses the file
            continue
        if changed.mean() > VISIBLE_SHARE:
            shown += 1
            found += not _is_clean(bytes(damaged))
    return shown, found


def _is_clean(content: bytes) -> bool:
    report = check_jpeg(content)
    return report.complete and not report.damaged and report.present == 1


def _encoded(photo: Image.Image, encoding: dict) -> bytes:
    content = io.BytesIO()
    photo.save(content, "JPEG", **encoding)
    return content.getvalue()


def _pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(np.int16)


def _least_time(call, repeats: int = 3) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    main()
