"""What is read one item ahead is what is read at once; never more than one, and nothing that goes wrong is lost."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablate.training.one_ahead import OneAhead

WAIT_S = 60


class Shelf:
    """Gives twice its key, and notes who asked for what."""

    def __init__(self):
        self.read, self.threads = [], set()
        self.is_begun = threading.Semaphore(0)

    def __call__(self, key):
        self.read.append(key)
        self.threads.add(threading.current_thread())
        self.is_begun.release()
        if key < 0:
            raise ValueError(f"no {key}")
        return 2 * key


@given(st.lists(st.integers(0, 3), max_size=8), st.lists(st.integers(0, 3), max_size=8))
def test_whatever_is_expected_what_is_asked_for_is_what_is_given(expected, asked):
    ahead = OneAhead(Shelf())
    try:
        ahead.expect(expected)
        assert [ahead(key) for key in asked] == [2 * key for key in asked]
    finally:
        ahead.close()


def test_what_is_expected_is_read_by_a_thread_one_ahead_and_no_further():
    shelf = Shelf()
    ahead = OneAhead(shelf)
    ahead.expect([1, 2, 3])
    for number, key in enumerate((1, 2, 3), 1):
        assert shelf.is_begun.acquire(timeout=WAIT_S)  # though nobody has asked for it
        assert shelf.read == [1, 2, 3][:number]
        assert ahead(key) == 2 * key
    assert threading.current_thread() not in shelf.threads
    assert ahead.is_idle
    ahead.close()


def test_what_went_wrong_in_the_thread_is_raised_to_who_asks_and_reading_goes_on():
    ahead = OneAhead(Shelf())
    ahead.expect([-1, 2])
    with pytest.raises(ValueError, match="no -1"):
        ahead(-1)
    assert ahead(2) == 4
    ahead.close()


def test_its_thread_ends_with_it_and_it_can_be_asked_all_the_same():
    shelf = Shelf()
    ahead = OneAhead(shelf)
    ahead.expect([1, 2])
    ahead(1)
    ahead.close()
    assert not any(thread.is_alive() for thread in shelf.threads)
    assert ahead(5) == 10
