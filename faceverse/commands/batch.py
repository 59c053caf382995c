"""The command `python -m faceverse fit`: heads from one photograph, from each of many, or from several of one person.

The files of one photograph are written atomically, and no photograph is ever overwritten.
"""

from __future__ import annotations

import argparse
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
from ..fitting.face_selection import FaceSelector, check_face_selector
from ..formats.export import EXPORT_FORMATS, companions_of, head_files
from ..io.files import files_in, write_all, write_atomically
from ..io.images import Photo, encoded_image, read_image
from ..messages import Message, reason_of
from ..rendering.render import overview
from ..result import FitResult
from ..weights import load_model
from .arguments import add_folder, add_formats, add_model
from .names import distinct_names, longest_name

OVERVIEW = "png"  # a format of this command beside those of `EXPORT_FORMATS`: the picture of `overview`
DEFAULT_FORMATS = ("glb", "json", OVERVIEW)
PHOTO_SUFFIXES = tuple(".jpg .jpeg .png .webp .tif .tiff .bmp .gif .heic .heif .avif .jp2".split())
SAMPLE = "sample"
SUMMARY = "summary.csv"
SUMMARY_COLUMNS = ("file", "status", "seconds", "warnings", "error")


@dataclass(frozen=True)
class FitOptions:
    """How to fit, see `faceverse.fit`, and what to write.

    Args:
        model: see `faceverse.load_model`.
        faces: which face, see `faceverse.fit`: one selector for all photographs, or one for each of them.
        detail, seed, focal_px: see `faceverse.fit`.
        formats: of `EXPORT_FORMATS`, or "png" for the overview.
    """

    model: str = "open"
    faces: tuple[FaceSelector, ...] = (0,)
    detail: bool = True
    seed: int = 0
    focal_px: float | None = None
    formats: tuple[str, ...] = DEFAULT_FORMATS


class Progress(contextlib.AbstractContextManager):
    """A progress bar on the standard error, on a terminal only; wiped at the end."""

    def __init__(self):
        self._shown = sys.stderr.isatty()
        self.begin("", 0.0, 1.0)

    def begin(self, label: str, start: float, share: float) -> None:
        """Start a part of the work: `label` covers `share` of the whole, from `start` on, both in 0..1."""
        self._label, self._start, self._share = label, start, share
        self("", 0.0)

    def __call__(self, stage: str, fraction: float, preview=None) -> None:
        """Show the running stage and the fraction 0..1 of the work that is done."""
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


