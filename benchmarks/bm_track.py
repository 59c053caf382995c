"""Tracking: frames per second and where the time goes, and errors on people whose movements are known.

Run: python benchmarks/bm_track.py [--height 720] [--frames 120] [--people 3] [--first 0] [--lens 1]
                                   [--quality fast] [--threads 1]
     python benchmarks/bm_track.py --photograph selfie.jpg
     python benchmarks/bm_track.py --minutes 20
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from track_long import peak_mb, print_long
from track_scenes import NEUTRAL_S, Scene, moved_photograph, pictures, speaking, swaying

import faceverse.tracking as tracking
from faceverse.graphics.camera import default_camera
from faceverse.io.images import read_image
from faceverse.landmarks import VideoDetector
from faceverse.model.face_model import FaceModel
from faceverse.threads import one_thread
from faceverse.tracking.frame_observation import FaceTracker
from faceverse.tracking.frame_solver import QUALITIES, FrameSolver
from faceverse.tracking.person import LandmarkObserver, estimate_person
from faceverse.weights import load_model

WEIGHTS = ("jawOpen", "eyeBlinkLeft", "eyeBlinkRight", "mouthSmileLeft", "mouthFunnel", "browInnerUp")
TIMES = 2  # of the video: so often there and back
JITTER_ROWS = 40  # every so many vertices of the face


def print_times(model: FaceModel, frames: list[np.ndarray]) -> None:
    """Frames per second from file and from memory, milliseconds of the parts, memory."""
    height, width = frames[0].shape[:2]
    tracking.track(frames[:5], model)
    whole = _seconds(lambda: tracking.track(frames, model))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        longer = TIMES * [*frames, *frames[::-1]]
        _write_video(path, longer)
        from_file = len(longer) / _seconds(lambda: tracking.track(path, model))
        memory = peak_mb(path, Path(folder))
    fast = QUALITIES["fast"]
    with VideoDetector() as detector:
        tracker = FaceTracker(detector, fast.picture_px)
        start = time.perf_counter()
        observed_frames = [tracker(i / 30, picture) for i, picture in enumerate(frames)]
        seeing = time.perf_counter() - start
    camera, observer = default_camera((height, width)), LandmarkObserver(model)
    with one_thread():
        start = time.perf_counter()
        person = estimate_person([observed for observed in observed_frames if observed.face is not None], observer, camera, None, lens_known=False)
        meeting = time.perf_counter() - start
        solver = FrameSolver(observer, person, fast)
        solving = _seconds(lambda: [solver(observed) for observed in observed_frames])
    count = len(frames)
    print(f"{count} frames of {width} x {height}")
    print(f"file to weights                {from_file:7.1f} frames/s, a video of {len(longer)} frames")
    print(f"arrays to weights              {count / whole:7.1f} frames/s, {count} frames")
    print(f"  without the person           {count / max(whole - meeting, 1e-6):7.1f} frames/s")
    print(f"detection and face picture     {1e3 * seeing / count:7.1f} ms per frame")
    print(f"pose, weights and light        {1e3 * solving / count:7.1f} ms per frame")
    print(f"the person, once               {1e3 * meeting:7.1f} ms")
    print(f"memory of the command line     {memory:7.0f} MiB at most")


def print_live(scene: Scene, frames: list[np.ndarray]) -> None:
    """From a frame to its answer: how long, and how far behind the truth."""
    waits, found = [], []
    with tracking.LiveTracker(scene.model) as live:
        for seconds, picture in zip(scene.times_s, frames, strict=True):
            start = time.perf_counter()
            found.append(live(picture, float(seconds)))
            waits.append(1e3 * (time.perf_counter() - start))
    median, most = np.percentile(waits, (50, 95))
    print(f"live: frame to answer          {median:7.1f} ms median, {most:.1f} ms for 95 %")
    rotation, jaw = np.stack([one.rotation for one in found]), scene.model.expression_names.index("jawOpen")
    moved = [one.expression[jaw] for one in found]
    print(f"  behind the head              {lag_frames(_yaw_deg(scene.rotation), _yaw_deg(rotation)):7.1f} frames")
    print(f"  behind the jaw               {lag_frames(scene.expression[:, jaw], moved):7.1f} frames")


def lag_frames(true: np.ndarray, found: np.ndarray) -> float:
    """By how many frames a curve comes late, to a tenth: where it follows the truth best."""
    place, lags = np.arange(len(true)), np.arange(-30, 41) / 10
    late = [np.corrcoef(np.interp(place - lag, place, true)[5:-5], found[5:-5])[0, 1] for lag in lags]
    return float(lags[int(np.argmax(late))])


def _yaw_deg(rotation: np.ndarray) -> np.ndarray:
    return np.degrees(np.arctan2(rotation[:, 0, 2], rotation[:, 2, 2]))


def _seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _write_video(path: Path, frames: list[np.ndarray]) -> None:
    import cv2

    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 30, (width, height))
    for frame in frames:
        writer.write(frame[..., ::-1])
    writer.release()


def print_errors(scene: Scene, found: tracking.Track) -> None:
    """Rotation, weights, and what is found in a neutral face."""
    error = Rotation.from_matrix(scene.rotation).inv() * Rotation.from_matrix(found.rotation)
    constant = error.mean()
    rms = [np.degrees(np.sqrt((turn.as_rotvec() ** 2).sum(1).mean())) for turn in (error, constant.inv() * error)]
    print(f"  rotation: {rms[0]:.2f} degrees RMS, {rms[1]:.2f} without the part that is the same in all frames")
    lens = found.camera.focal_px / default_camera(found.camera.image_size).focal_px
    print(f"  focal length: found {lens:.2f} of {scene.lens:.2f} usual ones")
    late = lag_frames(_yaw_deg(scene.rotation), _yaw_deg(found.rotation))
    off, whole = (np.sqrt((e**2).mean()) for e in (found.expression - scene.expression, scene.expression))
    print(f"  late by {late:.1f} frames; all weights: error {off:.3f} RMS, of {whole:.3f}")
    for name in WEIGHTS:
        column = scene.model.expression_names.index(name)
        true, weight = scene.expression[:, column], found.expression[:, column]
        alike = np.corrcoef(true, weight)[0, 1]
        print(f"  {name:15s} correlation {alike:.2f}, up to {weight.max():.2f} of {true.max():.2f}")
    neutral = found.expression[scene.times_s < NEUTRAL_S].max(0)
    worst = scene.model.expression_names[neutral.argmax()]
    print(f"  neutral face: largest weight {neutral.max():.2f} ({worst}), {(neutral > 0.05).sum()} above 0.05")


def print_photograph(model: FaceModel, path: str, count: int, height: int) -> None:
    """A real face whose motion is known: a photograph that is turned, moved and enlarged."""
    moved = swaying(count)
    found = tracking.track(zip(moved.times_s, moved_photograph(read_image(path).rgb, moved, height)), model)
    # What is moved within a picture turns with the line of sight.
    observed = found.translation / np.linalg.norm(found.translation, axis=1, keepdims=True)
    across = np.cross([0, 0, -1], observed)
    length = np.linalg.norm(across, axis=1, keepdims=True)
    facing = Rotation.from_rotvec(across / np.maximum(length, 1e-9) * np.arcsin(length))
    seen = facing.inv() * Rotation.from_matrix(found.rotation)
    turn = (seen * seen[0].inv()).as_rotvec()
    turn_deg = np.degrees(turn - [[0, 0, 1]] * np.radians(moved.roll_deg - moved.roll_deg[0])[:, None])
    nearer = found.translation[0, 2] / found.translation[:, 2] / (moved.zoom / moved.zoom[0])
    spread = found.expression.std(0)
    most = found.expression_names[spread.argmax()]
    print(f"{path}, turned, moved and enlarged in {count} frames:")
    print(f"  frames with a face {100 * (found.confidence > 0).mean():.0f} %, confidence {found.confidence.mean():.2f}")
    pitch, yaw, roll = np.sqrt((turn_deg**2).mean(0))
    lens = found.camera.focal_px / default_camera(found.camera.image_size).focal_px
    print(f"  focal length: {lens:.2f} usual ones")
    print(f"  error of pitch, yaw and roll: {pitch:.2f} {yaw:.2f} {roll:.2f} degrees RMS")
    print(f"  error of the distance: {100 * np.sqrt(((nearer - 1) ** 2).mean()):.1f} % RMS")
    print(f"  weights, which do not change: deviation {spread.mean():.3f}, at most {spread.max():.3f} ({most})")
    for warning in found.warnings:
        print(f"  {warning}")


def jitter_px(model: FaceModel, found: tracking.Track) -> float:
    """RMS movement in pixels of the face of a head that does not move."""
    rows = model.regions["face"][::JITTER_ROWS]
    head = model.vertices(torch.from_numpy(found.identity.identity)[None])[0, rows].numpy()
    place = np.einsum("tij,vj->tvi", found.rotation, head) + found.translation[:, None]
    seen = found.camera.focal_px * place[..., :2] / -place[..., 2:]
    return float(np.sqrt(((seen - seen.mean(0)) ** 2).sum(-1).mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--height", type=int, default=720, help="of the 16:9 picture in pixels (default: 720)")
    parser.add_argument("--frames", type=int, default=120, help="length of each sequence (default: 120)")
    parser.add_argument("--people", type=int, default=3, help="speaking people (default: 3)")
    parser.add_argument("--first", type=int, default=0, help="seed of the first of them (default: 0)")
    text = "focal length of the camera in usual ones, of 40 mm (default: 1)"
    parser.add_argument("--lens", type=float, default=1.0, metavar="X", help=text)
    parser.add_argument("--quality", choices=sorted(QUALITIES), default="fast", help="of the errors (default: fast)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1)")
    text = "only this: a photograph of a face that is turned, moved and enlarged"
    parser.add_argument("--photograph", nargs="+", default=(), metavar="FILE", help=text)
    text = "only this: a video so long on the command line, stopped in the middle and taken up again"
    parser.add_argument("--minutes", type=float, help=text)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = load_model()
    for path in options.photograph:
        print_photograph(model, path, options.frames, options.height)
    if options.photograph:
        return
    if options.minutes:
        print_long(model, options.minutes)
        return
    for seed in range(options.first, options.first + options.people):
        scene = speaking(model, seed, options.frames, lens=options.lens)
        frames = list(pictures(scene, options.height))
        if seed == 0:
            print_times(model, frames)
            print_live(scene, frames)
        print(f"person {seed}, turning by 40 degrees, speaking, blinking:")
        print_errors(scene, tracking.track(zip(scene.times_s, frames), model, quality=options.quality))
    still = speaking(model, options.first + options.people, min(options.frames, 60), moving=False)
    frames = list(zip(still.times_s, pictures(still, options.height)))
    raw, smooth = (jitter_px(model, tracking.track(frames, model, smooth=wish)) for wish in (False, True))
    print(f"still head: jitter {raw:.2f} px RMS as found, {smooth:.2f} px smoothed")


if __name__ == "__main__":
    main()
