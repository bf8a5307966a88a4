"""Tasks shared by threads: order, failures and a thread's own share."""

import threading

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from aiida_autopipe.core.ace.parallel import in_threads, one_blas_thread, short_tasks


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("run", [in_threads, short_tasks])
def test_results_come_in_the_order_of_the_items(run, threads):
    assert list(run(lambda k: k * k, range(20), threads)) == [k * k for k in range(20)]
    assert list(run(str, [], threads)) == []


def test_the_calling_thread_works_too():
    both = threading.Barrier(2, timeout=30)

    def task(_):
        both.wait()
        return threading.get_ident()

    assert threading.get_ident() in short_tasks(task, range(2), 2)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_first_failure_ends_all(threads):
    done = []

    def task(k):
        if k == 3:
            raise ValueError("three")
        done.append(k)

    with pytest.raises(ValueError, match="three"):
        short_tasks(task, range(100_000), threads)
    assert len(done) < 100_000


def test_blas_gets_its_threads_back():
    def threads():
        return {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}

    with threadpool_limits(2, "blas"):
        with one_blas_thread():
            assert threads() == {1}
        assert threads() == {2}
