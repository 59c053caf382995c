"""The page's HTTP interface: fit, edit, render and export as named endpoints, for programs and for language models.

Nothing is remembered between calls: the JSON file of a result is the state. Each file that a client uploads is taken
into its own folder when the request arrives, before it waits for its turn, because Gradio names uploads after their
content and two requests may share one.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import inspect
import logging
import os
import secrets
import shutil
import zipfile
from collections.abc import Callable
from itertools import count
from pathlib import Path

import gradio as gr
from gradio.components.api_component import Api
from gradio.data_classes import FileData

import faceverse as fv

from . import handlers
from .line import MAX_WAITING, Line
from .visits import Visit, Visits

MAX_PICTURE_PX = 2048
FORMATS = ("glb", "obj", "ply", "stl", "json")
MODES = ("color", "albedo", "clay", "normal", "depth", "uv", "wireframe")
KEPT_ANSWERS = 20  # for one client; it has loaded older ones long ago
UPLOAD_STAYS_S = 5.0  # another request with the same content may just be arriving
PARALLEL_EDITS = 2

_NULL = {"type": "null"}
_FILE = FileData.model_json_schema()
_FILE["properties"]["meta"] = _FILE.pop("$defs")["FileDataMeta"]  # written out: inside another schema it is not found
_FILE["description"] = ""
_MAYBE_FILE = {"anyOf": [_FILE, _NULL]}
_MAYBE_FILES = {"anyOf": [{"type": "array", "items": _FILE}, _NULL]}
_NUMBERS = {"anyOf": [{"type": "array", "items": {"type": "number"}}, _NULL]}

_FILES, _OPTIONAL = {"photo", "others", "result", "donor"}, {"others", "donor"}
_log = logging.getLogger(__name__)
_numbers = count(1)


def connect(visits: Visits, line: Line, detail: bool = True) -> None:
    """Adds the endpoints /fit, /edit, /render and /export to the `gr.Blocks` that is being built; none of them shows.

    They come before the page's own events, which would take their names.

    Args:
        visits: of the page; a client is a visitor with a folder, which goes when the client closes.
        line: in which fits wait for their turn, together with those of the page.
        detail: False refuses detail for all fits, for a slow server.
    """
    service = Service(visits, line, detail)
    photo = ("photo", _FILE, None)
    others = ("others", _MAYBE_FILES, None)
    result = ("result", _FILE, None)
    seed, face = ("seed", {"type": "integer"}, 0), ("face", {"type": "integer"}, 0)
    service.add(
        service.fit, [photo, face, ("detail", {"type": "boolean"}, detail), seed, others],
        concurrency_id="fit", concurrency_limit=MAX_WAITING,
    )  # fmt: skip
    few = {"concurrency_id": "api", "concurrency_limit": PARALLEL_EDITS}
    service.add(service.edit, [result, ("edits", {"type": "object"}, {}), ("donor", _MAYBE_FILE, None)], **few)
    service.add(
        service.render,
        [
            result,
            ("size", {"type": "integer"}, 512),
            ("mode", {"enum": list(MODES)}, "color"),
            ("rotation", _NUMBERS, None),
        ],
        **few,
    )
    service.add(
        service.export, [result, ("format", {"enum": list(FORMATS)}, "glb"), ("dense", {"type": "boolean"}, False)],
        **few,
    )  # fmt: skip


def mcp_options() -> dict:
    """Keyword arguments of `launch`: the endpoints as tools of a language model, where FACEVERSE_MCP=1 asks for it."""
    if os.environ.get("FACEVERSE_MCP", "") not in ("1", "true"):
        return {}
    if importlib.util.find_spec("mcp") is None:
        _log.warning('FACEVERSE_MCP is set, but the package mcp is not installed: pip install "gradio[mcp]"')
        return {}
    return {"mcp_server": True}


class Service:
    """The endpoints. Their docstrings are what clients and language models read about them.

    Args:
        visits: the folders of the clients.
        line: in which fits wait for their turn.
        detail: whether fits may read the skin's detail.
    """

    def __init__(self, visits: Visits, line: Line, detail: bool = True):
        self.visits = visits
        self.line = line
        self.detail = detail

    def add(self, function: Callable, parameters: list[tuple[str, dict, object]], **options) -> None:
        """Makes a method an endpoint of its name; parameters are (name, JSON schema, default)."""
        texts = gr.utils.get_function_description(function)[1]
        names = [name for name, _, _ in parameters]
        inputs = [
            Api(default, schema | {"additional_description": texts.get(name, "")}, label=name)
            for name, schema, default in parameters
        ]
        # Gradio's own gr.api has no validator, which is the only function that runs before the queue.
        gr.Button(visible=False).click(
            self._answering(function, names), inputs, Api(None, _FILE, label="file"), api_name=function.__name__,
            validator=self._claiming(function, names), preprocess=False, postprocess=False, show_progress="hidden",
            **options,
        )  # fmt: skip

    # -- endpoints ----------------------------------------------------------------------------------------------------
    def fit(self, visit: Visit, photo, face: int = 0, detail: bool = True, seed: int = 0, others=None) -> Path:
        """Fits a 3D head to a photograph. Returns the result as a JSON file, for /edit, /render and /export.

        Args:
            photo: photograph of a face, JPEG, PNG, WebP or HEIC.
            face: which one, if there are several; 0 is the largest.
            detail: whether to read wrinkles and pores off the photograph; without them it takes a fraction of the time.
            seed: of everything random, which is the detail that the photograph does not show.
            others: more photographs of the same person, a list of files.
        """
        photos = [photo, *(others or [])]

        def on_progress(stage: str, fraction: float, preview) -> None:
            if visit.gone:
                raise handlers.Stopped

        wanted = {"detail": bool(detail) and self.detail, "seed": _whole("seed", seed), "face": _whole("face", face)}
        with self.line.place() as place:
            place.wait()
            result = fv.fit(photos if len(photos) > 1 else photo, **wanted, on_progress=on_progress)
        return fv.export(result, _place(visit) / f"{photo.stem or 'head'}.json")

    def edit(self, visit: Visit, result: Path, edits: dict | None = None, donor: Path | None = None) -> Path:
        """Changes a head: age, gender, face parts, expression, skin detail, pose and light. Returns a new JSON file.

        Edits are relative (age: years, gender: -1..1 towards male, and the model's other attributes, such as
        nose_width) or absolute (age_years, targets: {attribute: value}); expression: a preset such as "smile", or
        weights 0..1 by ARKit's names; detail: 0..3 times the skin's displacement; detail_seed: other skin; rotation: yaw,
        pitch and roll in degrees; light: {yaw, pitch, intensity, warmth}.

        Args:
            result: JSON file that /fit or /edit returned.
            edits: what to change, as faceverse.edit takes it, such as {"age": 20, "expression": {"jawOpen": 0.5}}.
            donor: JSON file of another head, whose skin detail this head gets.
        """
        if not isinstance(edits or {}, dict):
            raise fv.ParameterError('edits must be an object such as {"age": 20}')
        wanted = dict(edits or {})
        if "detail_from" in wanted or "result" in wanted:
            raise fv.ParameterError("other heads are given as files: result is the first parameter, donor the third")
        head = _load(result)
        if donor is not None:
            wanted["detail_from"] = _load(donor)
        return fv.export(fv.edit(head, **wanted), _place(visit) / result.name)

    def render(self, visit: Visit, result: Path, size: int = 512, mode: str = "color", rotation=None) -> Path:
        """Draws a head. Returns a square PNG.

        Args:
            result: JSON file that /fit or /edit returned.
            size: width and height in pixels, 1 to 2048.
            mode: color, albedo, clay, normal, depth, uv or wireframe.
            rotation: yaw, pitch and roll in degrees; without it the head is seen as in its photograph.
        """
        size = _whole("size", size)
        if not 1 <= size <= MAX_PICTURE_PX:
            raise fv.ParameterError(f"size must be in 1..{MAX_PICTURE_PX}, got {size}")
        picture = fv.render(_load(result), size, mode, rotation=rotation)
        path = _place(visit) / f"{result.stem}.png"
        fv.save_image(path, picture.rgb)
        return path

    def export(self, visit: Visit, result: Path, format: str = "glb", dense: bool = False) -> Path:
        """Writes a head for other programs. Returns the file; obj is a zip with the mesh, its material and its texture.

        Args:
            result: JSON file that /fit or /edit returned.
            format: glb (texture and 52 ARKit expressions inside), obj, ply, stl or json.
            dense: whether wrinkles and pores become geometry, about 600,000 triangles (obj, ply and stl).
        """
        if format not in FORMATS:
            raise fv.ParameterError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
        head, place = _load(result), _place(visit)
        path = fv.export(head, place / f"{result.stem}.{format}", dense=bool(dense))
        if format != "obj":
            return path
        parts = [part for part in place.iterdir() if part.is_file()]
        archive = place / f"{result.stem}_obj.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as bundle:
            for part in parts:
                bundle.write(part, part.name)
                part.unlink()
        return archive

    # -- how they answer ----------------------------------------------------------------------------------------------
    def _answering(self, function: Callable, names: list[str]) -> Callable:
        """The method as Gradio calls it: files for uploads, and errors that reach the client as one sentence."""

        def answer(*arguments) -> dict:
            *values, request = arguments
            visit = self.visits.of(request.session_hash or secrets.token_hex(16))
            taken: list[Path] = []
            try:
                files = [_take(name, value, visit, taken) for name, value in zip(names, values)]
                path = function(visit, *files)
            except Exception as error:
                if not isinstance(error, handlers.EXPECTED):
                    _log.error("/%s failed", function.__name__, exc_info=error)
                raise gr.Error(handlers.explain(error), print_exception=False) from None
            finally:
                for file in taken:
                    shutil.rmtree(file.parent, ignore_errors=True)
            return FileData(path=str(path), orig_name=path.name, size=path.stat().st_size).model_dump()

        answer.__doc__ = function.__doc__
        return _named(answer, function.__name__, names, function)

    def _claiming(self, function: Callable, names: list[str]) -> Callable:
        """What runs as a request arrives, before it waits: its uploads become its own."""

        def claim(*arguments) -> list[None]:
            *values, request = arguments
            if request.session_hash:
                visit = self.visits.of(request.session_hash)
                for name, value in zip(names, values):
                    for upload in _uploads(value) if name in _FILES else ():
                        with contextlib.suppress(
                            OSError, fv.FaceVerseError
                        ):  # the endpoint will say what is wrong with it
                            _claim(upload, visit)
            return [None] * len(values)

        return _named(claim, "claim", names, function)


def _named(function: Callable, name: str, parameters: list[str], like: Callable) -> Callable:
    """A function of any arguments with the name and the parameters that Gradio and its clients look for in it."""
    known = inspect.signature(like).parameters
    request = inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=gr.Request, default=None)
    function.__name__, function.__annotations__ = name, {"request": gr.Request}
    function.__signature__ = inspect.Signature([*(known[parameter] for parameter in parameters), request])
    return function


# -- files ------------------------------------------------------------------------------------------------------------
def _uploads(value) -> list[Path]:
    """The files of a parameter's value: one, or a list of them."""
    items = value if isinstance(value, list) else [value]
    return [Path(item["path"]).resolve() for item in items if isinstance(item, dict) and item.get("path")]


