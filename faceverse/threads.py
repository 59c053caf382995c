"""How many threads the numerical libraries may use."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Linear algebra on one thread, for this block.

    A fit is thousands of small operations, which a second thread does not make faster. But its threads wait for each
    other by spinning, and when another program takes one of two cores, that wait makes a fit ten times as long.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _libraries(len(sys.modules)).limit(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


@functools.lru_cache(maxsize=1)
def _libraries(modules: int):
    """The libraries that can be told; looked for again, in a millisecond or two, when more modules are there."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
