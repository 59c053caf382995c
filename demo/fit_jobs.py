"""Fit jobs, as plain functions without Gradio: take over uploads, detect faces, fit a head."""

from __future__ import annotations

import base64
import contextlib
import errno
import io
import logging
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
from .heads import EditableHead, serial_numbers
from .view_files import file_url
from .words import sentence

SAMPLES = Path(__file__).parent / "assets" / "samples"
MAX_PHOTOS = 12
MAX_PHOTO_BYTES = 40_000_000
STEPS = {name: f"step.{stage.key}" for name, stage in fv.FIT_STAGES.items()}  # messages by stage of a fit
_SIMILAR_WIDTH = 0.4  # relative to the widest face; the visitor chooses where a second face is wider than this
_PREVIEW_PX = 384
_CHOICE_PX = 1280
_DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
_log = logging.getLogger(__name__)


class Stopped(Exception):  # noqa: N818 (no error)
    """The visitor cancelled the job or closed the page."""


# Exceptions whose message is meant for the visitor; any other one is a defect of the program.
EXPECTED = (fv.FaceVerseError, Stopped)


@dataclass(frozen=True)
class Progress:
    """Progress of a job.

    Args:
        text: current step, for the visitor; a message, which can be translated.
        fraction: completed part of the job, 0..1.
        preview: new preview as a data URL, or None.
        refining: the base head is in the 3D view already, and only its detail is missing.
    """

    text: str
    fraction: float
    preview: str | None = None
    refining: bool = False


@dataclass(frozen=True)
class FaceChoice:
    """The photograph shows several faces, and the visitor has to choose one.

    Args:
        picture: URL of the downsized photograph.
        boxes: (x0, y0, x1, y1) of each face as fractions of the picture's size, widest first.
    """

    picture: str
    boxes: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class FittedHead:
    """Result of a fit.

    Args:
        result: the head.
        person: serial number of the job, see `heads.EditableHead`.
        photo_rgb: (H, W, 3) uint8, pixels of the first photograph; the session does not keep them.
        face_count: number of faces in that photograph.
        is_final: False for the base head, whose detail follows in a second event.
    """

    result: fv.FitResult
    person: int
    photo_rgb: np.ndarray
    face_count: int = 1
    is_final: bool = True


@dataclass(frozen=True)
class FitJob:
    """Photographs to fit a head to.

    Args:
        photos: files of one person in the session's folder.
        face: index of the face, 0 for the largest; None lets the visitor choose where there are several.
        always_ask: let the visitor choose even where one face is much wider than the others.
        is_donor: the head is to be blended into the one in the 3D view.
        is_sample: a sample photograph, which does not show the visitor.
    """

    photos: tuple[Path, ...]
    face: int | None = None
    always_ask: bool = False
    is_donor: bool = False
    is_sample: bool = False

    def delete_photos(self) -> None:
        """Delete the photographs."""
        for photo in self.photos:
            photo.unlink(missing_ok=True)


# -- photographs ------------------------------------------------------------------------------------------------------
def claim(uploads: Sequence[str | Path], folder: Path, show_s: float | None = 5, donor: bool = False) -> FitJob:
    """Copy uploads into the session's folder, which no other visitor can guess; delete earlier photographs there.

    Args:
        uploads: photographs of one person.
        folder: of the session.
        show_s: delay in seconds after which the uploads themselves are deleted; until then the browser may load them to
            show them. None keeps them.
        donor: see `FitJob.is_donor`.

    Raises:
        ImageError: an upload was deleted or is too large, or there are more than MAX_PHOTOS.
    """
    if len(uploads) > MAX_PHOTOS:
        raise fv.ImageError("upload.too_many_photos", photos=len(uploads), most=MAX_PHOTOS)
    target = folder / f"photo-{next(serial_numbers)}"  # a fit that still runs deletes its own photographs only
    for older in folder.glob("photo-*/"):
        shutil.rmtree(older, ignore_errors=True)
    for upload in uploads:
        if os.path.exists(upload) and os.path.getsize(upload) > MAX_PHOTO_BYTES:
            size, name = os.path.getsize(upload) / 1e6, Path(upload).name
            raise fv.ImageError("upload.large_photo", name=name, megabytes=size, most=MAX_PHOTO_BYTES / 1e6)
    photos = []
    try:
        for position, upload in enumerate(map(Path, uploads)):
            part = target / str(position)
            part.mkdir(parents=True)
            # Messages name the file as its owner knows it.
            photos.append(Path(shutil.copyfile(upload, part / upload.name)))
            if show_s is not None:
                delete_later(upload, show_s)
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)
        raise fv.ImageError("upload.photo_deleted") from error
    return FitJob(tuple(photos), is_donor=donor)


