"""Projection, crops and rotations against oracles."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from faceverse.errors import ParameterError
from faceverse.graphics.camera import (
    DEFAULT_FOCAL_35MM,
    Camera,
    default_camera,
    euler_deg_from_rotation,
    project,
    rotation_from_axis_angle,
    rotation_from_euler_deg,
    skew,
    transform,
)


def random_points(*shape, seed=0):
    return torch.randn(*shape, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_projection_of_a_known_point():
    camera = Camera(1000.0, (320.0, 240.0), (480, 640))
    got = project(torch.tensor([[0.1, 0.06, -0.5], [0.0, 0.0, -2.0]]), camera)
    torch.testing.assert_close(got, torch.tensor([[520.0, 120.0, 0.5], [320.0, 240.0, 2.0]]))


def test_a_frontal_head_shows_its_left_side_on_the_right_of_the_picture_and_its_top_above():
    camera = default_camera((400, 300))
    head = torch.tensor([[0.08, 0.0, 0.0], [-0.08, 0.0, 0.0], [0.0, 0.1, 0.0], [0.0, 0.0, 0.1]])
    left, right, top, nose = project(transform(head, torch.eye(3), torch.tensor([0.0, 0.0, -0.6])), camera)
    assert left[0] > 150 > right[0] and top[1] < 200 and nose[2] < left[2]


def test_projection_equals_a_pinhole_matrix():
    camera = Camera(700.0, (310.0, 255.0), (480, 640))
    points = random_points(4, 20) * 0.1 + torch.tensor([0.0, 0.0, -0.7])
    rows = torch.tensor([[700.0, 0, -310], [0, -700, -255], [0, 0, -1]], dtype=torch.float64)
    homogeneous = points @ rows.T
    expected = homogeneous[..., :2] / homogeneous[..., 2:]
    got = project(points, camera)
    torch.testing.assert_close(got[..., :2], expected)
    torch.testing.assert_close(got[..., 2], -points[..., 2])


def test_projection_stays_finite_at_the_camera_itself():
    assert torch.isfinite(project(torch.tensor([[0.1, 0.2, 0.0]]), default_camera((10, 10)))).all()


def test_a_cropped_camera_crops_the_projection():
    camera = Camera(900.0, (333.0, 222.0), (480, 640))
    points = random_points(30) * 0.1 + torch.tensor([0.0, 0.0, -0.6])
    box = (100.0, 50.0, 300.0, 350.0)
    cropped = camera.cropped(box, (150, 100))
    assert cropped.image_size == (150, 100)
    full, part = project(points, camera), project(points, cropped)
    torch.testing.assert_close(part[:, :2], (full[:, :2] - torch.tensor(box[:2])) * 0.5)
    torch.testing.assert_close(part[:, 2], full[:, 2])
    assert camera.cropped((0, 0, 640, 480), (480, 640)) == camera


def test_default_camera_sees_the_angle_of_its_film_format():
    camera = default_camera((3000, 4000))
    assert camera.principal_point_px == (2000, 1500)
    assert camera.image_size == (3000, 4000)
    half_angle = np.arctan(2000 / camera.focal_px)
    assert np.tan(half_angle) == pytest.approx(18 / DEFAULT_FOCAL_35MM)
    assert default_camera((4000, 3000)).focal_px == camera.focal_px
    assert default_camera((100, 100), focal_px=321).focal_px == 321


@pytest.mark.parametrize("focal_px, size", [(0.0, (9, 9)), (-5.0, (9, 9)), (float("nan"), (9, 9)), (5.0, (0, 9))])
def test_an_impossible_camera_is_refused(focal_px, size):
    with pytest.raises(ParameterError, match="positive focal length"):
        Camera(focal_px, (5.0, 5.0), size)


def test_transform_is_row_vectors_times_the_transposed_rotation():
    rotation = torch.from_numpy(Rotation.random(4, random_state=0).as_matrix())
    translation, points = random_points(4, seed=1), random_points(4, 7, seed=2)
    expected = np.stack(
        [[rotation[n].numpy() @ p + translation[n].numpy() for p in points[n].numpy()] for n in range(4)]
    )
    np.testing.assert_allclose(transform(points, rotation, translation).numpy(), expected)
    torch.testing.assert_close(transform(points[0], rotation[0], translation[0]), torch.from_numpy(expected[0]))


def test_axis_angle_equals_scipy():
    vectors = np.concatenate([np.random.default_rng(0).normal(size=(50, 3)) * 2, 1e-5 * np.eye(3), np.zeros((1, 3))])
    got = rotation_from_axis_angle(torch.from_numpy(vectors)).numpy()
    np.testing.assert_allclose(got, Rotation.from_rotvec(vectors).as_matrix(), atol=1e-12)


def test_axis_angle_is_a_rotation_in_float32_at_every_size():
    for size in (0.0, 1e-6, 1e-4, 1e-3, 0.1, 1.0, 3.1):
        rotation = rotation_from_axis_angle(torch.tensor([0.6, -0.64, 0.48]) * size)
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(3), atol=2e-6, rtol=0)
        assert torch.linalg.det(rotation) == pytest.approx(1, abs=2e-6)


@pytest.mark.parametrize("vector", [(0.0, 0.0, 0.0), (3e-5, -2e-5, 1e-5), (0.3, -0.2, 1.1)])
def test_axis_angle_has_the_right_gradient(vector):
    axis_angle = torch.tensor(vector, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rotation_from_axis_angle, axis_angle, eps=1e-7)


def test_skew_is_the_cross_product():
    a, b = random_points(2, 5, seed=4)
    torch.testing.assert_close((skew(a) @ b.unsqueeze(-1)).squeeze(-1), torch.linalg.cross(a, b))


def test_angles_turn_the_head_the_documented_way():
    nose, left, top = torch.eye(3)[[2, 0, 1]]
    assert (rotation_from_euler_deg(yaw_deg=30) @ nose)[0] == pytest.approx(0.5)
    assert (rotation_from_euler_deg(pitch_deg=30) @ nose)[1] == pytest.approx(0.5)
    assert (rotation_from_euler_deg(roll_deg=30) @ left)[1] == pytest.approx(0.5)
    assert (rotation_from_euler_deg(roll_deg=30) @ top)[0] == pytest.approx(-0.5)
    torch.testing.assert_close(rotation_from_euler_deg(), torch.eye(3))


@pytest.mark.parametrize("angles", [(0, 0, 0), (25, -10, 5), (-70, 40, 170), (89, 5, -5), (10, 120, -95)])
def test_angles_survive_the_round_trip(angles):
    assert euler_deg_from_rotation(rotation_from_euler_deg(*angles)) == pytest.approx(angles, abs=1e-2)


def test_pose_and_projection_have_the_right_gradient():
    camera = Camera(50.0, (5.0, 6.0), (10, 12))
    points = (random_points(4) * 0.1).requires_grad_()
    axis_angle = torch.tensor([0.1, 0.2, -0.1], dtype=torch.float64, requires_grad=True)
    translation = torch.tensor([0.01, -0.02, -0.6], dtype=torch.float64, requires_grad=True)

    def image(points, axis_angle, translation):
        return project(transform(points, rotation_from_axis_angle(axis_angle), translation), camera)

    assert torch.autograd.gradcheck(image, (points, axis_angle, translation))