# -- input photographs -----------------------------------------------------------------------------------------------
def find_photos(given: Sequence[str], output: Path) -> list[Path | str]:
    """Expand folders to their photographs, sorted by name.

    Args:
        given: files, folders and the word "sample", which stays a str.
        output: folder for the results.

    Raises:
        FaceVerseError: a folder has no photographs or cannot be read, or a photograph is given twice.
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
    for photo in found:
        place = photo if photo == SAMPLE else os.path.realpath(photo)
        if place in seen:
            raise ParameterError("batch.photo_twice", path=photo)
        seen.add(place)
    return found


def _photos_in(source: Path, output: Path) -> list[Path]:
    """The photographs in a folder, without those in folders inside it, sorted by name."""
    if source.resolve() == output.resolve():
        raise ParameterError("batch.output_is_source", folder=output)
    photos = [path for path in files_in(source, ImageError) if path.suffix.lower() in PHOTO_SUFFIXES]
    photos = [path for path in photos if not path.name.startswith(".")]
    if not photos:
        raise ImageError("batch.no_photos", folder=source, suffixes=" ".join(PHOTO_SUFFIXES))
    return photos


def _check_faces(faces: Sequence[FaceSelector], count: int) -> None:
    if len(faces) not in (1, count):
        photographs = Message("count.photographs", count=count)
        raise ParameterError("batch.face_count", count=len(faces), photographs=photographs)


# -- one person -------------------------------------------------------------------------------------------------------
def fit_person(sources: Sequence[Path | str], folder: Path, options: FitOptions) -> None:
    """Fit one photograph of a person, or several jointly; print the paths of the files, named after the first one.

    Args:
        sources: from `find_photos`.
        folder: exists and can be written, see `output_folder`.

    Raises:
        FaceVerseError: a photograph, the model or an option is unusable.
    """
    started = time.perf_counter()
    _check_faces(options.faces, len(sources))
    photos = [_open(source) for source in sources]
    (name,) = _names(sources[:1], folder, options.formats)
    _refuse_to_replace(sources, folder, [name], options.formats)
    with Progress() as progress:
        result = _fit(photos, options, progress)
        paths = _write(photos[0], result, folder, name, options.formats)
    print(*paths, sep="\n")
    print(f"{name}: {time.perf_counter() - started:.1f} s")
    for warning in (*result.warnings, *_shortening(sources[0], name)):
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
        raise ImageError("image.no_sample") from error
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
    """Fit photographs one by one; a failure is recorded in summary.csv and the next photograph follows.

    Args:
        sources: from `find_photos`.
        folder: exists and can be written, see `output_folder`.

    Returns:
        Number of photographs that failed.

    Raises:
        FaceVerseError: there is no model, results would replace a photograph, or the summary cannot be written.
    """
    _check_faces(options.faces, len(sources))
    names = _names(sources, folder, options.formats)
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
    except BaseException:
        with contextlib.suppress(ParameterError):  # the rows are printed, and what ended the run counts
            _write_summary(rows, folder / SUMMARY)
        raise
    _write_summary(rows, folder / SUMMARY)
    failed = sum(row["status"] != "ok" for row in rows)
    print(folder / SUMMARY)
    print(f"{len(rows) - failed} of {len(rows)} photographs fitted")
    return failed


def _labels(sources: Sequence[Path | str]) -> list[str]:
    """Labels in messages and the summary: the file's name, with its folder where two files have the same name."""
    names = [Path(source).name for source in sources]
    return [str(source) if names.count(name) > 1 else name for source, name in zip(sources, names, strict=True)]


def _summary_row(
    source: Path | str, label: str, name: str, folder: Path, options: FitOptions, progress: Progress
) -> dict[str, str]:
    """Fit one photograph of many and write its files; returns its row of the summary by column."""
    started = time.perf_counter()
    row = dict.fromkeys(SUMMARY_COLUMNS, "") | {"file": label, "status": "ok"}
    paths: list[Path] = []
    try:
        photo = _open(source)
        result = _fit([photo], options, progress)
        paths = _write(photo, result, folder, name, options.formats)
        row["warnings"] = "; ".join((*result.warnings, *_shortening(source, name)))
    except FaceVerseError as error:
        row |= {"status": "failed", "error": " ".join(str(error).split())}
        progress.clear()
        complain(f"{label}: {error}")
    except BrokenPipeError:
        raise
    except Exception as error:  # a bug; the results of the other photographs must not be lost with it
        row |= {"status": "failed", "error": " ".join(f"{type(error).__name__}: {error}".split())}
        progress.clear()
        traceback.print_exc()
    progress.clear()
    for path in paths:
        print(path, flush=True)
    row["seconds"] = f"{time.perf_counter() - started:.2f}"
    return row


def _write_summary(rows: list[dict[str, str]], path: Path) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, SUMMARY_COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    try:
        write_atomically(path, text.getvalue().encode("utf-8", "backslashreplace"), ParameterError)
    except ParameterError:
        print(text.getvalue(), end="")  # the rows are not lost, and an older file is as it was
        raise


# -- files ------------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def output_folder(folder: Path) -> Iterator[Path]:
    """Create a folder and test that it can be written; created folders that stay empty are removed at the end.

    Raises:
        ParameterError: the folder cannot be created or written.
    """
    made = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise ParameterError("batch.output_unusable", folder=folder, reason=reason_of(error)) from error
        yield folder
    finally:
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()