def _take(name: str, value, visit: Visit, taken: list[Path]):
    """Of a file parameter, its files, which are listed in `taken`; any other value as it is.

    Raises:
        ParameterError: there is no file where one is needed.
    """
    if name not in _FILES or (value is None and name in _OPTIONAL):
        return value
    uploads = _uploads(value)
    several = name == "others"
    if len(uploads) != (len(value) if several and isinstance(value, list) else 1):
        raise fv.ParameterError(f"{name} must be {'a list of files' if several else 'a file'}: use handle_file(path)")
    files = []
    for upload in uploads:
        files.append(_claimed(upload, visit))
        taken.append(files[-1])
        _forget_soon(upload, visit)
    return files if several else files[0]


def _claim(upload: Path, visit: Visit) -> Path | None:
    """The file in a folder of its own in the client's; None where it is gone."""
    _check_owner(upload, visit)
    place = visit.folder / f"claim-{_digest(upload)}-{next(_numbers):09d}"
    place.mkdir(mode=0o700)
    file = place / upload.name
    try:
        os.link(upload, file)
    except FileNotFoundError:
        place.rmdir()
        return None
    except OSError:  # a file system without links
        shutil.copyfile(upload, file)
    _forget_soon(upload, visit)
    return file


def _claimed(upload: Path, visit: Visit) -> Path:
    """What was claimed when the request arrived, else the upload itself, claimed now.

    Raises:
        ImageError: it is gone.
    """
    for place in sorted(visit.folder.glob(f"claim-{_digest(upload)}-*")):
        try:  # whoever renames it has it
            return place.rename(visit.folder / f"use-{next(_numbers)}") / upload.name
        except OSError:
            continue
    file = _claim(upload, visit)
    if file is None:
        raise fv.ImageError("the upload was deleted in the meantime; send it again")
    return file.parent.rename(visit.folder / f"use-{next(_numbers)}") / upload.name