def delete_later(path: Path, seconds: float) -> None:
    """Delete an upload after a delay, which starts again when the same content is uploaded again.

    Gradio names uploads by their content, so two uploads of the same content are one file.
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
    """Sample photographs: astronaut Eileen Collins (NASA, public domain), and renderings of heads of the model."""
    from skimage.data import astronaut

    path = folder / "astronaut.jpg"
    if not path.exists():
        Image.fromarray(astronaut()).save(path, quality=95)
    return [path, *sorted(SAMPLES.glob("*.jpg"))]


# -- fit --------------------------------------------------------------------------------------------------------------
def fit(
    job: FitJob,
    is_active: Callable[[], bool] = lambda: True,
    detail=True,
    after_base: Callable[[], None] = lambda: None,
) -> Iterator[Progress | FaceChoice | FittedHead]:
    """Fit a head to one photograph, or to several of the same person.

    Args:
        job: its photographs are deleted at the end, unless another face in them may be chosen later.
        is_active: polled with every progress report; False stops the fit.
        detail: as in `faceverse.fit`.
        after_base: called between the base head and its detail; may block.

    Yields:
        Progress; a FittedHead with the base head, if detail follows; the final FittedHead. Where the visitor has to
        choose a face first, a FaceChoice instead of heads.

    Raises:
        FaceVerseError: a fit is impossible; the message is for the visitor.
        Stopped: `is_active` returned False.
    """
    events: queue.SimpleQueue = queue.SimpleQueue()
    stopped = threading.Event()
    person, refining = next(serial_numbers), False

    def on_progress(stage: str, fraction: float, preview: np.ndarray | None) -> None:
        if stopped.is_set() or not is_active():
            raise Stopped
        events.put(Progress(fv.Message(STEPS.get(stage, stage)), fraction, _data_url(preview), refining))

    def work() -> None:
        try:
            images = [fv.read_image(photo) for photo in job.photos]
            on_progress("detection", 0.0, images[0].rgb)
            found = fv.detect(images[0])
            if job.face is None and len(images) == 1 and needs_face_choice(found, job.always_ask):
                events.put(_face_choice(images[0], found, job.photos[0].parent))
                return

            def report(result: fv.FitResult, is_final: bool) -> None:
                events.put(FittedHead(result, person, images[0].rgb, len(found), is_final))

            def on_base(result: fv.FitResult) -> None:
                nonlocal refining
                refining = True
                report(result, is_final=False)
                after_base()

            source = images[0] if len(images) == 1 else images
            face = job.face or 0
            report(fv.fit(source, face=face, detail=detail, on_progress=on_progress, on_base=on_base), is_final=True)
        except Exception as error:
            events.put(error)

    yield Progress(fv.Message("step.reading"), 0.0)
    threading.Thread(target=work, daemon=True).start()
    keep = is_final = False
    try:
        while not is_final:
            event = events.get()
            if isinstance(event, Exception):
                raise event
            if isinstance(event, FittedHead):
                is_final, keep = event.is_final, event.face_count > 1 and len(job.photos) == 1
            elif isinstance(event, FaceChoice):
                is_final = keep = True
            yield event
    finally:
        stopped.set()
        if not keep:
            job.delete_photos()


def needs_face_choice(found: list[fv.DetectedFace], always_ask: bool) -> bool:
    """Whether the visitor has to choose a face: there are several of similar width, or `always_ask` is set."""
    if len(found) < 2 or always_ask:
        return len(found) > 1
    largest, second = (face.box_px[2] - face.box_px[0] for face in found[:2])
    return second > _SIMILAR_WIDTH * largest


def _face_choice(photo: fv.Photo, found: list[fv.DetectedFace], folder: Path) -> FaceChoice:
    path = folder / f"faces-{next(serial_numbers)}.jpg"
    image = Image.fromarray(photo.rgb)
    image.thumbnail((_CHOICE_PX, _CHOICE_PX))
    image.save(path, quality=88)
    height, width = (side / photo.scale for side in photo.rgb.shape[:2])
    boxes = tuple(tuple(round(float(v), 4) for v in face.box_px / (width, height, width, height)) for face in found)
    return FaceChoice(file_url(path), boxes)


def warm_up_fit(folder: Path, model: Path, detail=True) -> None:
    """Fit the sample photograph once and discard the result, so that models are loaded and kernels compiled."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        scratch = Path(name)
        *_, fitted = fit(claim(samples(folder)[:1], scratch, show_s=None), detail=detail)
        assert isinstance(fitted, FittedHead)  # the sample shows one face
        head = heads.with_wrinkles(EditableHead.of(fitted.result, fitted.person), scratch)
        heads.view(head, scratch, model)
        pictures.of_fit(fitted.result, fitted.photo_rgb, scratch)


def message_of(error: Exception) -> fv.Message:
    """The message of an error that is meant for the visitor; of any other, that something went wrong.

    What the visitor cannot mend is logged: a full disk is no fault of the upload.
    """
    cause = error.__cause__ if isinstance(error, fv.FaceVerseError) else error
    if isinstance(cause, OSError) and cause.errno in _DISK_FAULTS:
        _log.error("the server cannot store files: %s", cause)
        return fv.Message("page.disk")
    if isinstance(error, fv.FaceVerseError):
        return error.message
    return fv.Message("page.cancelled" if isinstance(error, Stopped) else "page.fault")


def explain(error: Exception, language: str = "en") -> str:
    """One sentence for the visitor."""
    return sentence(message_of(error), language)


def _data_url(preview: np.ndarray | None) -> str | None:
    if preview is None:
        return None
    image = Image.fromarray(preview)
    image.thumbnail((_PREVIEW_PX, _PREVIEW_PX))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