def _endings(formats: Sequence[str]) -> list[str]:
    """What the files of a head add to its name."""
    companions = [ending for suffix in formats if suffix != OVERVIEW for ending in EXPORT_FORMATS[suffix].companions]
    return [*(f".{suffix}" for suffix in formats), *companions]


def _names(sources: Sequence[Path | str], folder: Path, formats: Sequence[str]) -> list[str]:
    endings = _endings(formats)
    return distinct_names(sources, endings, longest_name(folder, endings))


def _shortening(source: Path | str, name: str) -> list[Message]:
    """A warning where the results have a shorter name than the photograph."""
    return [] if Path(source).stem in name else [Message("batch.name_shortened", name=name)]


def _refuse_to_replace(
    sources: Sequence[Path | str], folder: Path, names: Sequence[str], formats: Sequence[str]
) -> None:
    """Refuse a fit of me.png whose overview would be me.png in the same folder."""
    photographs = [source for source in sources if source != SAMPLE and os.path.exists(source)]
    for main in (folder / f"{name}.{suffix}" for name in names for suffix in formats):
        companions = [] if main.suffix == f".{OVERVIEW}" else companions_of(main)
        for target in filter(os.path.exists, (main, *companions)):
            for source in photographs:
                if os.path.samefile(target, source):
                    raise ParameterError("batch.replaces_photo", path=source)


def _write(photo: Photo, result: FitResult, folder: Path, name: str, formats: Sequence[str]) -> list[Path]:
    """Write all files of one photograph, or none of them."""
    files: dict[Path, bytes] = {}
    for suffix in formats:
        path = folder / f"{name}.{suffix}"
        if suffix == OVERVIEW:
            files[path] = encoded_image(path, overview(photo.rgb, result))
        else:
            files |= head_files(result, path)
    write_all(files, ParameterError)
    return sorted(files)


# -- command ----------------------------------------------------------------------------------------------------------
def run_fit(options: argparse.Namespace) -> int:
    faces = tuple(options.face or [0])
    chosen = FitOptions(options.model, faces, options.detail, options.seed, options.focal_px, formats=options.formats)
    with output_folder(options.output) as folder:
        photos = find_photos(options.inputs, folder)
        one_file = options.inputs == [SAMPLE] or len(options.inputs) == 1 and not Path(options.inputs[0]).is_dir()
        if options.together or one_file:
            fit_person(photos, folder, chosen)
            return 0
        return 1 if fit_each(photos, folder, chosen) else 0


def add_fit(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=run_fit)
    text = f"photographs, folders of photographs, or the word {SAMPLE}"
    parser.add_argument("inputs", nargs="+", metavar="input", help=text)
    add_folder(parser)
    text = "all photographs show one person: one head, named after the first photograph"
    parser.add_argument("--together", action="store_true", help=text)
    text = "which face: 0 or largest (default), 1, 2 ..., or a point in pixels; once, or once for each photograph"
    parser.add_argument("--face", action="append", type=_face, metavar="N|X,Y", help=text)
    parser.add_argument("--no-detail", dest="detail", action="store_false", help="base model only, no wrinkles")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="same seed, same result (default 0)")
    parser.add_argument("--focal-px", type=float, metavar="F", help="focal length in pixels of the photograph")
    add_formats(parser, (*EXPORT_FORMATS, OVERVIEW), ",".join(DEFAULT_FORMATS), f"{OVERVIEW} is the overview")
    add_model(parser)


def _face(text: str) -> FaceSelector:
    if text == "largest":
        return text
    try:
        if "," not in text:
            face: FaceSelector = int(text)
        else:
            x, y = (float(part) for part in text.split(","))
            face = x, y
        check_face_selector(face)
        return face
    except (ValueError, ParameterError):
        message = f"expected 0 (the largest), 1, 2 ..., largest, or a place X,Y in pixels, got {text!r}"
    raise argparse.ArgumentTypeError(message)
