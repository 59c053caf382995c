"""What the C library keeps in reserve."""

from __future__ import annotations

import ctypes


def return_memory() -> None:
    """Gives the system back what was freed but stays with the process; does nothing where there is no glibc."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):
        return
