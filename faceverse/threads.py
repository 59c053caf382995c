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
    _libraries.limit()
    try:
        yield
    finally:
        _libraries.release()
        torch.set_num_threads(before)


class _Libraries:
    """The libraries for linear algebra, limited as long as anybody wants it."""

    def __init__(self):
        self._lock, self._users = threading.Lock(), 0
        self._controller = self._limits = None
        self._modules = 0  # there were when the libraries were looked for, which takes a millisecond or two

    def limit(self) -> None:
        from threadpoolctl import ThreadpoolController

        with self._lock:
            if self._users == 0:
                if self._modules != len(sys.modules):
                    self._controller, self._modules = ThreadpoolController(), len(sys.modules)
                self._limits = self._controller.limit(limits=1, user_api="blas")
                _let_any_thread_decide()
            self._users += 1

    def release(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._limits.restore_original_limits()
                _let_any_thread_decide()


def _let_any_thread_decide() -> None:
    """Newer versions of threadpoolctl let only the thread that limited OpenBLAS take that back."""
    from threadpoolctl import OpenBLASController

    if hasattr(OpenBLASController, "clear_controlling_thread"):
        OpenBLASController.clear_controlling_thread(force=True)


_libraries = _Libraries()
