"""Freed memory that the C library still holds."""

from __future__ import annotations

import ctypes


def return_memory() -> None:
    """Return freed heap memory to the operating system (glibc's `malloc_trim`); does nothing without glibc."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):
        return
