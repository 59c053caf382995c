"""Who is on the page: a folder and a state for each visitor, both gone when he leaves or stays away for an hour."""

from __future__ import annotations

import hashlib
import secrets
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from .handlers import Job
from .heads import Head
from .live import Camera
from .motions import Motion, Task

MAX_IDLE_S = 3600


@dataclass
class Visit:
    """One visitor.

    Args:
        folder: his files; the name cannot be guessed.
        job: his photographs while they are needed, in that folder.
        run: number of the work that he waits for, a fit or a video; 0 if there is none.
        tracking: number of the last such work that was for a video.
        task: the video that is tracked, or was.
        motion: what moves his head.
        head: what `handlers` remembers of his head.
        camera: of his browser, while it moves the head.
        stranger: number of his head where it is one to try, of nobody who is here.
        stand_in: number of the average head that he has because there was no other.
        view: last value of the 3D view.
        status: how far the fit is that refines the head in it, None where there is none.
        language: of his browser, see `words`.
        changing: held while the head is replaced, so that an edit and the end of a fit do not undo each other.
        last_seen_s: monotonic clock.
        gone: he has left; work for him may stop.
    """

    folder: Path
    job: Job | None = None
    run: int = 0
    head: Head | None = None
    tracking: int = 0
    task: Task | None = None
    motion: Motion | None = None
    camera: Camera | None = None
    stranger: int = 0
    stand_in: int = 0
    view: dict = field(default_factory=dict)
    status: dict | None = None
    language: str = "en"
    changing: threading.Lock = field(default_factory=threading.Lock)
    last_seen_s: float = field(default_factory=time.monotonic)
    gone: bool = False


class Visits:
    """The visitors by session.

    Args:
        root: holds the folders of all visitors. Folders that an earlier run left behind there are deleted.
    """

    def __init__(self, root: Path):
        self.root = root
        self._secret = secrets.token_bytes(16)
        self._visits: dict[str, Visit] = {}
        self._lock = threading.Lock()
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in root.iterdir():
            if folder.stat().st_mtime < time.time() - MAX_IDLE_S:
                shutil.rmtree(folder, ignore_errors=True)

    def of(self, session: str) -> Visit:
        """The visit of a session, with an existing folder; a new one if he was away for too long."""
        self.forget_idle()
        with self._lock:
            if session not in self._visits:
                name = hashlib.blake2b(session.encode(), key=self._secret, digest_size=16).hexdigest()
                self._visits[session] = Visit(self.root / name)
            visit = self._visits[session]
            visit.last_seen_s = time.monotonic()
            visit.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            return visit

    def leave(self, session: str) -> None:
        """Forgets a visitor and deletes his files."""
        with self._lock:
            visit = self._visits.pop(session, None)
        if visit is not None:
            self._end(visit)

    def forget_idle(self, max_idle_s: float = MAX_IDLE_S) -> None:
        """Forgets who has not been seen for so long."""
        limit = time.monotonic() - max_idle_s
        with self._lock:
            idle = [session for session, visit in self._visits.items() if visit.last_seen_s < limit]
            visits = [self._visits.pop(session) for session in idle]
        for visit in visits:
            self._end(visit)

    def close(self) -> None:
        """Forgets everybody."""
        self.forget_idle(-1)

    def __len__(self) -> int:
        return len(self._visits)

    @staticmethod
    def _end(visit: Visit) -> None:
        visit.gone = True
        if visit.camera is not None:
            visit.camera.close()
            visit.camera = None
        visit.head = visit.task = visit.motion = None
        shutil.rmtree(visit.folder, ignore_errors=True)
