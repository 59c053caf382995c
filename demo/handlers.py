"""What the page does with photographs, as plain functions: they are claimed, searched for faces, and fitted."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import faceverse as fv

from . import heads, pictures
from .heads import Head, numbers
from .viewer import file_address

SAMPLES = Path(__file__).parent / "assets" / "samples"
MAX_PHOTOS = 12
MAX_PHOTO_BYTES = 40_000_000
STEPS = {
    "detection": "Looking for the face",
    "landmarks": "Finding the shape of the head",
    "photometric coarse": "Matching skin and light",
    "photometric fine": "Matching the finer features",
    "detail": "Reading the skin",
    "texture": "Taking the colours from the photograph",
}
_RIVAL = 0.4  # of the largest face's width: a smaller one is no reason to ask whose head is wanted
_PREVIEW_PX = 384
_CHOICE_PX = 1280


class Stopped(Exception):  # noqa: N818 (not a mistake of anybody)
    """The visitor has cancelled the fit, or left."""


# Answers to the visitor; any other exception is a fault of the program.
EXPECTED = (fv.FaceVerseError, Stopped)


@dataclass(frozen=True)
class Step:
    """How far a fit is: text for the visitor, fraction of the whole in 0..1, new preview as a data address or None, and
    whether the head is there already and only its detail is to come."""

    text: str
    fraction: float
    preview: str | None = None
    refining: bool = False


@dataclass(frozen=True)
class Choice:
    """The photograph shows several people: the visitor has to click one.

    Args:
        picture: address of the photograph in a smaller size.
        boxes: (x0, y0, x1, y1) of each face in fractions of the picture, largest first.
    """

    picture: str
    boxes: tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True)
class Fitted:
    """A head, and the pixels of its (first) photograph (H, W, 3) uint8, which are not kept. Only the last one is
    `whole`: one before it lacks the detail that is still to come.

    Args:
        face_count: faces in the photograph.
    """

    result: fv.FitResult
    person: int
    photo_rgb: np.ndarray
    face_count: int = 1
    whole: bool = True


@dataclass(frozen=True)
class Job:
    """What is to be fitted.

    Args:
        photos: files in the visitor's folder, of one person.
        face: 0 is the largest; None asks the visitor where there are several.
        asks: ask also where one face is much larger than the others.
        as_donor: the head is for mixing with another one.
        is_sample: a picture to try, of nobody who is here.
    """

    photos: tuple[Path, ...]
    face: int | None = None
    asks: bool = False
    as_donor: bool = False
    is_sample: bool = False

    def forget(self) -> None:
        """Deletes the photographs."""
        for photo in self.photos:
            photo.unlink(missing_ok=True)


# -- photographs ------------------------------------------------------------------------------------------------------
def claim(uploads: Sequence[str | Path], folder: Path, show_s: float | None = 5, donor: bool = False) -> Job:
    """Copies uploads into the visitor's folder, where nobody else finds them; earlier photographs are deleted.

    Args:
        uploads: of one person.
        show_s: the uploads themselves are deleted after this time; until then his browser may load them to show them.
            None keeps them.
        donor: the head is for mixing with another one.

    Raises:
        ImageError: an upload is gone, or there are more than MAX_PHOTOS.
    """
    if len(uploads) > MAX_PHOTOS:
        raise fv.ImageError(f"{len(uploads)} photographs are too many; choose at most {MAX_PHOTOS}")
    place = folder / f"photo-{next(numbers)}"  # an older fit deletes its own photographs only
    for older in folder.glob("photo-*/"):
        shutil.rmtree(older, ignore_errors=True)
    place.mkdir()
    for upload in uploads:
        if os.path.exists(upload) and os.path.getsize(upload) > MAX_PHOTO_BYTES:
            size, name = os.path.getsize(upload) / 1e6, Path(upload).name
            raise fv.ImageError(f"{name} has {size:.0f} MB, more than {MAX_PHOTO_BYTES / 1e6:.0f}; reduce it")
    photos = []
    for position, upload in enumerate(map(Path, uploads)):
        part = place / str(position)
        part.mkdir()
        try:
            photos.append(Path(shutil.copyfile(upload, part / upload.name)))  # messages tell the name that he knows
        except OSError as error:
            raise fv.ImageError("the upload was deleted in the meantime; choose the photograph again") from error
        if show_s is not None:
            delete_later(upload, show_s)
    return Job(tuple(photos), as_donor=donor)


def delete_later(path: Path, seconds: float) -> None:
    """Deletes an upload after a while; later, where the same content has been uploaded again: Gradio names it by that.
    """

    def delete() -> None:
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime < seconds:
                delete_later(path, seconds)
            else:
                path.unlink()

    timer = threading.Timer(seconds, delete)
    timer.daemon = True
    timer.start()


def samples(folder: Path) -> list[Path]:
    """Pictures to try: astronaut Eileen Collins (NASA, public domain), and renderings of people who do not exist."""
    from skimage.data import astronaut

    path = folder / "astronaut.jpg"
    if not path.exists():
        Image.fromarray(astronaut()).save(path, quality=95)
    return [path, *sorted(SAMPLES.glob("*.jpg"))]


# -- fit --------------------------------------------------------------------------------------------------------------
def fit(
    job: Job,
    is_wanted: Callable[[], bool] = lambda: True,
    detail=True,
    after_base: Callable[[], None] = lambda: None,
) -> Iterator[Step | Choice | Fitted]:
    """Fits a head to a photograph, or to several.

    Args:
        job: its photographs are deleted at the end unless there is a face to choose in them.
        is_wanted: asked again and again; False stops the fit.
        detail: as in `faceverse.fit`.
        after_base: called between the base head and its detail; may wait there.

    Yields:
        Step while it runs, with a Fitted among them once the base head is there, if detail follows; at the end the
        whole Fitted of the same person. A Choice instead, where the visitor has to choose a face first.
    Raises:
        FaceVerseError: what went wrong, in words.
        Stopped: `is_wanted` said no.
    """
    events: queue.SimpleQueue = queue.SimpleQueue()
    stopped = threading.Event()
    person, refining = next(numbers), False

    def on_progress(stage: str, fraction: float, preview: np.ndarray | None) -> None:
        if stopped.is_set() or not is_wanted():
            raise Stopped
        events.put(Step(STEPS.get(stage, stage.capitalize()), fraction, _data_address(preview), refining))

    def work() -> None:
        try:
            images = [fv.read_image(photo) for photo in job.photos]
            on_progress("detection", 0.0, images[0].rgb)
            found = fv.detect(images[0])
            if job.face is None and len(images) == 1 and _is_a_question(found, job.asks):
                events.put(_choice(images[0], found, job.photos[0].parent))
                return

            def tell(result: fv.FitResult, whole: bool) -> None:
                events.put(Fitted(result, person, images[0].rgb, len(found), whole))

            def on_base(result: fv.FitResult) -> None:
                nonlocal refining
                refining = True
                tell(result, whole=False)
                after_base()

            source = images[0] if len(images) == 1 else images
            options = {"on_progress": on_progress, "on_base": on_base}
            tell(fv.fit(source, face=job.face or 0, detail=detail, **options), whole=True)
        except Exception as error:
            events.put(error)

    yield Step("Reading the photograph", 0.0)
    threading.Thread(target=work, daemon=True).start()
    keep = whole = False
    try:
        while not whole:
            event = events.get()
            if isinstance(event, Exception):
                raise event
            if isinstance(event, Fitted):
                whole, keep = event.whole, event.face_count > 1 and len(job.photos) == 1
            elif isinstance(event, Choice):
                whole = keep = True
            yield event
    finally:
        stopped.set()
        if not keep:
            job.forget()


def _is_a_question(found: list[fv.DetectedFace], asks: bool) -> bool:
    """Whether it is open which face is meant."""
    if len(found) < 2 or asks:
        return len(found) > 1
    largest, second = (face.box_px[2] - face.box_px[0] for face in found[:2])
    return second > _RIVAL * largest


def _choice(photo: fv.Photo, found: list[fv.DetectedFace], folder: Path) -> Choice:
    path = folder / f"faces-{next(numbers)}.jpg"
    image = Image.fromarray(photo.rgb)
    image.thumbnail((_CHOICE_PX, _CHOICE_PX))
    image.save(path, quality=88)
    height, width = (side / photo.scale for side in photo.rgb.shape[:2])
    boxes = tuple(tuple(round(float(v), 4) for v in face.box_px / (width, height, width, height)) for face in found)
    return Choice(file_address(path), boxes)


def rehearse(folder: Path, model: Path, detail=True) -> None:
    """A fit of the sample photograph that nobody sees."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name)
        *_, fitted = fit(claim(samples(folder)[:1], place, show_s=None), detail=detail)
        head = heads.with_wrinkles(Head.of(fitted.result, fitted.person), place)
        heads.view(head, place, model)
        pictures.of_fit(fitted.result, fitted.photo_rgb, place)


def explain(error: Exception) -> str:
    """One sentence for the visitor."""
    if isinstance(error, fv.FaceVerseError):
        text = str(error).strip()
        start = text[:1].upper() if text.split(" ")[0].isalpha() else text[:1]  # not the name of a file
        return start + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
    if isinstance(error, Stopped):
        return "Cancelled."
    return "Something went wrong on the server. Try again, or try another photograph."


def _data_address(preview: np.ndarray | None) -> str | None:
    if preview is None:
        return None
    image = Image.fromarray(preview)
    image.thumbnail((_PREVIEW_PX, _PREVIEW_PX))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
