"""Limit the threads of the numerical libraries."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Run linear algebra on one thread within this block; blocks in several threads may overlap.

    A fit is thousands of small operations, which a second thread does not speed up. But BLAS threads wait for each
    other by spinning: when another program takes one of two cores, that wait makes a fit ten times as long.
    """
    before = torch.get_num_threads()  # per thread, unlike the limits of the other libraries
    torch.set_num_threads(1)
    _blas_limit.limit()
    try:
        yield
    finally:
        _blas_limit.release()
        torch.set_num_threads(before)


class _BlasLimit:
    """A reference-counted limit of the BLAS libraries to one thread."""

    def __init__(self) -> None:
        self._lock, self._users = threading.Lock(), 0
        self._controller: Any = None
        self._limits: Any = None
        self._module_count = 0  # when the libraries were last searched for, which takes a millisecond or two

    def limit(self) -> None:
        from threadpoolctl import ThreadpoolController

        with self._lock:
            if self._users == 0:
                if self._module_count != len(sys.modules):
                    self._controller, self._module_count = ThreadpoolController(), len(sys.modules)
                self._limits = self._controller.limit(limits=1, user_api="blas")
                _release_controlling_thread()
            self._users += 1

    def release(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._limits.restore_original_limits()
                _release_controlling_thread()


def _release_controlling_thread() -> None:
    """Let any thread change the limit: newer threadpoolctl allows only the one that set it on OpenBLAS."""
    from threadpoolctl import OpenBLASController

    if hasattr(OpenBLASController, "clear_controlling_thread"):
        OpenBLASController.clear_controlling_thread(force=True)


_blas_limit = _BlasLimit()