def _digest(upload: Path) -> str:
    return hashlib.blake2b(str(upload).encode(), digest_size=12).hexdigest()


def _check_owner(upload: Path, visit: Visit) -> None:
    """Refuses another visitor's file, which only a forged request names.

    Raises:
        ParameterError: it is one.
    """
    root = visit.folder.parent.resolve()
    if upload.is_relative_to(root) and not upload.is_relative_to(visit.folder.resolve()):
        raise fv.ParameterError("this file is not an upload of yours; upload it again")


def _forget_soon(upload: Path, visit: Visit) -> None:
    """Deletes an upload after a while, see `handlers.delete_later`."""
    if upload.is_relative_to(visit.folder.resolve()):  # an answer that came back without being loaded
        return

    handlers.delete_later(upload, UPLOAD_STAYS_S)


def _place(visit: Visit) -> Path:
    """A new folder for an answer; the oldest ones of this client go.

    Raises:
        Stopped: he has left.
    """
    if visit.gone:
        raise handlers.Stopped
    older = sorted(visit.folder.glob("answer-*"))
    for folder in older[: max(len(older) + 1 - KEPT_ANSWERS, 0)]:
        shutil.rmtree(folder, ignore_errors=True)
    place = visit.folder / f"answer-{next(_numbers):09d}"
    place.mkdir(mode=0o700)
    return place


# -- values -----------------------------------------------------------------------------------------------------------
def _load(path: Path) -> fv.FitResult:
    if path.suffix.lower() != ".json":
        raise fv.ParameterError(f"{path.name} is no result: send the .json file that /fit or /edit returned")
    return fv.load_result(path)


def _whole(name: str, value) -> int:
    """A whole number; clients of other languages send 512.0 for 512."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1:
        raise fv.ParameterError(f"{name} must be a whole number, got {value!r}")
    return int(value)
