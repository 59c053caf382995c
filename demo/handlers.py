"""What the page does, as plain functions: a photograph becomes a head, the head is edited, its files are written."""

from __future__ import annotations

import base64
import hashlib
import io
import queue
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image

import faceverse as fv

from .viewer import file_address, head_pack, model_pack

# Slider of the page -> the ARKit weights that it moves together.
EXPRESSIONS = {
    "Open mouth": ("jawOpen",),
    "Smile": ("mouthSmileLeft", "mouthSmileRight"),
    "Close eyes": ("eyeBlinkLeft", "eyeBlinkRight"),
    "Raise brows": ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    "Puff cheeks": ("cheekPuff",),
    "Pucker lips": ("mouthPucker",),
}
DOWNLOADS = {"GLB": "glb", "OBJ (zip)": "obj", "PLY": "ply", "STL": "stl", "JSON": "json"}

_STEPS = {
    "detection": "Looking for the face",
    "landmarks": "Finding the shape of the head",
    "photometric coarse": "Matching skin and light",
    "photometric fine": "Matching the finer features",
    "detail": "Reading the skin",
    "texture": "Taking the colours from the photograph",
}
MAX_STRENGTH = 2.0  # of the skin's detail; 1 is as fitted
_PREVIEW_PX = 384
_PICTURE_PX = 640
_numbers = count(1)  # no two files of the page have the same name, so that no browser shows an old one


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
class Changes:
    """What the server changes on a fitted head.

    Args:
        age: years older than in the photograph.
        gender: shift from female to male, likewise.
        skin: number of other skin than the photograph's; 0 is its own.
    """

    age: float = 0.0
    gender: float = 0.0
    skin: int = 0


@dataclass(frozen=True)
class Head:
    """What the page remembers of a visitor's head.

    Args:
        fitted: as it came from the photograph.
        edited: with the changes.
        person: number of the fit; the 3D view keeps its camera and expression while this stays the same.
        face_count: faces in the photograph.
        photo: file of the photograph, or None: it is kept only while there is another face to choose.
    """

    fitted: fv.FitResult
    edited: fv.FitResult
    person: int
    face_count: int
    photo: Path | None
    changes: Changes = Changes()

    @property
    def has_detail(self) -> bool:
        """Whether there is a relief whose strength can be chosen."""
        return self.edited.normal_map is not None


@dataclass(frozen=True)
class Pictures:
    """Files of the same size: the photograph, the head over it, the head as clay, its texture."""

    photo: Path
    overlay: Path
    clay: Path
    texture: Path


@dataclass(frozen=True)
class Fitted:
    """A head, and the pixels of its photograph (H, W, 3) uint8, which are not kept. Only the last one is `whole`: one
    before it lacks the detail that is still to come."""

    head: Head
    photo_rgb: np.ndarray
    whole: bool = True


# -- photograph -------------------------------------------------------------------------------------------------------
def claim(upload: str | Path, folder: Path, show_s: float | None = 5) -> Path:
    """Copies an upload into the visitor's folder, where nobody else finds it; an earlier photograph is deleted.

    Args:
        show_s: the upload itself is deleted after this time; until then his browser may load it to show it to him.
            None keeps it.

    Raises:
        ImageError: the upload is gone.
    """
    upload, place = Path(upload), folder / f"photo-{next(_numbers)}"  # an older fit deletes its own photograph only
    for older in folder.glob("photo-*/"):
        shutil.rmtree(older, ignore_errors=True)
    place.mkdir()
    try:
        photo = Path(shutil.copyfile(upload, place / upload.name))  # messages tell the name that he knows
    except OSError as error:
        raise fv.ImageError("the upload was deleted in the meantime; choose the photograph again") from error
    if show_s is not None:
        timer = threading.Timer(show_s, upload.unlink, kwargs={"missing_ok": True})
        timer.daemon = True
        timer.start()
    return photo


def sample_photo(folder: Path) -> Path:
    """The sample photograph (astronaut Eileen Collins, NASA, public domain) as a file, written once."""
    from skimage.data import astronaut

    path = folder / "astronaut.png"
    if not path.exists():
        Image.fromarray(astronaut()).save(path)
    return path


