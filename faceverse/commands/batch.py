"""From photographs to files, as the command line does it: one photograph, many, or several of one person.

What is written for one photograph appears complete or not at all, and nothing is overwritten that was a photograph.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import FaceVerseError, ImageError, ParameterError
from ..fitting import fit
from ..fitting.face_selection import FaceSelector
from ..formats.export import export
from ..io.images import Photo, read_image, save_image
from ..rendering.render import overview
from ..result import FitResult
from ..weights import load_model

FORMATS = ("glb", "json", "png", "obj", "ply", "stl")
PHOTO_SUFFIXES = tuple(".jpg .jpeg .png .webp .tif .tiff .bmp .gif .heic .heif .avif .jp2".split())
SAMPLE = "sample"
SUMMARY = "summary.csv"
SUMMARY_COLUMNS = ("file", "status", "seconds", "warnings", "error")


@dataclass(frozen=True)
class FitOptions:
    """How to fit, see `faceverse.fit`, and what to write.

    Args:
        model: see `faceverse.load_model`.
        faces: which face, see `faceverse.fit`: one choice for all photographs, or one for each of them.
        detail, seed, focal_px: see `faceverse.fit`.
        formats: of FORMATS; "png" is the overview, the others are what `faceverse.export` writes.
    """

    model: str = "open"
    faces: tuple[FaceSelector, ...] = (0,)
    detail: bool = True
    seed: int = 0
    focal_px: float | None = None
    formats: tuple[str, ...] = ("glb", "json", "png")


class Progress(contextlib.AbstractContextManager):
    """A line on the standard error that is written over and over, on a terminal only, and wiped at the end."""

    def __init__(self):
        self._shown = sys.stderr.isatty()
        self.begin("", 0.0, 1.0)

    def begin(self, label: str, start: float, share: float) -> None:
        """From now on the work called `label` covers `share` of the whole, from `start` on, both in 0..1."""
        self._label, self._start, self._share = label, start, share
        self("", 0.0)

    def __call__(self, stage: str, fraction: float, preview=None) -> None:
        """Show which stage is running and that a fraction 0..1 of the work is done."""
        if self._shown and (self._label or stage):
            done = self._start + self._share * min(max(fraction, 0.0), 1.0)
            bar = "#" * round(24 * done)
            line = " ".join(filter(None, (f"[{bar:.<24}]", self._label, stage)))
            line = line[: shutil.get_terminal_size().columns - 1]  # a wrapped line could not be wiped
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Wipe the line, so that something else can be printed."""
        if self._shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def __exit__(self, *exception) -> None:
        self.clear()


def complain(message: str) -> None:
    """One line on the standard error, whatever the message."""
    print("faceverse:", " ".join(message.split()), file=sys.stderr, flush=True)


# -- what is given ----------------------------------------------------------------------------------------------------
def find_photos(given: Sequence[str], output: Path) -> list[Path | str]:
    """The photographs that are meant: files as they are, instead of a folder its photographs by name.

    Args:
        given: files, folders and the word "sample", which stays a str.
        output: folder for the results.

    Raises:
        FaceVerseError: a folder has no photographs or cannot be read, or a photograph is there twice.
    """
    found: list[Path | str] = []
    for one in given:
        if one == SAMPLE:
            found.append(one)
        elif os.path.isdir(one):
            found += _photos_in(Path(one), output)
        else:
            found.append(Path(one))
    seen = set()
    for one in found:
        place = one if one == SAMPLE else os.path.realpath(one)
        if place in seen:
            raise ParameterError(f"{one} is given twice; give each photograph once")
        seen.add(place)
    return found


def _photos_in(source: Path, output: Path) -> list[Path]:
    """The photographs of a folder by name, not those in folders inside it."""
    if source.resolve() == output.resolve():
        raise ParameterError(f"{output} is the folder of the photographs; choose another one for the results with -o")
    try:
        photos = sorted(path for path in source.iterdir() if path.suffix.lower() in PHOTO_SUFFIXES and path.is_file())
    except OSError as error:
        raise ImageError(f"cannot read the folder {source}: {error.strerror or error}") from error
    photos = [path for path in photos if not path.name.startswith(".")]
    if not photos:
        raise ImageError(f"there are no photographs in {source}; looked for {' '.join(PHOTO_SUFFIXES)}")
    return photos


