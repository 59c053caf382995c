"""First-come, first-served queue for fits and videos; one job runs at a time.

A job that has delivered its base head defers its remaining work to jobs that have not had a turn yet, so that no
visitor waits for the detail or the video of another one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MAX_WAITING = 30  # jobs in the queue; each has a thread
POLL_S = 0.5  # interval at which a waiting job checks whether it was cancelled


class QueueEntry:
    """One job in the queue."""

    def __init__(self, queue: JobQueue):
        self._queue = queue
        self.is_deferred = False

    @property
    def ahead(self) -> int:
        """Number of jobs ahead, including the running one; 0 for the running job and for one that left the queue."""
        entries = self._queue.entries
        return entries.index(self) if self in entries else 0

    @property
    def blocks_first_run(self) -> bool:
        """Whether a job behind this one has not had a turn yet."""
        return any(not other.is_deferred for other in self._queue.entries[self.ahead + 1 :])

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for this job's turn.

        Args:
            seconds: timeout; None waits without limit.

        Returns:
            Whether it is this job's turn.
        """
        with self._queue.changed:
            return self._queue.changed.wait_for(lambda: self.ahead == 0, seconds)

    def leave(self) -> None:
        """Leave the queue before the block of `JobQueue.enter` ends: what remains of the job keeps nobody waiting."""
        with self._queue.changed:
            if self in self._queue.entries:
                self._queue.entries.remove(self)
                self._queue.changed.notify_all()

    def defer(self, is_active: Callable[[], bool] = lambda: True) -> None:
        """Move to the end of the queue, behind every job that waits for its first turn; return at the next turn.

        Args:
            is_active: polled every POLL_S; False ends the waiting.
        """
        queue = self._queue
        with queue.changed:
            if self not in queue.entries:
                return
            queue.entries.remove(self)
            self.is_deferred = True
            queue.entries.append(self)
            queue.changed.notify_all()
        while is_active() and not self.wait(POLL_S):
            pass


class JobQueue:
    """The queue; `entries[0]` is the running job. When an entry leaves, before or after its turn, others move up."""

    def __init__(self):
        self.entries: list[QueueEntry] = []
        self.changed = threading.Condition()

    @contextmanager
    def enter(self, is_deferred: bool = False) -> Iterator[QueueEntry]:
        """Context manager: an entry behind all jobs that wait for their first turn, until the block is left.

        Args:
            is_deferred: low priority: enter at the very end, and let later jobs pass that wait for their first turn.
        """
        entry = QueueEntry(self)
        with self.changed:
            entry.is_deferred = is_deferred
            # The running job, at index 0, keeps its place.
            deferred = (index for index, other in enumerate(self.entries) if index and other.is_deferred)
            end = len(self.entries)
            self.entries.insert(end if is_deferred else next(deferred, end), entry)
        try:
            yield entry
        finally:
            entry.leave()
