"""Items made ahead of their use: the same items, the same errors, and no more of them than may wait."""

import threading

import pytest

from vocalface.sadtalker.ahead import ahead


def test_items_arrive_in_order_and_are_made_in_another_thread():
    made_in = set()

    def items():
        for k in range(50):
            made_in.add(threading.get_ident())
            yield k

    assert list(ahead(items())) == list(range(50))
    assert made_in and threading.get_ident() not in made_in
    assert list(ahead([])) == []


def test_an_error_arrives_after_the_items_before_it():
    def items():
        yield 1
        yield 2
        raise ValueError("broken")

    got = []
    with pytest.raises(ValueError, match="broken"):
        for item in ahead(items()):
            got.append(item)
    assert got == [1, 2]


def test_no_more_are_made_than_may_wait():
    made, enough = [], threading.Event()

    def items():
        for k in range(100):
            made.append(k)
            if len(made) == 5:
                enough.set()
            yield k

    taken = ahead(items(), waiting=3)
    assert next(taken) == 0
    assert enough.wait(30)  # one taken, three ready, one in the hand
    assert len(made) == 5
    taken.close()


def test_closing_stops_the_maker_and_cleans_up():
    cleaned = threading.Event()

    def items():
        try:
            while True:
                yield 0
        finally:
            cleaned.set()

    taken = ahead(items())
    next(taken)
    taken.close()
    assert cleaned.is_set()
    assert not [t for t in threading.enumerate() if t.name == "drawing"]
