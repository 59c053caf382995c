"""What a server needs besides the page: its choices, tidy folders, a borrowed GPU, and the files that describe it."""

import os
import re
import subprocess
import sys
import time
from types import ModuleType

import pytest

pytest.importorskip("gradio")
hosting = pytest.importorskip("demo.hosting")
from demo.sessions import MAX_IDLE_S, Sessions  # noqa: E402


def age(path, seconds):
    past = time.time() - seconds
    os.utime(path, (past, past))


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


@pytest.mark.parametrize(("value", "wanted"), [(None, True), ("1", True), ("0", False), ("False", False), ("", True)])
@pytest.mark.parametrize("name", ["detail", "warm_up"])
def test_detail_and_warm_up_can_be_switched_off(monkeypatch, name, value, wanted):
    variable = f"FACEVERSE_{name.upper()}"
    monkeypatch.delenv(variable, raising=False)
    if value is not None:
        monkeypatch.setenv(variable, value)
    assert getattr(hosting, f"wants_{name}")() is wanted


# --------------------------------------------------------------------------------------------------------------- memory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_memory_of_many_threads_returns():
    code = """
import sys, threading
from demo import hosting
if sys.argv[1] == "limited" and not hosting.limit_arenas():
    raise SystemExit(3)
def work():
    kept = [bytearray(60_000) for _ in range(300)]
threads = []
barrier = threading.Barrier(12)
def both():
    barrier.wait(); work(); barrier.wait()
threads = [threading.Thread(target=both) for _ in range(12)]
[t.start() for t in threads]; [t.join() for t in threads]
names = [line for line in open("/proc/self/maps") if "rw-p" in line and line.split()[4] == "0"]
spans = [[int(v, 16) for v in line.split()[0].split("-")] for line in names]
print(sum(1 for low, high in spans if low % (1 << 26) == 0))
"""
    counts = {}
    for how in ("free", "limited"):
        answer = subprocess.run([sys.executable, "-c", code, how], capture_output=True, text=True, timeout=60)
        if answer.returncode == 3:
            pytest.skip("another C library than glibc")
        counts[how] = int(answer.stdout)
    assert counts["limited"] <= 2 < counts["free"], counts


def test_memory_is_returned_without_a_fault():
    hosting.return_memory()


# ---------------------------------------------------------------------------------------------------------------- files


def test_old_uploads_go_and_so_do_their_folders(tmp_path):
    root = tmp_path / "faceverse"
    for name in ("old", "new", "faceverse"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "photo.jpg").write_bytes(b"x")
    (tmp_path / "emptied").mkdir()
    (tmp_path / "outside.txt").write_bytes(b"x")
    for path in ("old/photo.jpg", "old", "faceverse/photo.jpg", "faceverse", "emptied", "outside.txt"):
        age(tmp_path / path, MAX_IDLE_S + 60)
    hosting.sweep(tmp_path, root)
    assert not (tmp_path / "old" / "photo.jpg").exists() and not (tmp_path / "emptied").exists()
    assert (tmp_path / "new" / "photo.jpg").exists() and (root / "photo.jpg").exists()
    assert (tmp_path / "outside.txt").exists()
    hosting.sweep(tmp_path, root, max_age_s=-1)
    assert not (tmp_path / "old").exists() and not (tmp_path / "new").exists() and root.exists()


def test_a_folder_that_is_not_there_is_no_fault(tmp_path):
    hosting.sweep(tmp_path / "gone", tmp_path / "gone" / "faceverse")


def test_idle_visitors_are_forgotten_while_nobody_comes(tmp_path):
    sessions = Sessions(tmp_path / "faceverse")
    session = sessions.of("somebody")
    session.last_seen_s -= MAX_IDLE_S + 1
    ended = hosting.keep_clean(sessions, tmp_path, every_s=0.05)
    assert wait_for(lambda: not session.folder.exists())
    assert len(sessions) == 0 and session.closed
    ended.set()