# -- fit --------------------------------------------------------------------------------------------------------------
def fit(
    photo: Path, face: int = 0, is_wanted: Callable[[], bool] = lambda: True, detail=True
) -> Iterator[Step | Fitted]:
    """Fits a head to a photograph.

    Args:
        photo: a file. It is deleted at the end unless it shows several faces.
        face: 0 is the largest.
        is_wanted: asked again and again; False stops the fit.
        detail: as in `faceverse.fit`.

    Yields:
        Step while it runs, with a Fitted among them once the base head is there, if detail follows; at the end the
        whole Fitted of the same person.
    Raises:
        FaceVerseError: what went wrong, in words.
        Stopped: `is_wanted` said no.
    """
    events: queue.SimpleQueue = queue.SimpleQueue()
    stopped = threading.Event()
    person, refining = next(_numbers), False

    def on_progress(stage: str, fraction: float, preview: np.ndarray | None) -> None:
        if stopped.is_set() or not is_wanted():
            raise Stopped
        events.put(Step(_STEPS.get(stage, stage.capitalize()), fraction, _data_address(preview), refining))

    def work() -> None:
        try:
            image = fv.read_image(photo)
            on_progress("detection", 0.0, image.rgb)
            face_count = len(fv.detect(image))
            keeps = photo if face_count > 1 else None

            def tell(result: fv.FitResult, whole: bool) -> None:
                events.put(Fitted(Head(result, result, person, face_count, keeps), image.rgb, whole))

            def on_base(result: fv.FitResult) -> None:
                nonlocal refining
                refining = True
                tell(result, whole=False)

            tell(fv.fit(image, face=face, detail=detail, on_progress=on_progress, on_base=on_base), whole=True)
        except Exception as error:
            events.put(error)

    yield Step("Reading the photograph", 0.0)
    threading.Thread(target=work, daemon=True).start()
    keep = False
    try:
        whole = False
        while not whole:
            event = events.get()
            if isinstance(event, Exception):
                raise event
            if isinstance(event, Fitted):
                whole, keep = event.whole, event.head.photo is not None
            yield event
    finally:
        stopped.set()
        if not keep:
            photo.unlink(missing_ok=True)


def rehearse(folder: Path, model: Path, detail=True) -> None:
    """A fit of the sample photograph that nobody sees."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name)
        *_, fitted = fit(claim(sample_photo(folder), place, show_s=None), detail=detail)
        view(fitted.head, place, model)
        pictures(fitted.head, fitted.photo_rgb, place)


def explain(error: Exception) -> str:
    """One sentence for the visitor."""
    if isinstance(error, fv.FaceVerseError):
        text = str(error).strip()
        start = text[:1].upper() if text.split(" ")[0].isalpha() else text[:1]  # not the name of a file
        return start + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
    if isinstance(error, Stopped):
        return "Cancelled."
    return "Something went wrong on the server. Try again, or try another photograph."


def summary(result: fv.FitResult, whole: bool = True) -> str:
    """What the fit says about itself: seconds and warnings, as Markdown.

    Args:
        whole: False where its detail is still to come.
    """
    size = f"{len(result.vertices):,} vertices, {len(result.faces):,} triangles"
    lines = [f"**Done in {result.seconds:.1f} s**: {size}." if whole else f"{size}; the detail of the skin follows."]
    lines += [f"- {explain(fv.FaceVerseError(warning))}" for warning in result.warnings]
    return "\n".join(lines)


# -- edit -------------------------------------------------------------------------------------------------------------
def usable_sliders(model: fv.FaceModel) -> tuple[str, ...]:
    """The sliders that move something: labels of EXPRESSIONS, and the attributes age and gender."""
    moving = [label for label, names in EXPRESSIONS.items() if set(names) & set(model.expression_names)]
    return (*moving, *(name for name in ("age", "gender") if name in model.attribute_names))


def slider_values(result: fv.FitResult) -> dict[str, float]:
    """Where the expression sliders stand for a head: the mean of the weights that each of them moves, 0 for none."""
    weights = _expression(result)
    moved = {label: [weights[n] for n in names if n in weights] for label, names in EXPRESSIONS.items()}
    return {label: round(float(np.mean(present)), 2) if present else 0.0 for label, present in moved.items()}


def edit(head: Head, changes: Changes) -> Head:
    """The head with these changes and no others; all of them are relative to the photograph.

    Other skin waits for a head with detail: the base model's stays as it is.

    Raises:
        ParameterError: the model knows neither age nor gender.
    """
    wanted = {"age": changes.age or None, "gender": changes.gender or None}
    if head.fitted.normal_map is not None:
        wanted["detail_seed"] = changes.skin or None
    if not any(wanted.values()):
        return replace(head, edited=head.fitted, changes=changes)
    return replace(head, edited=fv.edit(head.fitted, **wanted), changes=changes)


def as_shown(head: Head, values: dict[str, float], strength: float = 1.0) -> fv.FitResult:
    """The edited head with the expression of the sliders and so much of its detail; a slider that was not moved leaves
    its weights alone, and a head without detail has none to choose."""
    start = slider_values(head.fitted)
    moved = {
        name: float(np.clip(values[label], 0, 1))
        for label, names in EXPRESSIONS.items()
        for name in names
        if label in values and abs(values[label] - start[label]) > 1e-6 and name in head.fitted.model.expression_names
    }
    wanted = {"expression": moved} if moved else {}
    if head.has_detail and strength != 1:
        wanted["detail"] = float(np.clip(strength, 0, MAX_STRENGTH))
    return fv.edit(head.edited, **wanted) if wanted else head.edited


# -- what the visitor sees --------------------------------------------------------------------------------------------
def model_file(folder: Path) -> Path:
    """The part of the 3D view's data that all heads share, written once."""
    path = folder / f"model-{next(_numbers)}.bin"
    path.write_bytes(model_pack(fv.load_model()))
    return path