def distinct_names(sources: Sequence[Path | str]) -> list[str]:
    """A name for the results of each photograph: me.jpg gives me, me.png after it me_png, trip/me.jpg trip_me."""
    names: list[str] = []
    taken: set[str] = set()
    files: set[str] = set()
    for path in map(Path, sources):
        elsewhere = path.name.lower() in files and path.parent.name
        plain = "_".join(filter(None, (path.stem, path.suffix[1:])))
        candidates = [path.stem, *([f"{elsewhere}_{path.stem}"] if elsewhere else []), plain]
        candidates += [f"{plain}_{k}" for k in range(2, len(sources) + 2)]
        names.append(next(candidate for candidate in candidates if candidate.lower() not in taken))
        taken.add(names[-1].lower())
        files.add(path.name.lower())
    return names


def _check_faces(faces: Sequence[FaceSelector], count: int) -> None:
    if len(faces) not in (1, count):
        photographs = "1 photograph" if count == 1 else f"{count} photographs"
        raise ParameterError(f"--face is given {len(faces)} times for {photographs}; give it once, or once for each")


# -- one person -------------------------------------------------------------------------------------------------------
def fit_person(sources: Sequence[Path | str], folder: Path, options: FitOptions) -> None:
    """Fit one photograph of a person, or several together, and print what was written, named after the first one.

    Args:
        sources: from `find_photos`.
        folder: exists and can be written, see `output_folder`.

    Raises:
        FaceVerseError: anything that is wrong with the photographs, the model or the options.
    """
    started = time.perf_counter()
    _check_faces(options.faces, len(sources))
    photos = [_open(source) for source in sources]
    name = photos[0].name
    _refuse_to_replace(sources, folder, [name], options.formats)
    with Progress() as progress:
        result = _fit(photos, options, progress)
        paths = _write(photos[0], result, folder, name, options.formats)
    print(*paths, sep="\n")
    print(f"{name}: {time.perf_counter() - started:.1f} s")
    for warning in result.warnings:
        print(f"{name}: warning: {warning}")


def _open(source: Path | str) -> Photo:
    return sample_photo() if source == SAMPLE else read_image(source)


def sample_photo() -> Photo:
    """The portrait of an astronaut that comes with scikit-image.

    Raises:
        ImageError: scikit-image is not installed.
    """
    try:
        from skimage import data
    except ImportError as error:
        message = "the sample photograph is part of scikit-image, which is not installed; pip install scikit-image"
        raise ImageError(message) from error
    return replace(read_image(data.astronaut()), name=SAMPLE)


def _fit(photos: list[Photo], options: FitOptions, progress: Progress) -> FitResult:
    return fit(
        photos if len(photos) > 1 else photos[0],
        load_model(options.model),
        face=list(options.faces) if len(options.faces) > 1 else options.faces[0],
        detail=options.detail,
        seed=options.seed,
        focal_px=options.focal_px,
        on_progress=progress,
    )


# -- many people ------------------------------------------------------------------------------------------------------
def fit_each(sources: Sequence[Path | str], folder: Path, options: FitOptions) -> int:
    """Fit photographs one by one; what goes wrong with one goes into summary.csv, and the next one follows.

    Args:
        sources: from `find_photos`.
        folder: exists and can be written, see `output_folder`.

    Returns:
        How many of them failed.

    Raises:
        FaceVerseError: there is no model, results would replace a photograph, or the summary cannot be written.
    """
    _check_faces(options.faces, len(sources))
    names = distinct_names(sources)
    _refuse_to_replace(sources, folder, names, options.formats)
    load_model(options.model)  # before the first photograph: without a model none can succeed
    faces = options.faces if len(options.faces) > 1 else options.faces * len(sources)
    each = zip(sources, _labels(sources), names, faces, strict=True)
    rows: list[dict[str, str]] = []
    try:
        with Progress() as progress:
            for index, (source, label, name, face) in enumerate(each):
                progress.begin(f"{index + 1}/{len(sources)} {label}", index / len(sources), 1 / len(sources))
                rows.append(_summary_row(source, label, name, folder, replace(options, faces=(face,)), progress))
    finally:
        _write_summary(rows, folder / SUMMARY)
    failed = sum(row["status"] != "ok" for row in rows)
    print(folder / SUMMARY)
    print(f"{len(rows) - failed} of {len(rows)} photographs fitted")
    return failed


