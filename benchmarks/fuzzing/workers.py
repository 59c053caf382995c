"""Run cases in worker processes with limits of time and memory; the parent survives whatever a case does to its worker.

Workers are forked, so that a new one is ready at once. Linux only: memory is measured in /proc.
"""

from __future__ import annotations

import faulthandler
import gc
import logging
import multiprocessing
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path

import faceverse as fv

from .formats import Format, WrongValueError, case_files
from .pictures import Seed

ACCEPTED, REFUSED = "accepted", "refused"
Job = tuple[str, int, int]
"""Format, seed and index of a case."""

CASES_OF_A_WORKER = 3000
LONGEST_MESSAGE = 1200
_INTERNAL = re.compile(r"Traceback|<class '|<\w+ object|\bat 0x[0-9a-f]{6}|\b(?:faceverse|demo)\.\w+\.\w+")
_NO_MEMORY = re.compile(
    r"bad_alloc|allocate memory|alloc_cpu|Insufficient memory|Unable to allocate|OutOfMemory", re.IGNORECASE
)
_OWN = (str(Path(fv.__file__).resolve().parent), str(Path(fv.__file__).resolve().parents[1] / "demo"))


@dataclass(frozen=True)
class Limits:
    """Of a case.

    Args:
        seconds: after which its worker is killed.
        memory_mb: by which it may increase the resident memory.
        address_mb: by which it may increase the address space; an allocation beyond fails.
    """

    seconds: float = 20.0
    memory_mb: float = 1000.0
    address_mb: int = 4000


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Args:
        kind: accepted or refused; or a failure: "traceback" (an exception that is no FaceVerseError), "value" (a wrong
            result), "message" (an error in other than one clean line), "warning" and "output" (of a third party),
            "memory", "hang" or "crash".
        detail: in one line.
        where: source line of a failure, to tell failures apart.
        seconds, memory_mb: what the case took.
    """

    kind: str
    detail: str = ""
    where: str = ""
    seconds: float = 0.0
    memory_mb: float = 0.0

    @property
    def failed(self) -> bool:
        return self.kind not in (ACCEPTED, REFUSED)


@dataclass
class Tally:
    """Counts of one format; `failures` are (index, outcome)."""

    cases: int = 0
    accepted: int = 0
    refused: int = 0
    failures: list[tuple[int, Outcome]] = field(default_factory=list)
    seconds: float = 0.0
    slowest: tuple[float, int] = (0.0, 0)
    memory: tuple[float, int] = (0.0, 0)

    def add(self, index: int, outcome: Outcome) -> None:
        self.cases += 1
        self.accepted += outcome.kind == ACCEPTED
        self.refused += outcome.kind == REFUSED
        if outcome.failed:
            self.failures.append((index, outcome))
        self.seconds += outcome.seconds
        self.slowest = max(self.slowest, (outcome.seconds, index))
        self.memory = max(self.memory, (outcome.memory_mb, index))


# -- one case ---------------------------------------------------------------------------------------------------------
def write_case(files: Seed, folder: Path) -> Path:
    """Write the files of a case; path of the one to be read."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder / next(iter(files))


def judged(kind: Format, path: Path, is_seed: bool = False) -> Outcome:
    """Read a file in this process, and judge what happens."""
    _LOGGED.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            kind.read(path)
            found = Outcome(ACCEPTED)
        except fv.FaceVerseError as error:
            found = _of_refusal(error, is_seed)
        except WrongValueError as error:
            found = Outcome("value", str(error), str(error))
        except MemoryError as error:
            found = Outcome("memory", str(error) or "MemoryError", _place_of(error))
        except Exception as error:
            found = Outcome("traceback", _one_line(f"{type(error).__name__}: {error}"), _place_of(error))
    foreign = [one for one in caught if not isinstance(getattr(one.message, "args", [None])[0], fv.Message)]
    foreign = [one for one in foreign if not issubclass(one.category, (DeprecationWarning, ResourceWarning))]
    if foreign and not found.failed:
        one = foreign[0]
        place = f"{_short(one.filename)}:{one.lineno}"
        return Outcome("warning", _one_line(f"{one.category.__name__}: {one.message}"), place)
    if _LOGGED and not found.failed:
        record = _LOGGED[0]
        return Outcome("output", _one_line(record.getMessage()), f"{_short(record.pathname)}:{record.lineno}")
    return found


