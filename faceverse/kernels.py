"""Compilation of numba kernels."""

from __future__ import annotations

import numba


def compile_kernel(function):
    """Compile at the first call: once per machine where numba finds a cache folder, else once per process.

    Folders, in this order: NUMBA_CACHE_DIR, __pycache__ beside the function's file, the user's own cache.
    """
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:
        return numba.njit(nogil=True)(function)