def view(head: Head, folder: Path, model: Path) -> dict:
    """Value of the 3D view; its files replace those before the last ones, which a browser may be reading still."""
    number = next(_numbers)
    mesh = folder / f"head-{number}.bin"
    mesh.write_bytes(head_pack(head.edited))
    texture = _picture_file(folder, "texture", ".jpg", head.edited.texture, quality=92)
    normal = smooth = None
    if head.has_detail:  # without losses, because blocks of JPEG would be seen as relief
        normal = _picture_file(folder, "normal", ".png", head.edited.normal_map, compress_level=3)
        bare = fv.edit(head.edited, detail=0).texture
        smooth = _picture_file(folder, "smooth", ".jpg", bare, quality=92)
    latest = {"head-*.bin": mesh, "texture-*.jpg": texture, "normal-*.png": normal, "smooth-*.jpg": smooth}
    for pattern, keep in latest.items():
        found = sorted(set(folder.glob(pattern)) - {keep}, key=lambda path: path.stat().st_mtime_ns)
        for old in found[:-1]:
            old.unlink(missing_ok=True)
    return {
        "edition": number,  # the 3D view shows none that is older than what it has
        "model": file_address(model),
        "head": file_address(mesh),
        "texture": file_address(texture),
        "normal": normal and file_address(normal),
        "smooth": smooth and file_address(smooth),
        "person": head.person,
        "expression": _expression(head.edited),
        "status": None,
    }


def pictures(head: Head, photo_rgb: np.ndarray, folder: Path) -> Pictures:
    """Writes the pictures below the 3D view, cut to the head."""
    number = next(_numbers)
    panels = np.split(fv.overview(photo_rgb, head.fitted, _PICTURE_PX), 4, axis=1)
    files = {}
    for name, panel in zip(("photo", "overlay", "clay", "texture"), panels, strict=True):
        for old in folder.glob(f"{name}-*.webp"):
            old.unlink(missing_ok=True)
        files[name] = folder / f"{name}-{number}.webp"
        Image.fromarray(panel).save(files[name], quality=90)
    return Pictures(**files)


def download(head: Head, kind: str, values: dict[str, float], folder: Path, strength: float = 1.0) -> Path:
    """Writes the head as it stands on the sliders.

    Args:
        kind: glb, obj, ply, stl or json; obj gives a zip with the mesh, its material and its texture.
        values: of the expression sliders.
        strength: of the skin's detail, where there is some.
    """
    result = as_shown(head, values, strength)
    if kind != "obj":
        return fv.export(result, folder / f"head.{kind}")
    parts = folder / "obj"
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir()
    fv.export(result, parts / "head.obj")
    path = folder / "head_obj.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in sorted(parts.iterdir()):
            archive.write(part, part.name)
    shutil.rmtree(parts)
    return path


def _picture_file(folder: Path, name: str, suffix: str, picture: np.ndarray, **options) -> Path:
    """Its file, named after its content, so that a browser that has it does not load it again."""
    digest = hashlib.blake2b(np.ascontiguousarray(picture), digest_size=12).hexdigest()
    path = folder / f"{name}-{digest}{suffix}"
    if path.exists():
        path.touch()
    else:
        Image.fromarray(picture).save(path, **options)
    return path


def _expression(result: fv.FitResult) -> dict[str, float]:
    return {n: round(float(w), 4) for n, w in zip(result.model.expression_names, result.params.expression)}


def _data_address(preview: np.ndarray | None) -> str | None:
    if preview is None:
        return None
    image = Image.fromarray(preview)
    image.thumbnail((_PREVIEW_PX, _PREVIEW_PX))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
