"""What a server needs besides the page: choices of its owner, tidy folders, a GPU for a while.

docs/hosting.md says how the page is hosted.
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

if TYPE_CHECKING:  # the rest of the page takes seconds to import, and this module comes before it
    from .visits import Visits

SWEEP_S, MAX_AGE_S = 300, 3600
DEFAULT_CAMERAS = 2
_M_ARENA_MAX = -8  # of glibc's malloc.h

_log = logging.getLogger(__name__)


def wants_detail() -> bool:
    """Whether fits read the skin's detail: FACEVERSE_DETAIL=0 spares a slow server the time."""
    return os.environ.get("FACEVERSE_DETAIL", "1").strip().lower() not in ("0", "false", "no")


def live_cameras() -> int:
    """How many cameras are followed at a time: FACEVERSE_LIVE; 0 turns that off."""
    try:
        return max(int(os.environ.get("FACEVERSE_LIVE", DEFAULT_CAMERAS)), 0)
    except ValueError:
        _log.warning("FACEVERSE_LIVE must be a whole number; %d cameras are followed at a time", DEFAULT_CAMERAS)
        return DEFAULT_CAMERAS


# -- memory -----------------------------------------------------------------------------------------------------------
def limit_arenas(count: int = 2) -> bool:
    """Makes the C library's threads share so many heaps; before the first of them starts.

    A server starts threads as visitors come. glibc gives each a heap of its own, where what a fit has freed stays with
    the process: ten visitors at once then take some hundred megabytes that never return.

    Returns:
        Whether this C library can do so.
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, count))
    except (OSError, AttributeError, TypeError):  # another C library, or another system
        return False


def return_memory() -> None:
    """Gives the system back what the C library keeps in reserve."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):
        return


# -- files ------------------------------------------------------------------------------------------------------------
def keep_clean(visits: Visits, uploads: Path, every_s: float = SWEEP_S) -> threading.Event:
    """Deletes in the background what nobody has used for an hour, also while nobody comes who would set it off.

    Args:
        visits: visitors; those who stay away go with their files.
        uploads: Gradio's folder, see `sweep`.
        every_s: seconds between two rounds.

    Returns:
        An event that ends it.
    """
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(every_s):
            try:
                visits.forget_idle()
                sweep(uploads, visits.root)
                return_memory()
            except Exception as error:
                _log.error("tidying up failed", exc_info=error)

    threading.Thread(target=work, daemon=True).start()
    return ended


def sweep(uploads: Path, keep: Path, max_age_s: float = MAX_AGE_S) -> None:
    """Deletes old files of Gradio's folder, and the folders that they leave: their names are digests of the files.

    Args:
        uploads: the folder.
        keep: a folder in it that is left alone.
        max_age_s: since the last change.
    """
    limit, keep = time.time() - max_age_s, keep.resolve()
    for place in uploads.iterdir() if uploads.is_dir() else ():
        if not place.is_dir() or place.is_symlink() or place.resolve() == keep:
            continue
        inner = sorted(place.rglob("*"), reverse=True)  # what lies deeper comes first
        for path in (*inner, place):
            try:
                if path.lstat().st_mtime < limit:
                    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
            except OSError:  # not empty, or somebody else was faster
                continue


# -- graphics card ----------------------------------------------------------------------------------------------------
def on_gpu(function: Callable, seconds: float) -> Callable:
    """A function that runs on a GPU where Hugging Face lends one for a while (ZeroGPU), and here where it does not.

    There it runs in a process of its own: arguments and results are pickled, callbacks and other state do not reach it.
    Once the visitor's share is used up, no GPU is free, or the loan fails otherwise, it runs here.

    Args:
        seconds: that it may take, by which the share is counted.
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
    """The graphics card that torch sees; empty if there is none."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def declare_gpu() -> Callable[[], str]:
    """What a ZeroGPU Space wants to see before it starts: a function for its GPU.

    It tells the name of the card. Nothing of the page calls it, because every stage of a fit runs on the processor.
    """
    return on_gpu(gpu_name, seconds=5)