_LOGGED: list[logging.LogRecord] = []


class _Collector(logging.Handler):
    """Keeps what would be printed: the records that no other handler takes."""

    def emit(self, record: logging.LogRecord) -> None:
        _LOGGED.append(record)


def _of_refusal(error: fv.FaceVerseError, is_seed: bool) -> Outcome:
    text, place = str(error), _place_of(error)
    if is_seed:
        return Outcome("value", f"the valid file is refused: {_one_line(text)}", place)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or (cause is not error and _NO_MEMORY.search(str(cause))):
            return Outcome("memory", _one_line(f"{type(cause).__name__}: {cause}"), _place_of(cause))
        cause = cause.__cause__ or cause.__context__
    wrong = (
        "empty" if not text.strip() else
        "several lines" if len(text.splitlines()) != 1 else
        "long" if len(text) > LONGEST_MESSAGE else
        "not printable" if not text.isprintable() else
        "internal words" if _INTERNAL.search(text) else
        "no code" if error.code == "other" and text == "" else ""
    )  # fmt: skip
    if wrong:
        return Outcome("message", _one_line(f"{wrong}: {text}"), place)
    if not error.message.translated("zh").strip():
        return Outcome("message", "no translation", place)
    return Outcome(REFUSED, text, place)


def _place_of(error: BaseException) -> str:
    """The last line of this project in a traceback, and the last line of all if it is elsewhere."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename.startswith(_OWN)]
    chosen = ([own[-1]] if own else []) + ([frames[-1]] if frames and (not own or frames[-1] is not own[-1]) else [])
    return " > ".join(f"{_short(frame.filename)}:{frame.lineno}" for frame in chosen)


def _short(filename: str) -> str:
    return re.split(r"/site-packages/|/(?=faceverse/|demo/|benchmarks/)", filename)[-1]


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))[:300]


# -- workers ----------------------------------------------------------------------------------------------------------
def _memory_mb(entry: str) -> float:
    """An entry of /proc/self/status such as VmRSS."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(entry)) / 1024


def _measured(kind: Format, path: Path, limits: Limits, is_seed: bool) -> Outcome:
    gc.collect(0)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts from the present size
    before, start = _memory_mb("VmRSS"), time.perf_counter()
    found = judged(kind, path, is_seed)
    seconds, memory = time.perf_counter() - start, max(0.0, _memory_mb("VmHWM") - before)
    if memory > limits.memory_mb and not found.failed:
        found = Outcome("memory", f"{memory:.0f} MB for a case that was {found.kind}", found.where or kind.name)
    return replace(found, seconds=seconds, memory_mb=memory)


def _serve(connection: Connection, formats: Mapping[str, Format], seeds: Mapping[str, list[Seed]], limits: Limits,
           folder: Path) -> None:  # fmt: skip
    """Work of a worker process: receives (format, seed, index), sends outcomes."""
    log = open(folder / "log", "ab", buffering=0)
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    faulthandler.enable(log)
    faulthandler.register(signal.SIGUSR1, log, all_threads=False)
    logging.getLogger().addHandler(_Collector(logging.WARNING))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    space = int(_memory_mb("VmSize") + limits.address_mb) << 20
    resource.setrlimit(resource.RLIMIT_AS, (space, space))
    for number in range(CASES_OF_A_WORKER):
        try:
            name, seed, index = connection.recv()
        except EOFError:
            return
        kind, place = formats[name], folder / f"case-{number}"
        path = write_case(case_files(kind, seeds[name], seed, index), place)
        printed = os.fstat(log.fileno()).st_size
        outcome = _measured(kind, path, limits, index < len(seeds[name]))
        sys.stderr.flush()
        text = (folder / "log").read_bytes()[printed:].decode("utf-8", "replace")
        if "Traceback" in text and not outcome.failed:  # lines that libraries in C print cannot be helped
            outcome = replace(outcome, kind="output", detail=_one_line(text), where=_one_line(text.splitlines()[-1]))
        shutil.rmtree(place, ignore_errors=True)
        connection.send((outcome, number + 1 == CASES_OF_A_WORKER))


