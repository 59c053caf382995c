"""The line of those who wait for a fit: one is served at a time, in the order in which they came.

Whoever has his base head steps aside for those who have none yet, so that nobody waits for the wrinkles of others, or
for their videos.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MAX_WAITING = 30  # each with a thread
LOOK_S = 0.5  # between two looks at the line


class Place:
    """Somebody's place in the line."""

    def __init__(self, line: Line):
        self._line = line
        self.is_aside = False

    @property
    def ahead(self) -> int:
        """How many come before, the one being served included; 0 is one's turn, or that one has left the line."""
        places = self._line.places
        return places.index(self) if self in places else 0

    @property
    def is_waited_for(self) -> bool:
        """Whether somebody waits behind who has not had a turn."""
        return any(not other.is_aside for other in self._line.places[self.ahead + 1 :])

    def wait(self, seconds: float | None = None) -> bool:
        """Waits until it is one's turn, or for so long; whether it is."""
        with self._line.moved:
            return self._line.moved.wait_for(lambda: self.ahead == 0, seconds)

    def step_aside(self, is_wanted: Callable[[], bool] = lambda: True) -> None:
        """Lets all pass who are being waited for, and those who come meanwhile; returns when it is one's turn again.

        Args:
            is_wanted: asked again and again; False ends the waiting.
        """
        line = self._line
        with line.moved:
            if self not in line.places:
                return
            line.places.remove(self)
            self.is_aside = True
            line.places.append(self)
            line.moved.notify_all()
        while is_wanted() and not self.wait(LOOK_S):
            pass


class Line:
    """First come, first served. Who leaves the line, before or after his turn, lets the others move up."""

    def __init__(self):
        self.places: list[Place] = []
        self.moved = threading.Condition()

    @contextmanager
    def place(self, is_aside: bool = False) -> Iterator[Place]:
        """A place behind all who wait for their first turn, until the block is left.

        Args:
            is_aside: lets those pass who come later for a first turn, and stands behind everybody.
        """
        place = Place(self)
        with self.moved:
            place.is_aside = is_aside
            aside = (at for at, other in enumerate(self.places) if at and other.is_aside)  # the first one is served
            end = len(self.places)
            self.places.insert(end if is_aside else next(aside, end), place)
        try:
            yield place
        finally:
            with self.moved:
                self.places.remove(place)
                self.moved.notify_all()
