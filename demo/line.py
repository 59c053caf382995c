"""The line of those who wait for a fit: one is served at a time, in the order in which they came."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

MAX_WAITING = 30  # each with a thread


class Place:
    """Somebody's place in the line."""

    def __init__(self, line: Line):
        self._line = line

    @property
    def ahead(self) -> int:
        """How many come before, the one being served included; 0 is one's turn."""
        return self._line.places.index(self)

    def wait(self, seconds: float | None = None) -> bool:
        """Waits until it is one's turn, or for so long; whether it is."""
        with self._line.moved:
            return self._line.moved.wait_for(lambda: self.ahead == 0, seconds)


class Line:
    """First come, first served. Who leaves the line, before or after his turn, lets the others move up."""

    def __init__(self):
        self.places: list[Place] = []
        self.moved = threading.Condition()

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A place at the end of the line, until the block is left."""
        place = Place(self)
        with self.moved:
            self.places.append(place)
        try:
            yield place
        finally:
            with self.moved:
                self.places.remove(place)
                self.moved.notify_all()
