"""The page's HTTP interface: fit, edit, render and export as named endpoints, for programs and for language models.

The endpoints are stateless: the JSON file of a result is the state. Each upload is linked into the session's folder
when its request arrives, before it waits in the queue, because Gradio names uploads by their content and two requests
may share one.
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
from typing import Any

import gradio as gr
from gradio.components.api_component import Api
from gradio.data_classes import FileData

import faceverse as fv

from . import fit_jobs, uploads
from .job_queue import MAX_WAITING, JobQueue
from .sessions import Session, Sessions

MAX_PICTURE_PX = 2048
FORMATS, MODES = fv.EXPORT_FORMATS, fv.RENDER_MODES
KEPT_ANSWERS = 20  # per session; older ones are deleted
UPLOAD_STAYS_S = 5.0  # another request with the same content may be arriving
PARALLEL_EDITS = 2

_NULL = {"type": "null"}
_FILE = FileData.model_json_schema()
_FILE["properties"]["meta"] = _FILE.pop("$defs")[
    "FileDataMeta"
]  # inlined: a reference is not resolved inside another schema
_FILE["description"] = ""
_MAYBE_FILE = {"anyOf": [_FILE, _NULL]}
_MAYBE_FILES = {"anyOf": [{"type": "array", "items": _FILE}, _NULL]}
_NUMBERS = {"anyOf": [{"type": "array", "items": {"type": "number"}}, _NULL]}

# What /edit takes from a donor, and the arguments of `faceverse.edit` for it.
_TAKEN = {"detail": ("detail_from",), "hair": ("hair_from",), "both": ("detail_from", "hair_from")}
_FILES, _OPTIONAL = {"photo", "others", "result", "donor"}, {"others", "donor"}
_log = logging.getLogger(__name__)
_serial_numbers = count(1)


def connect(sessions: Sessions, queue: JobQueue, detail: bool = True) -> None:
    """Add the endpoints /fit, /edit, /render and /export to the `gr.Blocks` under construction, without visible parts.

    Call it before the page's own events are connected, which would take the same names.

    Args:
        sessions: of the page; each client gets a session with a folder, deleted when the client disconnects.
        queue: of fits, shared with the page.
        detail: False turns detail off for all fits, for a slow server.
    """
    service = Service(sessions, queue, detail)
    photo = ("photo", _FILE, None)
    others = ("others", _MAYBE_FILES, None)
    result = ("result", _FILE, None)
    seed, face = ("seed", {"type": "integer"}, 0), ("face", {"type": "integer"}, 0)
    service.add(
        service.fit, [photo, face, ("detail", {"type": "boolean"}, detail), seed, others],
        concurrency_id="fit", concurrency_limit=MAX_WAITING,
    )  # fmt: skip
    few = {"concurrency_id": "api", "concurrency_limit": PARALLEL_EDITS}
    service.add(
        service.edit,
        [
            result,
            ("edits", {"type": "object"}, {}),
            ("donor", _MAYBE_FILE, None),
            ("take", {"enum": list(_TAKEN)}, "detail"),
        ],
        **few,
    )
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
        service.export,
        [
            result,
            ("format", {"enum": list(FORMATS)}, "glb"),
            ("dense", {"type": "boolean"}, False),
            ("lod", {"enum": list(fv.LEVELS_OF_DETAIL)}, "standard"),
            ("hair", {"type": "boolean"}, True),
        ],
        **few,
    )  # fmt: skip


def mcp_options() -> dict:
    """Keyword arguments of `launch`: the endpoints as tools of a language model, where FACEVERSE_MCP=1 is set."""
    if os.environ.get("FACEVERSE_MCP", "") not in ("1", "true"):
        return {}
    if importlib.util.find_spec("mcp") is None:
        _log.warning('FACEVERSE_MCP is set, but the package mcp is not installed: pip install "gradio[mcp]"')
        return {}
    return {"mcp_server": True}


class Service:
    """The endpoints. Clients and language models see their docstrings as documentation.

    Args:
        sessions: folders of the clients.
        queue: of fits.
        detail: whether fits may estimate skin detail.
    """

    def __init__(self, sessions: Sessions, queue: JobQueue, detail: bool = True):
        self.sessions = sessions
        self.queue = queue
        self.detail = detail

    def add(self, function: Callable, parameters: list[tuple[str, dict, object]], **options) -> None:
        """Add a method as an endpoint of the same name; parameters are (name, JSON schema, default)."""
        texts = gr.utils.get_function_description(function)[1]
        names = [name for name, _, _ in parameters]
        inputs = [
            Api(default, schema | {"additional_description": texts.get(name, "")}, label=name)
            for name, schema, default in parameters
        ]
        # Gradio's own gr.api has no validator, which is the only function that runs before the queue.
        gr.Button(visible=False).click(
            self._endpoint(function, names), inputs, Api(None, _FILE, label="file"), api_name=function.__name__,
            validator=self._validator(function, names), preprocess=False, postprocess=False, show_progress="hidden",
            **options,
        )  # fmt: skip

    # -- endpoints ----------------------------------------------------------------------------------------------------
    def fit(self, session: Session, photo, face: int = 0, detail: bool = True, seed: int = 0, others=None) -> Path:
        """Fits a 3D head to a photograph. Returns the result as a JSON file, for /edit, /render and /export.

        Args:
            photo: photograph of a face, JPEG, PNG, WebP or HEIC.
            face: which one, if there are several; 0 is the largest.
            detail: whether to estimate wrinkles and pores from the photograph; without them a fit is much faster.
            seed: of the sampled detail, where the photograph does not show the skin.
            others: more photographs of the same person, a list of files.
        """
        photos = [photo, *(others or [])]

        def on_progress(stage: str, fraction: float, preview) -> None:
            if session.closed:
                raise fit_jobs.Stopped

        detail, seed, face = bool(detail) and self.detail, _whole("seed", seed), _whole("face", face)
        with self.queue.enter() as entry:
            entry.wait()
            source = photos if len(photos) > 1 else photo
            result = fv.fit(source, face=face, detail=detail, seed=seed, on_progress=on_progress)
        return fv.export(result, _answer_folder(session) / f"{photo.stem or 'head'}.json")

    def edit(
        self,
        session: Session,
        result: Path,
        edits: dict | None = None,
        donor: Path | None = None,
        take: str = "detail",
    ) -> Path:
        """Changes a head: age, gender, face parts, expression, skin detail, hair, pose and light. Returns a JSON file.

        Edits are relative (age: years, gender: -1..1 towards male, and the model's other attributes, such as
        nose_width) or absolute (age_years, targets: {attribute: value}); expression: a preset such as "smile", or
        weights 0..1 by ARKit's names; detail: 0..3 times the skin's displacement; detail_seed: sampled skin detail;
        hair: a style, or null for none; hair_color: a name or #rrggbb; hair_length, hair_volume, hair_fringe: factors;
        hair_wave, hair_grey: 0..1; beard: a style, or shaved; beard_length: a factor, beard_density: 0..1,
        beard_color: as hair_color; brows: a style by number; brow_color; rotation: yaw, pitch and roll in degrees;
        light: {yaw, pitch, intensity, warmth}.

        Args:
            result: JSON file that /fit or /edit returned.
            edits: what to change, as faceverse.edit takes it, such as {"age": 20, "expression": {"jawOpen": 0.5}}.
            donor: JSON file of another head, whose skin detail or hair this head gets.
            take: what it gets from the donor: detail, hair or both.
        """
        if not isinstance(edits or {}, dict):
            raise fv.ParameterError("api.edits")
        wanted = dict(edits or {})
        if {"detail_from", "hair_from", "result"} & set(wanted):
            raise fv.ParameterError("api.heads_are_files")
        if not isinstance(take, str) or take not in _TAKEN:
            raise fv.ParameterError("api.take", known=", ".join(_TAKEN), take=repr(take))
        head = _load(result)
        if donor is not None:
            wanted |= dict.fromkeys(_TAKEN[take], _load(donor))
        return fv.export(fv.edit(head, **wanted), _answer_folder(session) / result.name)

    def render(self, session: Session, result: Path, size: int = 512, mode: str = "color", rotation=None) -> Path:
        """Draws a head. Returns a square PNG.

        Args:
            result: JSON file that /fit or /edit returned.
            size: width and height in pixels, 1 to 2048.
            mode: what the picture shows, such as color, clay or normal.
            rotation: yaw, pitch and roll in degrees; without it the head is seen as in its photograph.
        """
        size = _whole("size", size)
        if not 1 <= size <= MAX_PICTURE_PX:
            raise fv.ParameterError("api.size", most=MAX_PICTURE_PX, size=size)
        picture = fv.render(_load(result), size, mode, rotation=rotation)
        path = _answer_folder(session) / f"{result.stem}.png"
        fv.save_image(path, picture.rgb)
        return path

    def export(
        self,
        session: Session,
        result: Path,
        format: str = "glb",
        dense: bool = False,
        lod: str = "standard",
        hair: bool = True,
    ) -> Path:
        """Writes a head for other programs. Returns the file; obj is a zip with the mesh, its materials and textures.

        Args:
            result: JSON file that /fit or /edit returned.
            format: suffix of the file; glb has the texture and 52 ARKit expressions inside.
            dense: deprecated; true is the same as lod "dense".
            lod: level of detail of the mesh; dense has wrinkles and pores as geometry, about 600,000 triangles (in obj,
                ply and stl).
            hair: false leaves the hair out.
        """
        if not isinstance(format, str) or format not in FORMATS:
            raise fv.ParameterError("api.format", known=", ".join(FORMATS), format=repr(format))
        head, folder = _load(result), _answer_folder(session)
        path = fv.export(head, folder / f"{result.stem}.{format}", lod="dense" if dense else lod, hair=bool(hair))
        if not FORMATS[format].companions:
            return path
        parts = [part for part in folder.iterdir() if part.is_file()]
        archive = folder / f"{result.stem}_{format}.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as bundle:
            for part in parts:
                bundle.write(part, part.name)
                part.unlink()
        return archive

    # -- adapters for Gradio ------------------------------------------------------------------------------------------
    def _endpoint(self, function: Callable, names: list[str]) -> Callable:
        """Wrap a method for Gradio: uploads become paths, and errors reach the client as one sentence."""

        def answer(*arguments) -> dict:
            *values, request = arguments
            session = self.sessions.of(request.session_hash or secrets.token_hex(16))
            taken: list[Path] = []
            try:
                files = [_take(name, value, session, taken) for name, value in zip(names, values)]
                path = function(session, *files)
            except Exception as error:
                if not isinstance(error, fit_jobs.EXPECTED):
                    _log.error("/%s failed", function.__name__, exc_info=error)
                code = fit_jobs.message_of(error).code
                raise gr.Error(fit_jobs.explain(error), title=code, print_exception=False) from None
            finally:
                for file in taken:
                    shutil.rmtree(file.parent, ignore_errors=True)
            return FileData(path=str(path), orig_name=path.name, size=path.stat().st_size).model_dump()

        answer.__doc__ = function.__doc__
        return _named(answer, function.__name__, names, function)

    def _validator(self, function: Callable, names: list[str]) -> Callable:
        """Validator that Gradio runs when a request arrives, before the queue: it claims the uploads of the request."""

        def claim(*arguments) -> list[None]:
            *values, request = arguments
            if request.session_hash:
                session = self.sessions.of(request.session_hash)
                for name, value in zip(names, values):
                    for upload in _uploads(value) if name in _FILES else ():
                        with contextlib.suppress(OSError, fv.FaceVerseError):  # the endpoint reports it
                            _claim(upload, session)
            return [None] * len(values)

        return _named(claim, "claim", names, function)


def _named(function: Any, name: str, parameters: list[str], like: Callable) -> Callable:
    """Set the name and the signature that Gradio and its clients read from a function of any arguments."""
    known = inspect.signature(like).parameters
    request = inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=gr.Request, default=None)
    function.__name__, function.__annotations__ = name, {"request": gr.Request}
    function.__signature__ = inspect.Signature([*(known[parameter] for parameter in parameters), request])
    return function


# -- files ------------------------------------------------------------------------------------------------------------
def _uploads(value) -> list[Path]:
    """Paths in the value of a parameter: one upload, or a list of them."""
    items = value if isinstance(value, list) else [value]
    return [Path(item["path"]).resolve() for item in items if isinstance(item, dict) and item.get("path")]


def _take(name: str, value, session: Session, taken: list[Path]):
    """Paths of a file parameter, also appended to `taken`; any other value unchanged.

    Raises:
        ParameterError: a required file is missing.
    """
    if name not in _FILES or (value is None and name in _OPTIONAL):
        return value
    uploads = _uploads(value)
    several = name == "others"
    if len(uploads) != (len(value) if several and isinstance(value, list) else 1):
        raise fv.ParameterError("api.files" if several else "api.file", name=name)
    files = []
    for upload in uploads:
        files.append(_claimed(upload, session))
        taken.append(files[-1])
        _delete_soon(upload, session)
    return files if several else files[0]


def _claim(upload: Path, session: Session) -> Path | None:
    """Link an upload into a folder of its own in the session's folder; None where the upload was deleted."""
    _check_owner(upload, session)
    folder = session.folder / f"claim-{_digest(upload)}-{next(_serial_numbers):09d}"
    folder.mkdir(mode=0o700)
    file = folder / upload.name
    try:
        os.link(upload, file)
    except FileNotFoundError:
        folder.rmdir()
        return None
    except OSError:  # a file system without links
        shutil.copyfile(upload, file)
    _delete_soon(upload, session)
    return file


