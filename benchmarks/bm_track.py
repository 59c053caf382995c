"""Tracking: frames per second and where the time goes, and errors on rendered people whose movements are known.

Run: python benchmarks/bm_track.py [--height 720] [--frames 120] [--people 3] [--threads 1]
"""

import argparse
import time

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from track_scenes import NEUTRAL_S, Scene, pictures, speaking

import faceverse.tracking as tracking
from faceverse.camera import default_camera
from faceverse.fitting.solver import landmark_model
from faceverse.landmarks import VideoDetector
from faceverse.model import FaceModel
from faceverse.tracking.sight import sights_of
from faceverse.tracking.solve import FrameSolver, Reader, identify
from faceverse.weights import load_model

WEIGHTS = ("jawOpen", "eyeBlinkLeft", "eyeBlinkRight", "mouthSmileLeft", "mouthFunnel", "browInnerUp")
JITTER_ROWS = 40  # every so many vertices of the face


def print_times(model: FaceModel, frames: list[np.ndarray]) -> None:
    """Frames per second, and milliseconds of the parts."""
    height, width = frames[0].shape[:2]
    tracking.track(frames[:5], model)
    start = time.perf_counter()
    tracking.track(frames, model)
    whole = time.perf_counter() - start
    with VideoDetector() as detector:
        start = time.perf_counter()
        sights = list(sights_of(((i / 30, picture) for i, picture in enumerate(frames)), detector, None, None))
        seeing = time.perf_counter() - start
    camera, landmarks = default_camera((height, width)), landmark_model(model, model.fit_landmarks)
    reader = Reader(model, camera)
    start = time.perf_counter()
    person = model.neutral().replace(identity=identify(sights[:60], landmarks, camera, reader))
    identifying = time.perf_counter() - start
    solver = FrameSolver(model, landmarks, person, camera, reader)
    start = time.perf_counter()
    for sight in sights:
        solver(sight)
    solving = time.perf_counter() - start
    count = len(frames)
    print(f"{count} frames of {width} x {height}")
    print(f"end to end                     {count / whole:7.1f} frames/s")
    print(f"detection and face picture     {1e3 * seeing / count:7.1f} ms per frame")
    print(f"pose, weights and light        {1e3 * solving / count:7.1f} ms per frame")
    print(f"identity, once                 {1e3 * identifying:7.1f} ms")


def print_errors(scene: Scene, found: tracking.Track) -> None:
    """Rotation, weights, and what is found in a neutral face."""
    error = Rotation.from_matrix(scene.rotation).inv() * Rotation.from_matrix(found.rotation)
    constant = error.mean()
    rms = [np.degrees(np.sqrt((turn.as_rotvec() ** 2).sum(1).mean())) for turn in (error, constant.inv() * error)]
    print(f"  rotation: {rms[0]:.2f} degrees RMS, {rms[1]:.2f} without the part that is the same in all frames")
    for name in WEIGHTS:
        column = scene.model.expression_names.index(name)
        true, weight = scene.expression[:, column], found.expression[:, column]
        alike = np.corrcoef(true, weight)[0, 1]
        print(f"  {name:15s} correlation {alike:.2f}, up to {weight.max():.2f} of {true.max():.2f}")
    neutral = found.expression[scene.times_s < NEUTRAL_S].max(0)
    worst = scene.model.expression_names[neutral.argmax()]
    print(f"  neutral face: largest weight {neutral.max():.2f} ({worst}), {(neutral > 0.05).sum()} above 0.05")


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
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = load_model()
    for seed in range(options.people):
        scene = speaking(model, seed, options.frames)
        frames = list(pictures(scene, options.height))
        if seed == 0:
            print_times(model, frames)
        print(f"person {seed}, turning by 40 degrees, speaking, blinking:")
        print_errors(scene, tracking.track(zip(scene.times_s, frames), model))
    still = speaking(model, options.people, min(options.frames, 60), moving=False)
    frames = list(zip(still.times_s, pictures(still, options.height)))
    raw, smooth = (jitter_px(model, tracking.track(frames, model, smooth=wish)) for wish in (False, True))
    print(f"still head: jitter {raw:.2f} px RMS as found, {smooth:.2f} px smoothed")


if __name__ == "__main__":
    main()
