import contextlib
import gc
import threading
import time

import pytest

from sibert_jax.data import prefetch


def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "waited 10 s"
        time.sleep(0.01)


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@pytest.mark.parametrize("num_steps", [0, 1, 20])
def test_steps_come_in_order_with_their_batches(num_steps):
    expected = [(step, -step) for step in range(5, 5 + num_steps)]
    assert list(prefetch(lambda step: -step, 5, num_steps)) == expected
    assert not threads()


def test_batches_are_made_ahead_but_no_further_than_asked():
    made = []
    with contextlib.closing(prefetch(made.append, 0, 100, depth=3)) as batches:
        next(batches)
        wait_until(lambda: len(made) == 5)  # one taken, three waiting, one that finds no room
        time.sleep(0.1)
        assert made == [0, 1, 2, 3, 4]
    assert not threads()


@pytest.mark.parametrize(
    ("error", "seen"), [(KeyError("none"), KeyError), (StopIteration(), RuntimeError)]
)
def test_an_error_is_raised_where_its_batch_would_have_come(error, seen):
    def fail_at_3(step):
        if step == 3:
            raise error
        return step

    batches = prefetch(fail_at_3, 0, 10)
    assert [next(batches) for _ in range(3)] == [(0, 0), (1, 1), (2, 2)]
    with pytest.raises(seen):
        next(batches)
    assert list(batches) == []
    assert not threads()


@pytest.mark.parametrize("taken", [0, 1])
def test_closing_or_dropping_the_iterator_ends_the_thread(taken):
    batches = prefetch(lambda step: step, 0, 10**9)
    other = prefetch(lambda step: step, 0, 10**9)
    for _ in range(taken):
        assert next(batches) == next(other)
    batches.close()
    batches.close()
    assert list(batches) == []
    del other
    gc.collect()
    wait_until(lambda: not threads())
