"""Tracking: frames per second by stage, and errors on people with known motion.

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
REPEATS = 2  # of the sequence in the video, each time forwards and backwards
JITTER_STRIDE = 40  # of the face's vertices


def print_times(model: FaceModel, frames: list[np.ndarray]) -> None:
    """Print frames per second from a file and from memory, milliseconds by stage, and memory."""
    height, width = frames[0].shape[:2]
    tracking.track(frames[:5], model)
    whole = _seconds(lambda: tracking.track(frames, model))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        longer = REPEATS * [*frames, *frames[::-1]]
        _write_video(path, longer)
        from_file = len(longer) / _seconds(lambda: tracking.track(path, model))
        memory = peak_mb(path, Path(folder))
    fast = QUALITIES["fast"]
    with VideoDetector() as detector:
        tracker = FaceTracker(detector, fast.picture_px)
        start = time.perf_counter()
        observations = [tracker(i / 30, picture) for i, picture in enumerate(frames)]
        observing = time.perf_counter() - start
    camera, observer = default_camera((height, width)), LandmarkObserver(model)
    with one_thread():
        start = time.perf_counter()
        with_face = [frame for frame in observations if frame.face is not None]
        person = estimate_person(with_face, observer, camera, None, focal_known=False)
        estimating = time.perf_counter() - start
        solver = FrameSolver(observer, person, fast)
        solving = _seconds(lambda: [solver(frame) for frame in observations])
    count = len(frames)
    print(f"{count} frames of {width} x {height}")
    print(f"file to weights                {from_file:7.1f} frames/s, a video of {len(longer)} frames")
    print(f"arrays to weights              {count / whole:7.1f} frames/s, {count} frames")
    print(f"  without that of the person   {count / max(whole - estimating, 1e-6):7.1f} frames/s")
    print(f"detection and face crop        {1e3 * observing / count:7.1f} ms per frame")
    print(f"pose, weights and light        {1e3 * solving / count:7.1f} ms per frame")
    print(f"estimate of the person, once   {1e3 * estimating:7.1f} ms")
    print(f"peak memory, command line      {memory:7.0f} MiB")


def print_live(scene: Scene, frames: list[np.ndarray]) -> None:
    """Print the latency of live tracking, and the lag behind the true motion."""
    waits, tracked = [], []
    with tracking.LiveTracker(scene.model) as live:
        for seconds, picture in zip(scene.times_s, frames, strict=True):
            start = time.perf_counter()
            tracked.append(live(picture, float(seconds)))
            waits.append(1e3 * (time.perf_counter() - start))
    median, most = np.percentile(waits, (50, 95))
    print(f"live: latency of a frame       {median:7.1f} ms median, {most:.1f} ms for 95 %")
    rotation, jaw = np.stack([one.rotation for one in tracked]), scene.model.expression_names.index("jawOpen")
    moved = [one.expression[jaw] for one in tracked]
    print(f"  lag of the head              {lag_frames(_yaw_deg(scene.rotation), _yaw_deg(rotation)):7.1f} frames")
    print(f"  lag of the jaw               {lag_frames(scene.expression[:, jaw], moved):7.1f} frames")


def lag_frames(true: np.ndarray, estimate: np.ndarray) -> float:
    """Lag of a curve in frames, to a tenth: the shift of largest correlation with the truth."""
    place, lags = np.arange(len(true)), np.arange(-30, 41) / 10
    late = [np.corrcoef(np.interp(place - lag, place, true)[5:-5], estimate[5:-5])[0, 1] for lag in lags]
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


def print_errors(scene: Scene, track: tracking.Track) -> None:
    """Print errors of rotation, focal length and weights, and the weights of the neutral frames."""
    error = Rotation.from_matrix(scene.rotation).inv() * Rotation.from_matrix(track.rotation)
    constant = error.mean()
    rms = [np.degrees(np.sqrt((turn.as_rotvec() ** 2).sum(1).mean())) for turn in (error, constant.inv() * error)]
    print(f"  rotation: {rms[0]:.2f} degrees RMS, {rms[1]:.2f} without the constant part")
    lens = track.camera.focal_px / default_camera(track.camera.image_size).focal_px
    print(f"  focal length: {lens:.2f}, truth {scene.lens:.2f}, in units of the default one")
    late = lag_frames(_yaw_deg(scene.rotation), _yaw_deg(track.rotation))
    off, whole = (np.sqrt((e**2).mean()) for e in (track.expression - scene.expression, scene.expression))
    print(f"  lag {late:.1f} frames; all weights: error {off:.3f} RMS, of {whole:.3f}")
    for name in WEIGHTS:
        column = scene.model.expression_names.index(name)
        true, weight = scene.expression[:, column], track.expression[:, column]
        correlation = np.corrcoef(true, weight)[0, 1]
        print(f"  {name:15s} correlation {correlation:.2f}, up to {weight.max():.2f} of {true.max():.2f}")
    neutral = track.expression[scene.times_s < NEUTRAL_S].max(0)
    worst = scene.model.expression_names[neutral.argmax()]
    print(f"  neutral frames: largest weight {neutral.max():.2f} ({worst}), {(neutral > 0.05).sum()} above 0.05")


def print_photograph(model: FaceModel, path: str, count: int, height: int) -> None:
    """Print errors on a real face with known motion: a photograph that is rotated, shifted and scaled."""
    moved = swaying(count)
    track = tracking.track(zip(moved.times_s, moved_photograph(read_image(path).rgb, moved, height)), model)
    # A face shifted within the picture rotates with the line of sight.
    sight = track.translation / np.linalg.norm(track.translation, axis=1, keepdims=True)
    across = np.cross([0, 0, -1], sight)
    length = np.linalg.norm(across, axis=1, keepdims=True)
    facing = Rotation.from_rotvec(across / np.maximum(length, 1e-9) * np.arcsin(length))
    relative = facing.inv() * Rotation.from_matrix(track.rotation)
    turn = (relative * relative[0].inv()).as_rotvec()
    turn_deg = np.degrees(turn - [[0, 0, 1]] * np.radians(moved.roll_deg - moved.roll_deg[0])[:, None])
    nearer = track.translation[0, 2] / track.translation[:, 2] / (moved.zoom / moved.zoom[0])
    spread = track.expression.std(0)
    most = track.expression_names[spread.argmax()]
    print(f"{path}, rotated, shifted and scaled in {count} frames:")
    print(f"  frames with a face {100 * (track.confidence > 0).mean():.0f} %, confidence {track.confidence.mean():.2f}")
    pitch, yaw, roll = np.sqrt((turn_deg**2).mean(0))
    lens = track.camera.focal_px / default_camera(track.camera.image_size).focal_px
    print(f"  focal length: {lens:.2f} of the default one")
    print(f"  error of pitch, yaw and roll: {pitch:.2f} {yaw:.2f} {roll:.2f} degrees RMS")
    print(f"  error of the distance: {100 * np.sqrt(((nearer - 1) ** 2).mean()):.1f} % RMS")
    print(f"  weights (truth: constant): standard deviation {spread.mean():.3f}, at most {spread.max():.3f} ({most})")
    for warning in track.warnings:
        print(f"  {warning}")


def jitter_px(model: FaceModel, track: tracking.Track) -> float:
    """RMS movement in pixels of the face of a still head."""
    rows = model.regions["face"][::JITTER_STRIDE]
    head = model.vertices(torch.from_numpy(track.identity.identity)[None])[0, rows].numpy()
    place = np.einsum("tij,vj->tvi", track.rotation, head) + track.translation[:, None]
    pixels = track.camera.focal_px * place[..., :2] / -place[..., 2:]
    return float(np.sqrt(((pixels - pixels.mean(0)) ** 2).sum(-1).mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--height", type=int, default=720, help="of the 16:9 picture in pixels (default: 720)")
    parser.add_argument("--frames", type=int, default=120, help="length of each sequence (default: 120)")
    parser.add_argument("--people", type=int, default=3, help="speaking people (default: 3)")
    parser.add_argument("--first", type=int, default=0, help="seed of the first of them (default: 0)")
    text = "focal length of the camera in units of the default one, 40 mm (default: 1)"
    parser.add_argument("--lens", type=float, default=1.0, metavar="X", help=text)
    parser.add_argument("--quality", choices=sorted(QUALITIES), default="fast", help="of the errors (default: fast)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1)")
    text = "only this: a photograph of a face that is rotated, shifted and scaled"
    parser.add_argument("--photograph", nargs="+", default=(), metavar="FILE", help=text)
    text = "only this: a video of this length on the command line, stopped and resumed"
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
    raw, smooth = (jitter_px(model, tracking.track(frames, model, smooth=option)) for option in (False, True))
    print(f"still head: jitter {raw:.2f} px RMS unsmoothed, {smooth:.2f} px smoothed")


if __name__ == "__main__":
    main()