class _Worker:
    """A worker process, seen from the parent."""

    def __init__(self, formats: Mapping[str, Format], seeds: Mapping[str, list[Seed]], limits: Limits):
        context = multiprocessing.get_context("fork")
        self.folder = Path(tempfile.mkdtemp(prefix="faceverse-fuzz-"))
        self.connection, theirs = context.Pipe()
        arguments = (theirs, formats, seeds, limits, self.folder)
        self._limits, self.job, self._started = limits, None, 0.0
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        self.finished = False

    def give(self, job: Job) -> None:
        self.job, self._started = job, time.monotonic()
        self.connection.send(job)

    def overdue(self) -> bool:
        return self.job is not None and time.monotonic() - self._started > self._limits.seconds

    def answer(self) -> Outcome:
        """The outcome of the present case, once the connection is ready."""
        try:
            outcome, self.finished = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            code, self.finished = self._process.exitcode or 0, True
            name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            return Outcome("crash", self._last_words(name), name + self._stack(), time.monotonic() - self._started)
        return outcome

    def kill(self) -> Outcome:
        """End a worker whose case takes too long."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGUSR1)  # writes its stack to the log
        time.sleep(0.3)
        self._process.kill()
        self._process.join()
        self.finished = True
        text = f"no end after {self._limits.seconds:g} s"
        return Outcome("hang", self._last_words(text), self._stack() or text, time.monotonic() - self._started)

    def _stack(self) -> str:
        lines = (self.folder / "log").read_text("utf-8", "replace").splitlines()
        frames = [found for line in lines if (found := re.search(r'File "(.*)", line (\d+) in', line))]
        return " > ".join(f"{_short(found[1])}:{found[2]}" for found in frames[:2])

    def _last_words(self, text: str) -> str:
        lines = (self.folder / "log").read_text("utf-8", "replace").splitlines()
        return _one_line(f"{text}; {self._stack()}; {' '.join(lines[-1:])}")

    def close(self) -> None:
        self.connection.close()
        self._process.kill()
        self._process.join()
        shutil.rmtree(self.folder, ignore_errors=True)


# -- a run ------------------------------------------------------------------------------------------------------------
def run(formats: Mapping[str, Format], seeds: Mapping[str, list[Seed]], seed: int, limits: Limits, *,
        cases: int | None = None, seconds: float = 60.0, workers: int = 1) -> dict[str, Tally]:  # fmt: skip
    """Run cases of all formats, and count what becomes of them.

    Args:
        formats, seeds: by name.
        seed: of all cases; with the format's name and a case's index it determines its bytes.
        limits: of each case.
        cases: of each format; None runs as many as `seconds` allow, with an equal share of time for each format.
        workers: processes at a time.
    """
    tallies = {name: Tally() for name in formats}
    jobs = next_jobs(tallies, seed, cases, seconds)
    pool = [_Worker(formats, seeds, limits) for _ in range(workers)]
    try:
        busy = [worker for worker in pool if _next(worker, jobs)]
        while busy:
            ready = wait([worker.connection for worker in busy], timeout=0.2)
            for place, worker in enumerate(busy):
                if worker.connection in ready:
                    outcome = worker.answer()
                elif worker.overdue():
                    outcome = worker.kill()
                else:
                    continue
                name, _, index = worker.job
                tallies[name].add(index, outcome)
                if worker.finished:
                    worker.close()
                    pool[pool.index(worker)] = busy[place] = _Worker(formats, seeds, limits)
                busy[place].job = None
            busy = [worker for worker in busy if worker.job is not None or _next(worker, jobs)]
    finally:
        for worker in pool:
            worker.close()
    return tallies


def _next(worker: _Worker, jobs: Iterator[Job]) -> bool:
    job = next(jobs, None)
    if job is not None:
        worker.give(job)
    return job is not None


def next_jobs(tallies: Mapping[str, Tally], seed: int, cases: int | None, seconds: float) -> Iterator[Job]:
    """The cases to run: `cases` of each format in turn; or, for `seconds`, of the format that has taken least time."""
    if cases is not None:
        yield from ((name, seed, index) for index in range(cases) for name in tallies)
        return
    end, given = time.monotonic() + seconds, dict.fromkeys(tallies, 0)
    while time.monotonic() < end:
        name = min(tallies, key=lambda one: (tallies[one].seconds, given[one]))
        yield name, seed, given[name]
        given[name] += 1