def _claimed(upload: Path, session: Session) -> Path:
    """The file that was claimed when the request arrived, else the upload, claimed now.

    Raises:
        ImageError: the upload was deleted.
    """
    for folder in sorted(session.folder.glob(f"claim-{_digest(upload)}-*")):
        try:  # the request that renames it first owns it
            return folder.rename(session.folder / f"use-{next(_serial_numbers)}") / upload.name
        except OSError:
            continue
    file = _claim(upload, session)
    if file is None:
        raise fv.ImageError("api.upload_deleted")
    return file.parent.rename(session.folder / f"use-{next(_serial_numbers)}") / upload.name


def _digest(upload: Path) -> str:
    return hashlib.blake2b(str(upload).encode(), digest_size=12).hexdigest()


def _check_owner(upload: Path, session: Session) -> None:
    """Refuse a file of another session, which only a forged request names.

    Raises:
        ParameterError: it is such a file.
    """
    root = session.folder.parent.resolve()
    if upload.is_relative_to(root) and not upload.is_relative_to(session.folder.resolve()):
        raise fv.ParameterError("api.not_yours")


def _delete_soon(upload: Path, session: Session) -> None:
    """Delete an upload after a delay, see `fit_jobs.delete_later`."""
    if upload.is_relative_to(session.folder.resolve()):  # an answer of this session, sent back as input
        return

    fit_jobs.delete_later(upload, UPLOAD_STAYS_S)


def _answer_folder(session: Session) -> Path:
    """Create a folder for an answer; delete the oldest ones of this session.

    Raises:
        Stopped: the session is closed.
    """
    if session.closed:
        raise fit_jobs.Stopped
    older = sorted(session.folder.glob("answer-*"))
    for folder in older[: max(len(older) + 1 - KEPT_ANSWERS, 0)]:
        shutil.rmtree(folder, ignore_errors=True)
    folder = session.folder / f"answer-{next(_serial_numbers):09d}"
    folder.mkdir(mode=0o700)
    return folder


# -- values -----------------------------------------------------------------------------------------------------------
def _load(path: Path) -> fv.FitResult:
    if path.suffix.lower() != ".json":
        raise fv.ParameterError("api.no_result", name=path.name)
    uploads.check_head(path)
    return fv.load_result(path)


def _whole(name: str, value) -> int:
    """Convert to int; clients in other languages send 512.0 for 512."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1:
        raise fv.ParameterError("api.whole_number", name=name, value=repr(value))
    return int(value)
