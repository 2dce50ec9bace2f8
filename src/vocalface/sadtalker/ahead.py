"""Two threads for what comes one after another: while a frame is encoded the next one is drawn."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
LOOK = 0.1  # s between two looks whether anybody still waits for the items


def ahead(items: Iterable[T], waiting: int = 4) -> Iterator[T]:
    """The items in their order, made in a thread of their own while the caller works on earlier ones.

    An error of theirs is raised here, after the items before it. When this generator is closed, so is theirs.

    Args:
        waiting: most items that are ready and not yet taken, so that memory is bounded.
    """
    ready: queue.Queue = queue.Queue(waiting)
    stop = threading.Event()

    def put(kind: str, value) -> None:
        while not stop.is_set():
            try:
                return ready.put((kind, value), timeout=LOOK)
            except queue.Full:
                continue

    def make() -> None:
        try:
            for item in items:
                put("item", item)
                if stop.is_set():
                    break
            put("end", None)
        except BaseException as error:
            put("error", error)
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()

    thread = threading.Thread(target=make, name="drawing", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        stop.set()
        thread.join()
