"""Sessions of the visitors: a folder and a state each, deleted when the tab closes or after an hour without use."""

from __future__ import annotations

import hashlib
import secrets
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from .fit_jobs import FitJob
from .heads import EditableHead, serial_numbers
from .job_queue import QueueEntry
from .session_states import TRANSITIONS, WITHIN_A_JOB, Event, Phase
from .tracking_jobs import Motion, TrackingJob
from .webcam import WebcamStream

MAX_IDLE_S = 3600
MAX_AWAY_S = 600  # between a reload, or Back, and the return of a visitor who wants the head kept


@dataclass
class Session:
    """State of one browser tab, or of one API client.

    Args:
        folder: files of this session; its name cannot be guessed.
        fit_job: the photographs while they are needed, inside that folder.
        phase: what its job is doing; `apply` changes it.
        run_id: number of the running or waiting job, a fit or a video; changes with each that starts or ends.
        progress: of the job, as the 3D view shows it.
        queue_entry: of the job, which gives up its place when another one starts or it ends.
        has_new_photo: the photograph on the page is not, or not yet, that of the head.
        head: the head in the 3D view.
        tracking_job: the video that is or was tracked.
        motion: what animates the head.
        webcam: stream that animates the head live.
        sample_person: `person` of the head if it is of a sample photograph, hence not of the visitor.
        average_person: `person` of the average head, which a motion gets where there is no other head.
        view: latest value of the 3D view.
        language: of the browser, see `words`.
        lock: held while `head` is replaced, so that an edit and the end of a fit do not overwrite each other.
        last_seen_s: time of the latest request, monotonic clock.
        closed: the session has ended; jobs for it may stop.
        token: with which a reloaded page gets this session back, see `Sessions.leave`; empty unless it is to be kept.
    """

    folder: Path
    fit_job: FitJob | None = None
    phase: Phase = Phase.IDLE
    run_id: int = 0
    progress: dict = field(default_factory=dict)
    queue_entry: QueueEntry | None = None
    has_new_photo: bool = False
    head: EditableHead | None = None
    tracking_job: TrackingJob | None = None
    motion: Motion | None = None
    webcam: WebcamStream | None = None
    sample_person: int = 0
    average_person: int = 0
    view: dict = field(default_factory=dict)
    language: str = "en"
    lock: threading.Lock = field(default_factory=threading.Lock)
    last_seen_s: float = field(default_factory=time.monotonic)
    closed: bool = False
    token: str = ""

    @property
    def status(self) -> dict | None:
        """Progress of the job for the 3D view; None without one."""
        return None if self.phase is Phase.IDLE else self.progress

    def may(self, event: Event) -> bool:
        """Whether an event is possible now."""
        return event in TRANSITIONS[self.phase]

    def apply(self, event: Event, **progress) -> int:
        """Change the phase.

        Args:
            event: a possible one.
            progress: of the job from now on; by default it stays.

        Returns:
            The number of the job from now on.
        """
        self.phase = TRANSITIONS[self.phase][event]
        if event not in WITHIN_A_JOB:
            self.run_id, self.progress = next(serial_numbers), {}
            if self.queue_entry is not None:
                self.queue_entry.leave()
        self.progress = self.progress | progress
        return self.run_id


class Sessions:
    """All open sessions, by the session id of Gradio.

    Args:
        root: parent of the sessions' folders. Folders of an earlier process that are older than MAX_IDLE_S are deleted.
    """

    def __init__(self, root: Path):
        self.root = root
        self._secret = secrets.token_bytes(16)
        self._sessions: dict[str, Session] = {}
        self._left: list[Session] = []  # by visitors who may come back
        self._lock = threading.Lock()
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in root.iterdir():
            if folder.stat().st_mtime < time.time() - MAX_IDLE_S:
                shutil.rmtree(folder, ignore_errors=True)

    def of(self, session_id: str) -> Session:
        """The session of an id, with an existing folder; a new one if there is none or it was idle for too long."""
        self.close_idle()
        with self._lock:
            if session_id not in self._sessions:
                name = hashlib.blake2b(session_id.encode(), key=self._secret, digest_size=16).hexdigest()
                self._sessions[session_id] = Session(self.root / name)
            session = self._sessions[session_id]
            session.last_seen_s = time.monotonic()
            session.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            return session

    def close(self, session_id: str | None) -> None:
        """End a session and delete its files; None, for a request without a session, ends none."""
        with self._lock:
            session = None if session_id is None else self._sessions.pop(session_id, None)
        if session is not None:
            self._release(session)

    def leave(self, session_id: str | None) -> None:
        """End the session of a page that was closed or reloaded; one with a token stays for MAX_AWAY_S."""
        with self._lock:
            session = None if session_id is None else self._sessions.get(session_id)
            if session is not None and session.token:
                self._sessions.pop(str(session_id))
                session.last_seen_s = time.monotonic()
                self._left.append(session)
                return
        self.close(session_id)

    def resume(self, token: str, session_id: str) -> Session | None:
        """Give the session of a token to a page, in place of the page's own one; None where there is none any more."""
        self.close_idle()
        with self._lock:
            # The server may learn later than from this request that the earlier page has been left.
            known = {one.token: name for name, one in self._sessions.items() if one.token and name != session_id}
            if token in known:
                self._left.append(self._sessions.pop(known[token]))
            found = next((one for one in self._left if token and one.token == token), None)
            if found is None:
                return None
            self._left.remove(found)
            fresh = self._sessions.pop(session_id, None)
            self._sessions[session_id] = found
            found.last_seen_s = time.monotonic()
        if fresh is not None:
            self._release(fresh)
        return found

    def close_idle(self, max_idle_s: float = MAX_IDLE_S) -> None:
        """End the sessions without a request for `max_idle_s`, and those that were left for good."""
        limit = time.monotonic() - max_idle_s
        limit_left = time.monotonic() - min(max_idle_s, MAX_AWAY_S)
        with self._lock:
            idle = [session_id for session_id, session in self._sessions.items() if session.last_seen_s < limit]
            sessions = [self._sessions.pop(session_id) for session_id in idle]
            sessions += [session for session in self._left if session.last_seen_s < limit_left]
            self._left = [session for session in self._left if session.last_seen_s >= limit_left]
        for session in sessions:
            self._release(session)

    def close_all(self) -> None:
        """End all sessions."""
        self.close_idle(-1)

    def __len__(self) -> int:
        return len(self._sessions)

    @staticmethod
    def _release(session: Session) -> None:
        session.closed = True
        if session.webcam is not None:
            session.webcam.close()
            session.webcam = None
        session.head = session.tracking_job = session.motion = None
        shutil.rmtree(session.folder, ignore_errors=True)
