"""A block on one thread, and what was before it."""

import threading

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from faceverse.threads import one_thread


def blas_threads():
    np.linalg.solve(np.eye(2), np.ones(2))
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_a_block_has_one_thread_and_gives_the_others_back(two_threads):
    before = blas_threads()
    with one_thread():
        assert torch.get_num_threads() == 1 and blas_threads() <= {1}
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2 and blas_threads() == before


def test_an_error_gives_them_back_too(two_threads):
    with pytest.raises(KeyError), one_thread():
        raise KeyError("x")
    assert torch.get_num_threads() == 2


def test_every_thread_may_ask(two_threads):
    with one_thread():
        pass
    found = []

    def work():
        with one_thread():
            found.append(blas_threads())

    other = threading.Thread(target=work)
    other.start()
    other.join()
    assert found[0] <= {1}


def test_blocks_of_several_threads_may_overlap(two_threads):
    with one_thread():
        pass
    before, first_in, second_in, first_out = blas_threads(), *(threading.Event() for _ in range(3))

    def work():
        with one_thread():
            first_in.set()
            second_in.wait(10)
        first_out.set()

    other = threading.Thread(target=work)
    other.start()
    first_in.wait(10)
    with one_thread():
        second_in.set()
        first_out.wait(10)
        assert blas_threads() <= {1}
    other.join()
    assert blas_threads() == before and torch.get_num_threads() == 2