def test_the_clean_up_survives_a_failure(tmp_path, monkeypatch, caplog):
    calls = []

    def failing(*arguments):
        calls.append(arguments)
        raise OSError("disk")

    monkeypatch.setattr(hosting, "sweep", failing)
    ended = hosting.keep_clean(Sessions(tmp_path / "faceverse"), tmp_path, every_s=0.01)
    assert wait_for(lambda: len(calls) > 1)
    ended.set()
    assert "the clean-up failed" in caplog.text


# -------------------------------------------------------------------------------------------------------- graphics card


class LoanError(Exception):
    """As the package `spaces` raises them."""

    def __init__(self, title):
        super().__init__(title)
        self.title, self.message = title, "try again later"


@pytest.fixture
def lender(monkeypatch):
    """A stand-in for the package `spaces`: `asked` holds durations, `refusal` is raised instead of running."""
    spaces = ModuleType("spaces")
    spaces.__spec__ = type(sys.__spec__)("spaces", None)
    spaces.asked, spaces.refusal = [], None

    def GPU(task, duration):  # noqa: N802
        spaces.asked.append(duration)

        def lent(*args, **kwargs):
            if spaces.refusal:
                raise spaces.refusal
            return ("gpu", task(*args, **kwargs))

        return lent

    spaces.GPU = GPU
    monkeypatch.setitem(sys.modules, "spaces", spaces)
    return spaces


def double(number):
    """Twice the number."""
    if number < 0:
        raise ValueError("negative")
    return 2 * number


def test_without_the_package_nothing_changes(monkeypatch):
    monkeypatch.setattr(hosting.importlib.util, "find_spec", lambda name: None)
    assert hosting.on_gpu(double, 10) is double


def test_a_gpu_is_borrowed_for_so_long(lender):
    function = hosting.on_gpu(double, 10)
    assert function(4) == ("gpu", 8) and lender.asked == [10]
    assert (function.__name__, function.__doc__) == ("double", "Twice the number.")


@pytest.mark.parametrize("title", ["ZeroGPU quota exceeded", "ZeroGPU client error", "ZeroGPU worker error"])
def test_without_a_loan_it_runs_here(lender, title, caplog):
    lender.refusal = LoanError(title)
    assert hosting.on_gpu(double, 10)(4) == 8
    assert "without a GPU: try again later" in caplog.text


def test_errors_of_the_function_itself_are_its_own(lender):
    with pytest.raises(ValueError, match="negative"):
        hosting.on_gpu(double, 10)(-1)


def test_a_space_finds_its_function(lender):
    name = hosting.declare_gpu()
    assert len(lender.asked) == 1
    lender.refusal = LoanError("ZeroGPU quota exceeded")
    assert isinstance(name(), str)


# ----------------------------------------------------------------------------------------------------- files of hosting


def test_system_libraries_are_the_same_everywhere(root):
    packages = (root / "packages.txt").read_text().split()
    image = (root / "Dockerfile").read_text()
    assert all(re.search(rf"^.*\b{re.escape(name)}\b", image, re.M) for name in packages)
    assert all(name in (root / "docs" / "hosting.md").read_text() for name in packages)


def test_the_image_runs_without_root_and_knows_its_health(root):
    lines = (root / "Dockerfile").read_text().splitlines()
    commands = [line.split()[0] for line in lines if line and not line.startswith((" ", "#"))]
    users = [line.split()[1] for line in lines if line.startswith("USER")]
    assert users and users[-1] != "root" and commands.index("USER") < commands.index("CMD")
    assert "HEALTHCHECK" in commands
    assert not any("curl" in line for line in lines)


def test_every_variable_is_explained(root):
    guide = (root / "docs" / "hosting.md").read_text()
    sources = [*(root / "demo").glob("*.py"), *(root / "faceverse").rglob("*.py")]
    named = {name for path in sources for name in re.findall(r'"(FACEVERSE_[A-Z_]+)"', path.read_text())}
    assert not {name for name in named if name not in guide}
