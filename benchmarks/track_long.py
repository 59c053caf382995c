"""Long videos on the command line: memory over time, interruption and resumption."""

import itertools
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from track_scenes import FPS, pictures, speaking

import faceverse as fv

LOOP_FRAMES, HEIGHT = 600, 360
EVERY_S = 1.0


def print_long(model: fv.FaceModel, minutes: float) -> None:
    """Track `minutes` of a speaking head, stop once and resume; print the process's memory.

    Needs /proc (Linux).
    """
    with tempfile.TemporaryDirectory() as folder:
        clip, out = Path(folder) / "long.mp4", Path(folder) / "out"
        count = _write(model, clip, minutes)
        print(f"a video of {minutes:g} minutes, {count} frames of {HEIGHT * 16 // 9} x {HEIGHT}:")
        journal = out / "long.fvtrack"
        first, _ = _run(clip, out, lambda: journal.is_file() and len(fv.load_track(journal).times_s) > count / 2)
        partial = fv.load_track(journal)
        print(f"  stopped by Ctrl+C: {len(partial.times_s)} frames can be read, up to {partial.times_s[-1]:.0f} s")
        _print_memory("  before the stop", first)
        second, seconds = _run(clip, out, lambda: False)
        _print_memory("  after resuming", second)
        found = fv.load_track(out / "long.json")
        kept = bool((found.times_s[: len(partial.times_s)] == partial.times_s).all())
        print(f"  resumed up to {len(found.times_s)} frames in {seconds:.0f} s; times of the first part kept: {kept}")
        print(f"  frames with a face: {100 * (found.confidence > 0).mean():.1f} %")


def _write(model: fv.FaceModel, path: Path, minutes: float) -> int:
    """Write a loop of a moving head as often as needed; return the number of frames."""
    loop = path.with_name("loop.mp4")
    scene = speaking(model, 0, LOOP_FRAMES)
    writer = imageio_ffmpeg.write_frames(str(loop), (HEIGHT * 16 // 9, HEIGHT), fps=FPS, macro_block_size=1)
    writer.send(None)
    for picture in pictures(scene, HEIGHT):
        writer.send(np.ascontiguousarray(picture))
    writer.close()
    times = max(round(minutes * 60 * FPS / LOOP_FRAMES), 1)
    program = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-stream_loop", str(times - 1), "-i", str(loop)]
    subprocess.run([*program, "-c", "copy", str(path)], check=True)
    return times * LOOP_FRAMES


def _run(clip: Path, out: Path, stop) -> tuple[list[float], float]:
    """Memory in MiB each second until `stop` returns true or the program ends, and the run time in seconds."""
    program = [sys.executable, "-m", "faceverse", "track", str(clip), "-o", str(out)]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background program would ignore it
    memory, start = [], time.perf_counter()
    with subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        for second in itertools.count():
            if process.poll() is not None:
                break
            memory.append(_resident_mb(process.pid))
            if second % 5 == 0 and stop():
                process.send_signal(signal.SIGINT)
                break
            time.sleep(EVERY_S)
    return memory, time.perf_counter() - start


def peak_mb(clip: Path, out: Path) -> float:
    """Peak memory in MiB of a process that tracks a video. Needs /proc (Linux)."""
    program = [sys.executable, "-m", "faceverse", "track", str(clip), "-o", str(out)]
    peak = 0.0
    with subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, _resident_mb(process.pid, "VmHWM"))
            time.sleep(0.1)
    return peak


def _resident_mb(pid: int, what: str = "VmRSS") -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(what)), 0.0)


def _print_memory(what: str, memory: list[float]) -> None:
    tenths = [f"{part.max():.0f}" for part in np.array_split(np.array(memory), 10) if len(part)]
    print(f"{what}, MiB in each tenth of the time: {' '.join(tenths)}")
