"""Server administration: environment variables, memory, clean-up of files, borrowed GPUs.

docs/hosting.md explains how to host the page.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.util
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # app.py imports this module first, and the rest of the page takes seconds
    from .sessions import Sessions

SWEEP_S, MAX_AGE_S = 300, 3600
DEFAULT_WEBCAMS = 2
_M_ARENA_MAX = -8  # of glibc's malloc.h

_log = logging.getLogger(__name__)


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "1").strip().lower() not in ("0", "false", "no")


def wants_detail() -> bool:
    """Whether fits estimate skin detail: FACEVERSE_DETAIL=0 saves a slow server the time."""
    return _is_on("FACEVERSE_DETAIL")


def wants_warm_up() -> bool:
    """Whether the server fits the sample photograph as it starts: with FACEVERSE_WARM_UP=0 the first visitor waits."""
    return _is_on("FACEVERSE_WARM_UP")


def webcam_limit() -> int:
    """Largest number of simultaneous webcam streams: FACEVERSE_LIVE; 0 turns webcams off."""
    try:
        return max(int(os.environ.get("FACEVERSE_LIVE", DEFAULT_WEBCAMS)), 0)
    except ValueError:
        _log.warning("FACEVERSE_LIVE must be a whole number; %d webcams are allowed at a time", DEFAULT_WEBCAMS)
        return DEFAULT_WEBCAMS


# -- memory -----------------------------------------------------------------------------------------------------------
def limit_arenas(count: int = 2) -> bool:
    """Limit the number of malloc arenas that threads share; call it before the first thread starts.

    The server starts threads as visitors arrive. glibc gives each thread an arena, which keeps the memory that a fit
    has freed: ten simultaneous visitors cost some hundred megabytes that are never returned.

    Returns:
        Whether the C library supports it.
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, count))
    except (OSError, AttributeError, TypeError):  # another C library, or another system
        return False


def return_memory() -> None:
    """Return free heap memory of the C library to the system."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):
        return


# -- files ------------------------------------------------------------------------------------------------------------
def keep_clean(sessions: Sessions, uploads: Path, every_s: float = SWEEP_S) -> threading.Event:
    """Delete idle sessions and old uploads periodically, in a background thread.

    Args:
        sessions: idle ones are ended and their files deleted.
        uploads: Gradio's folder, see `sweep`.
        every_s: period in seconds.

    Returns:
        An event that stops the thread when set.
    """
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(every_s):
            try:
                sessions.close_idle()
                sweep(uploads, sessions.root)
                return_memory()
            except Exception as error:
                _log.error("the clean-up failed", exc_info=error)

    threading.Thread(target=work, daemon=True).start()
    return ended


def sweep(uploads: Path, keep: Path, max_age_s: float = MAX_AGE_S) -> None:
    """Delete old files of Gradio's upload folder, and the folders that become empty.

    Args:
        uploads: the folder.
        keep: a subfolder to leave alone.
        max_age_s: greatest age since the last change.
    """
    limit, keep = time.time() - max_age_s, keep.resolve()
    for folder in uploads.iterdir() if uploads.is_dir() else ():
        if not folder.is_dir() or folder.is_symlink() or folder.resolve() == keep:
            continue
        inner = sorted(folder.rglob("*"), reverse=True)  # deepest first
        for path in (*inner, folder):
            try:
                if path.lstat().st_mtime < limit:
                    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
            except OSError:  # not empty, or already deleted
                continue


# -- graphics card ----------------------------------------------------------------------------------------------------
def on_gpu(function: Callable, seconds: float) -> Callable:
    """Run a function on a borrowed GPU on Hugging Face ZeroGPU, and in this process elsewhere.

    ZeroGPU runs it in another process: arguments and results are pickled, callbacks and other state do not reach it.
    If the visitor's quota is used up, no GPU is free, or the request fails otherwise, it runs in this process.

    Args:
        function: to run.
        seconds: time limit, which is charged against the quota.
    """
    if importlib.util.find_spec("spaces") is None:
        return function
    lent = importlib.import_module("spaces").GPU(function, duration=seconds)

    @functools.wraps(function)
    def either(*args, **kwargs):
        try:
            return lent(*args, **kwargs)
        except Exception as error:
            if not str(getattr(error, "title", "")).startswith("ZeroGPU"):
                raise
            _log.warning("%s runs without a GPU: %s", function.__name__, getattr(error, "message", error))
            return function(*args, **kwargs)

    return either


def gpu_name() -> str:
    """Name of the GPU that torch sees; empty without one."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def declare_gpu() -> Callable[[], str]:
    """Declare a GPU function, without which a ZeroGPU Space does not start.

    It returns the name of the GPU. The page never calls it, because every stage of a fit runs on the CPU.
    """
    return on_gpu(gpu_name, seconds=5)
