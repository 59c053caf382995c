"""How many threads the numerical libraries may use."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Linear algebra on one thread, for this block; blocks of several threads may overlap.

    A fit is thousands of small operations, which a second thread does not make faster. But its threads wait for each
    other by spinning, and when another program takes one of two cores, that wait makes a fit ten times as long.
    """
    before = torch.get_num_threads()  # of this thread alone, unlike those of the other libraries
    torch.set_num_threads(1)
    _blas.limit()
    try:
        yield
    finally:
        _blas.release()
        torch.set_num_threads(before)


class _Blas:
    """Limits the libraries for linear algebra as long as anybody wants it."""

    def __init__(self):
        self._lock, self._users = threading.Lock(), 0
        self._limits = self._controller = None
        self._modules = 0  # that were imported when the libraries were looked for, which takes a millisecond or two

    def limit(self) -> None:
        from threadpoolctl import ThreadpoolController

        with self._lock:
            if self._users == 0:
                if self._controller is None or self._modules != len(sys.modules):
                    self._controller, self._modules = ThreadpoolController(), len(sys.modules)
                self._limits = self._controller.limit(limits=1, user_api="blas")
            self._users += 1

    def release(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._limits.restore_original_limits()


_blas = _Blas()
