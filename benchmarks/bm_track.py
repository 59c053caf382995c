"""Frames per second of tracking, and where the time goes, on a rendered head that turns.

Run: python benchmarks/bm_track.py [--height 720] [--frames 120] [--threads 1]
"""

import argparse
import time
from collections.abc import Iterator

import numpy as np
import torch

import faceverse.tracking as tracking
from faceverse.camera import default_camera, rotation_from_euler_deg
from faceverse.fitting.solver import landmark_model
from faceverse.landmarks import VideoDetector
from faceverse.lighting import default_light, srgb_from_linear
from faceverse.model import FaceModel
from faceverse.render import render_head
from faceverse.tracking.sight import sights_of
from faceverse.tracking.solve import FrameSolver, identify
from faceverse.weights import load_model


def frames(model: FaceModel, count: int, height: int) -> Iterator[np.ndarray]:
    """A head that turns by 25 degrees to each side and talks, in wide pictures (H, W, 3)."""
    person, camera = model.random(0), default_camera((height, height * 16 // 9))
    jaw = model.expression_names.index("jawOpen") if "jawOpen" in model.expression_names else 0
    identity, albedo = (torch.from_numpy(values)[None] for values in (person.identity, person.albedo))
    for i in range(count):
        expression = torch.zeros(1, len(model.expression_names))
        expression[0, jaw] = 0.3 - 0.3 * np.cos(0.5 * i)
        drawn = render_head(
            model.vertices(identity, expression), model.albedo(albedo).clamp(0, 1), model.face_index,
            rotation_from_euler_deg(25 * np.sin(i / 12))[None], torch.tensor([[0.0, 0.0, -0.7]]),
            default_light()[None], camera,
        )  # fmt: skip
        linear = torch.where(drawn.mask[0, ..., None], drawn.rgb[0], torch.tensor(0.4))
        yield (srgb_from_linear(linear) * 255 + 0.5).to(torch.uint8).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--height", type=int, default=720, help="of the 16:9 picture in pixels (default: 720)")
    parser.add_argument("--frames", type=int, default=120, help="length of the sequence (default: 120)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = load_model()
    pictures = list(frames(model, options.frames, options.height))
    height, width = pictures[0].shape[:2]

    tracking.track(pictures[:5], model)
    start = time.perf_counter()
    tracking.track(pictures, model)
    whole = time.perf_counter() - start

    with VideoDetector() as detector:
        start = time.perf_counter()
        sights = list(sights_of(((i / 30, picture) for i, picture in enumerate(pictures)), detector, None, None))
        seeing = time.perf_counter() - start
    camera, landmarks = default_camera((height, width)), landmark_model(model, model.fit_landmarks)
    start = time.perf_counter()
    person = model.neutral().replace(identity=identify(sights[:60], landmarks, camera))
    identifying = time.perf_counter() - start
    solver = FrameSolver(model, landmarks, person, camera)
    start = time.perf_counter()
    for sight in sights:
        solver(sight)
    solving = time.perf_counter() - start

    count = len(pictures)
    print(f"{count} frames of {width} x {height}, torch on {options.threads} thread(s)")
    print(f"end to end                     {count / whole:7.1f} frames/s")
    print(f"detection and face picture     {1e3 * seeing / count:7.1f} ms per frame")
    print(f"pose, weights and light        {1e3 * solving / count:7.1f} ms per frame")
    print(f"identity, once                 {1e3 * identifying:7.1f} ms")


if __name__ == "__main__":
    main()