def _labels(sources: Sequence[Path | str]) -> list[str]:
    """What messages and the summary call each photograph: its file's name, with the folder where two have the same."""
    names = [Path(source).name for source in sources]
    return [str(source) if names.count(name) > 1 else name for source, name in zip(sources, names, strict=True)]


def _summary_row(
    source: Path | str, label: str, name: str, folder: Path, options: FitOptions, progress: Progress
) -> dict[str, str]:
    """Fit and write one photograph of many: its line of the summary, by column."""
    started = time.perf_counter()
    row = dict.fromkeys(SUMMARY_COLUMNS, "") | {"file": label, "status": "ok"}
    try:
        photo = _open(source)
        result = _fit([photo], options, progress)
        paths = _write(photo, result, folder, name, options.formats)
        row["warnings"] = "; ".join(result.warnings)
        progress.clear()
        print(*paths, sep="\n", flush=True)
    except FaceVerseError as error:
        row |= {"status": "failed", "error": " ".join(str(error).split())}
        progress.clear()
        complain(f"{label}: {error}")
    except BrokenPipeError:
        raise
    except Exception as error:  # a fault of this library; the work on the other photographs must not be lost with it
        row |= {"status": "failed", "error": " ".join(f"{type(error).__name__}: {error}".split())}
        progress.clear()
        traceback.print_exc()
    row["seconds"] = f"{time.perf_counter() - started:.2f}"
    return row


def _write_summary(rows: list[dict[str, str]], path: Path) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, SUMMARY_COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    try:
        path.write_bytes(text.getvalue().encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise ParameterError(f"cannot write {path}: {error.strerror or error}") from error


# -- files ------------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def output_folder(folder: Path) -> Iterator[Path]:
    """The folder, made where missing and tried before any work; folders made here go again if they stay empty.

    Raises:
        ParameterError: it cannot be made or written.
    """
    made = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            reason = error.strerror or error
            raise ParameterError(f"cannot write into {folder}: {reason}; choose another folder with -o") from error
        yield folder
    finally:
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()


def _refuse_to_replace(
    sources: Sequence[Path | str], folder: Path, names: Sequence[str], formats: Sequence[str]
) -> None:
    """A photograph me.png must survive a fit whose overview would be me.png in the same folder."""
    photographs = [source for source in sources if source != SAMPLE and os.path.exists(source)]
    endings = [f".{suffix}" for suffix in formats] + ["_texture.png"] * ("obj" in formats)
    for target in (folder / f"{name}{ending}" for name in names for ending in endings):
        for source in photographs if target.exists() else ():
            if target.samefile(source):
                raise ParameterError(
                    f"the results would replace the photograph {source}; choose another folder with -o"
                )


def _write(photo: Photo, result: FitResult, folder: Path, name: str, formats: Sequence[str]) -> list[Path]:
    """All files of one photograph: made in a temporary folder, then moved, so that none is ever half-written."""
    try:
        with tempfile.TemporaryDirectory(prefix=".faceverse-", dir=folder) as temporary:
            for suffix in formats:
                path = Path(temporary, f"{name}.{suffix}")
                if suffix == "png":
                    save_image(path, overview(photo.rgb, result))
                else:
                    export(result, path)
            made = sorted(Path(temporary).iterdir())
            occupied = next((folder / path.name for path in made if (folder / path.name).is_dir()), None)
            if occupied:
                raise ParameterError(f"cannot write {occupied}: a folder has this name")
            return [path.replace(folder / path.name) for path in made]
    except OSError as error:
        raise ParameterError(f"cannot write into {folder}: {error.strerror or error}") from error
