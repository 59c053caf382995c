"""How much of the wrinkle-scale shading of a photograph the fitted displacement explains.

The band-passed logarithm of the luminance of forehead and eye corners, at a face of 512 pixels, is regressed on the
change of the normals that the detail causes (three components times 1, x and y, because light varies over the face).
The same with the displacement mirrored is what chance explains.
"""

from dataclasses import replace

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

import faceverse as fv

CROP_PX, CROP_SCALE, CROP_RAISE = 640, 1.25, 0.08  # side; sides of the landmarks' box in it; shift up, in sides
BAND_PX = (1.2, 7.0)  # standard deviations of the Gaussians
OUTLIER = 4.0  # standard deviations of the luminance
LOG_OFFSET = 8.0  # of 255
BROWS, TOP, TEMPLES, EYE_CORNERS = (105, 334), 10, (54, 284), (33, 263)  # MediaPipe's landmarks
EYE_RADIUS, EYE_GAP_PX, FOREHEAD_GAPS_PX = 0.12, 6, (8, 12)


def explained_shading(photo: np.ndarray, result: fv.FitResult) -> tuple[float, float]:
    """R2 of the shading explained by a head's detail, and of that explained by the mirrored detail.

    Args:
        photo: (H, W, 3) uint8 sRGB, that `result` was fitted to.
    """
    change, luminance, zone = normal_change(photo, result)
    return r_squared(change, luminance, zone), r_squared(change[:, ::-1], luminance, zone)


def normal_change(photo: np.ndarray, result: fv.FitResult) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Change of the normals (H, W, 3) by the detail, band-passed luminance (H, W), and the zone (H, W) to compare."""
    crop, camera, landmarks = face_crop(photo, result)
    luminance = band_passed(np.log(crop.astype(float).mean(-1) + LOG_OFFSET))
    detailed, mask = _normals(result, camera)
    smooth = _normals(result.replace(normal_map=None, displacement=None), camera)[0]
    zone = mask & wrinkle_zone(landmarks)
    zone &= np.abs(luminance) < OUTLIER * luminance[zone].std()
    return detailed - smooth, luminance, zone


def face_crop(photo: np.ndarray, result: fv.FitResult) -> tuple[np.ndarray, fv.Camera, np.ndarray]:
    """The face at CROP_PX, its camera, and the landmarks (478, 2) in it."""
    assert result.landmarks_px is not None
    shrink = photo.shape[1] / result.camera.image_size[1]  # huge photographs are read smaller
    landmarks = result.landmarks_px * shrink
    low, high = landmarks.min(0), landmarks.max(0)
    side = float((high - low).max()) * CROP_SCALE
    corner = (low + high) / 2 - side / 2 - (0, CROP_RAISE * side)
    scale = CROP_PX / side
    affine = (1 / scale, 0, corner[0], 0, 1 / scale, corner[1])
    crop = Image.fromarray(photo).transform(
        (CROP_PX, CROP_PX), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC
    )
    camera = result.camera
    centre = (np.array(camera.principal_point_px) * shrink - corner) * scale
    focal_px = camera.focal_px * shrink * scale
    camera = replace(camera, focal_px=focal_px, principal_point_px=tuple(centre), image_size=(CROP_PX, CROP_PX))
    return np.asarray(crop), camera, (landmarks - corner) * scale


def wrinkle_zone(landmarks: np.ndarray) -> np.ndarray:
    """(CROP_PX, CROP_PX) bool: forehead, and around the outer corners of the eyes."""
    y, x = np.mgrid[:CROP_PX, :CROP_PX]
    top, brows = landmarks[TOP, 1] + FOREHEAD_GAPS_PX[0], landmarks[list(BROWS), 1].min() - FOREHEAD_GAPS_PX[1]
    zone = (y < brows) & (y > top) & (x > landmarks[TEMPLES[0], 0]) & (x < landmarks[TEMPLES[1], 0])
    middle = CROP_PX / 2
    for column, row in landmarks[list(EYE_CORNERS)]:
        outside = np.abs(x - middle) > np.abs(column - middle) + EYE_GAP_PX
        zone |= (np.hypot(x - column, y - row) < EYE_RADIUS * CROP_PX) & outside
    return zone


def band_passed(values: np.ndarray) -> np.ndarray:
    """Difference of Gaussians of a map (H, W)."""
    return gaussian_filter(values, BAND_PX[0]) - gaussian_filter(values, BAND_PX[1])


def r_squared(change: np.ndarray, luminance: np.ndarray, zone: np.ndarray) -> float:
    """Share of the variance of the luminance (H, W) in a zone that the normals' change (H, W, 3) explains linearly."""
    row, column = (part / CROP_PX - 0.5 for part in np.nonzero(zone))
    bands = np.stack([band_passed(part)[zone] for part in np.moveaxis(change, 2, 0)], axis=1)
    matrix = np.concatenate([bands * place[:, None] for place in (np.ones_like(row), column, row)], axis=1)
    target = luminance[zone] - luminance[zone].mean()
    matrix = matrix - matrix.mean(0)
    left = target - matrix @ np.linalg.lstsq(matrix, target, rcond=None)[0]
    return float(1 - (left**2).sum() / (target**2).sum())


def _normals(result: fv.FitResult, camera: fv.Camera) -> tuple[np.ndarray, np.ndarray]:
    picture = fv.render(result, mode="normal", camera=camera, supersample=2)
    return picture.rgb.astype(float) / 127.5 - 1, picture.mask
