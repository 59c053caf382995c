"""Face models that are not the open one: fewer landmarks, components without names, other limits, only a mask.

They are made from the toy head. Detectors are played by the toy's own landmarks, so that the truth is known.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import faceverse as fv
from faceverse import fitting, tracking
from faceverse.fitting import photometric, prior, solver, surface
from faceverse.fitting.state import FaceState
from faceverse.graphics.camera import default_camera, project, rotation_from_euler_deg, transform
from faceverse.graphics.lighting import default_light, srgb_from_linear
from faceverse.landmarks import DetectedFace
from faceverse.model.data import Landmarks, on_coarse_mesh
from faceverse.model.face_model import FaceModel
from faceverse.rendering.render import render_head
from faceverse.tracking.smoothing import smooth_values

SIZE = 224
EYE_NAMES = ("eyeballLeftPitch", "eyeballLeftYaw", "eyeballRightPitch", "eyeballRightYaw")
BARE = {
    "landmarks_478": None, "regions": {}, "attributes": (), "population": None, "expression_gain": None,
    "coarse_vertices": None, "coarse_faces": None, "coarse_uv_faces": None,
}  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- models


def unnamed_model(toy):
    """Like the official versions 0 and 1: 68 points, 20 components of unit variance, nothing else."""
    count = 20
    return FaceModel(
        replace(
            toy.data,
            **BARE,
            landmarks_68=replace(toy.data.landmarks_68, sigma=np.full(68, 0.001, np.float32)),
            expression_modes=0.3 * toy.data.expression_modes[16:][:count],
            expression_names=tuple(f"expression_{k:02d}" for k in range(count)),
            expression_limits=np.tile(np.float32([-3, 3]), (count, 1)),
            named_expressions=False,
            name="FaceVerse version 1",
        )
    )


def eyed_model(toy):
    """Like the official version 3: ARKit's names, and four angles that turn the eyeballs."""
    data, turned = toy.data, []
    for side in (1, -1):
        ball = data.regions["eyeballs"][side * data.mean_vertices[data.regions["eyeballs"], 0] > 0]
        from_centre = data.mean_vertices[ball] - data.mean_vertices[ball].mean(0)
        for axis in ((1, 0, 0), (0, 1, 0)):
            mode = np.zeros_like(data.mean_vertices)
            mode[ball] = np.cross(axis, from_centre)
            turned.append(mode)
    limits = np.concatenate([np.tile([0, 1], (52, 1)), np.tile([-0.6, 0.6], (4, 1))]).astype(np.float32)
    return FaceModel(
        replace(
            data,
            expression_modes=np.concatenate([data.expression_modes, turned]).astype(np.float32),
            expression_names=(*data.expression_names, *EYE_NAMES),
            expression_limits=limits,
            expression_gain=None,
            name="FaceVerse version 3",
        )
    )


def mask_model(toy):
    """The front of the toy alone, without eyeballs, mouth and the back of the head; components without names."""
    model = unnamed_model(toy)
    outside = np.zeros(len(toy.mean_vertices), bool)
    for name in ("eyeballs", "teeth", "tongue", "mouth_inside"):
        outside[toy.regions[name]] = True
    corners = toy.mean_vertices[toy.faces]
    kept = ~outside[toy.faces].any(1) & (corners[..., 2].min(1) > 0.02) & (corners[..., 1].min(1) > -0.09)
    vertices, faces = np.unique(toy.faces[kept], return_inverse=True)
    part = {"coarse_vertices": vertices, "coarse_faces": faces.reshape(-1, 3), "coarse_uv_faces": toy.uv_faces[kept]}
    return FaceModel(replace(on_coarse_mesh(replace(model.data, **part)), name="FaceVerse version 0"))


def few_model(toy):
    """The toy with its 68 landmarks only."""
    return FaceModel(replace(toy.data, landmarks_478=None))


MODELS = {"few": few_model, "unnamed": unnamed_model, "eyed": eyed_model, "mask": mask_model}


@pytest.fixture(scope="module", params=MODELS)
def other(request, toy_model):
    return MODELS[request.param](toy_model)


@pytest.fixture(scope="module")
def unnamed(toy_model):
    return unnamed_model(toy_model)


@pytest.fixture(scope="module")
def eyed(toy_model):
    return eyed_model(toy_model)


# --------------------------------------------------------------------------------------------------------------- truth


class Scene:
    """A head of a model in a picture, and what a perfect detector would say about it."""

    def __init__(self, model, toy, seed=0, yaw=12.0):
        rng = np.random.default_rng(seed)
        low, high = model.expression_limits.T
        self.identity = 0.5 * rng.standard_normal(len(model.identity_modes)).astype(np.float32)
        self.expression = np.zeros(len(low), np.float32)
        few = rng.choice(len(low), 5, replace=False)
        self.expression[few] = (rng.uniform(0.2, 0.4, 5) * np.where(low < 0, high, 1)[few]).astype(np.float32)
        self.rotation = rotation_from_euler_deg(yaw, -5, 3)
        self.translation = torch.tensor([0.01, 0.0, -0.7])
        self.camera = default_camera((SIZE, SIZE))
        identity, expression = (torch.from_numpy(x)[None] for x in (self.identity, self.expression))
        drawn = render_head(
            model.vertices(identity, expression), model.tensor("mean_albedo")[None], model.tensor("faces"),
            self.rotation[None],
            self.translation[None], default_light()[None], self.camera,
        )  # fmt: skip
        picture = torch.where(drawn.mask[0, ..., None], srgb_from_linear(drawn.rgb[0]), torch.tensor(0.6))
        self.picture = (picture * 255 + 0.5).to(torch.uint8).numpy()
        points = model.landmark_bases(model.fit_landmarks).points(identity, expression)[0]
        known = self._pixels(points)
        # The points that the model does not know lie somewhere on the toy's face.
        landmarks = self._pixels(toy.landmark_bases(toy.landmarks_478).points(torch.zeros(1, 8))[0])
        landmarks[slice(None) if model.fit_landmarks.detected is None else model.fit_landmarks.detected] = known
        scores = {name: 0.0 for name in fv.landmarks.BLENDSHAPE_NAMES}
        scores |= {n: float(w) for n, w in zip(model.expression_names, self.expression) if n in scores}
        box = np.concatenate([landmarks.min(0), landmarks.max(0)])
        self.face = DetectedFace(box, landmarks, np.zeros(478, np.float32), scores, self.rotation.numpy())

    def _pixels(self, points):
        return project(transform(points, self.rotation, self.translation), self.camera)[:, :2].numpy()

    def solve(self, model, **options):
        lm = solver.landmark_model(model, model.fit_landmarks)
        expected = lm.prior.mean(self.face.blendshapes)
        observed_px = lm.select(self.face.landmarks_px)
        return lm, solver.solve_landmarks(lm, observed_px, self.camera, expected, **options).state


def degrees_between(a, b):
    return np.degrees(np.arccos(np.clip((np.trace(np.asarray(a).T @ np.asarray(b)) - 1) / 2, -1, 1)))


@pytest.fixture(scope="module")
def fitted(other, toy_model):
    """A whole fit of a scene, with the detector's part played."""
    scene = Scene(other, toy_model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "detect_faces", lambda rgb: [scene.face])
        return scene, fv.fit(scene.picture, other)


# ---------------------------------------------------------------------------------------------------------- landmarks


def test_known_points_are_picked_from_the_detectors(toy_model, unnamed):
    found = np.arange(2 * 478).reshape(478, 2)
    known = solver.landmark_model(unnamed, unnamed.fit_landmarks)
    np.testing.assert_array_equal(known.select(found), found[np.array(fv.landmarks.LANDMARKS_68_FROM_478)])
    assert solver.landmark_model(toy_model, toy_model.fit_landmarks).select(found) is found


def test_few_points_count_as_no_more_than_they_are(toy_model):
    """What 68 points weigh together grows with their number until they repeat each other."""

    def total(count):
        all_points = toy_model.landmarks_478
        some = np.linspace(0, 477, count).astype(int)
        picked = Landmarks(all_points.triangle[some], all_points.barycentric[some], all_points.sigma[some], None, some)
        lm = solver.landmark_model(toy_model, picked)
        return (solver.point_weights(replace(lm, normals=lm.normals * 0 + (0, 0, 1)), np.eye(3), 0.7, 900) ** 2).mean()

    assert total(34) == pytest.approx(total(68))
    assert total(68) > 1.5 * total(478)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_heads_are_found_again_from_68_points_without_names(unnamed, toy_model, seed):
    scene = Scene(unnamed, toy_model, seed)
    lm, found = scene.solve(unnamed, iterations=30)
    again = solver.project_points(
        lm.points(found.identity, found.expression), found.rotation, found.translation, scene.camera
    )
    eyes = np.linalg.norm(scene.face.landmarks_px[33] - scene.face.landmarks_px[263])
    assert np.linalg.norm(again - lm.select(scene.face.landmarks_px), axis=1).mean() < 0.02 * eyes
    assert degrees_between(found.rotation, scene.rotation) < 4
    assert shape_error(unnamed, scene, found) < 0.6 * shape_error(unnamed, scene, None)


def shape_error(model, scene, found):
    """Deviation of the vertices that were looked at, after the best similarity transform; None: of the mean head."""
    truth = model.vertices(*(torch.from_numpy(x)[None] for x in (scene.identity, scene.expression)))[0].numpy()
    if found is None:
        fitted = model.mean_vertices
    else:
        rows = (torch.from_numpy(x[None]).float() for x in (found.identity, found.expression))
        fitted = model.vertices(*rows)[0].numpy()
    seen = np.unique(model.faces[model.fit_landmarks.triangle])
    a, b = (v[seen] - v[seen].mean(0) for v in (fitted, truth))
    u, s, vt = np.linalg.svd(b.T @ a)
    moved = a @ (u @ vt).T * (s.sum() / (a**2).sum())
    return np.linalg.norm(moved - b, axis=1).mean()


def test_eyeballs_turn_towards_the_iris_points(eyed, toy_model):
    scene = Scene(eyed, toy_model)
    yaw = [eyed.expression_names.index(name) for name in ("eyeballLeftYaw", "eyeballRightYaw")]
    looks = {}
    for angle in (-0.4, 0.0, 0.4):
        weights = torch.zeros(1, len(eyed.expression_names))
        weights[0, yaw] = angle
        points = eyed.landmark_bases(eyed.landmarks_478).points(torch.zeros(1, 8), weights)[0]
        lm = solver.landmark_model(eyed, eyed.fit_landmarks)
        found = solver.solve_landmarks(lm, scene._pixels(points), scene.camera, lm.prior.mean({}), iterations=20)
        looks[angle] = found.state.expression[yaw].mean()
    assert looks[-0.4] < -0.08 < abs(looks[0.0]) < 0.08 < looks[0.4]


# ------------------------------------------------------------------------------------------- expectations and limits


def test_scores_are_expected_only_of_named_blendshapes(eyed, unnamed):
    scores = {"jawOpen": 0.7, "mouthSmileLeft": 1.4, "eyeballLeftYaw": 0.5, "expression_03": 0.5}
    named, names = prior.expression_prior(eyed), eyed.expression_names
    mean = dict(zip(names, named.mean(scores)))
    assert (mean["jawOpen"], mean["mouthSmileLeft"], mean["browInnerUp"], mean["eyeballLeftYaw"]) == (0.7, 1, 0, 0)
    sigma = dict(zip(names, named.sigma))
    assert sigma["jawOpen"] == prior.RELIABLE_SIGMA["jawOpen"] and sigma["eyeLookInLeft"] == prior.GAZE_SIGMA
    assert sigma["mouthSmileLeft"] == prior.BLENDSHAPE_SIGMA
    assert sigma["eyeballLeftYaw"] == pytest.approx(0.2)
    free = prior.expression_prior(unnamed)
    assert not free.scored.any() and not free.mean(scores).any()
    np.testing.assert_allclose(free.sigma, 1)
    assert (free.refined_sigma < free.sigma).all() and (named.refined_sigma < named.sigma + 0.041).all()


def test_weights_never_leave_their_limits(other, toy_model):
    scene = Scene(other, toy_model, seed=4)
    rng = np.random.default_rng(0)
    noisy = replace(scene.face, landmarks_px=scene.face.landmarks_px + rng.normal(0, 12, (478, 2)))
    scene.face = noisy
    _, found = scene.solve(other)
    low, high = other.expression_limits.T
    assert (found.expression >= low).all() and (found.expression <= high).all()
    if low.min() < 0:
        assert found.expression.min() < 0


def test_smoothing_keeps_the_limits(unnamed):
    times = np.arange(12) / 30
    limits = unnamed.expression_limits
    values = np.tile(limits[:, 1].astype(np.float64), (12, 1))
    values[5:] = limits[:, 0]
    smooth = smooth_values(values, times, 1.0, 8.0)
    assert smooth.min() >= -3 - 1e-9 and smooth.max() <= 3 + 1e-9


def test_photometric_stage_moves_unnamed_components_within_limits(unnamed, toy_model):
    scene = Scene(unnamed, toy_model)
    target, state = photometric_target(unnamed, scene)
    start = replace(state, expression=np.full_like(state.expression, 2.95))
    target = replace(target, expression=start.expression)
    prior_of_all = prior.IdentityPrior.of_population(len(state.identity))
    # The toy shows a few hundred vertices; the rest are the stage's own settings.
    settings = replace(photometric.STAGES[0], effective_samples=200.0)
    problem = photometric.Refinement(surface.surface_samples(unnamed), [target], settings, prior_of_all)
    outcome = photometric.refine(problem, [start])
    (found,) = outcome.states
    assert outcome.after < outcome.before
    assert np.abs(found.expression).max() <= 3
    assert (found.expression == 3).any() and np.abs(found.expression - 2.95).max() > 0.05


def photometric_target(model, scene):
    """The scene as the photometric stage sees it, and its true state."""
    state = FaceState(
        identity=scene.identity.astype(np.float64),
        expression=scene.expression.astype(np.float64),
        albedo=np.zeros(len(model.albedo_modes)),
        rotation=scene.rotation.double().numpy(),
        translation=scene.translation.double().numpy(),
        light=default_light().double().numpy(),
    )
    lm = solver.landmark_model(model, model.fit_landmarks)
    found = lm.select(scene.face.landmarks_px).astype(np.float64)
    weight, no_error_modes = np.full(len(found), 0.3), np.zeros((2 * len(found), 0))
    term = solver.LandmarkTerm(lm, found, scene.camera, weight, no_error_modes)
    picture = scene.picture / np.float32(255)
    inside = np.ones((SIZE, SIZE), bool)
    return photometric.PhotometricTarget(picture, inside, scene.camera, term, state.expression), state


def test_samples_of_a_fine_mesh_give_the_albedo_of_all(toy_model, monkeypatch):
    target, state = photometric_target(toy_model, Scene(toy_model, toy_model))
    start = replace(state, albedo=np.ones_like(state.albedo), light=1.5 * state.light)
    every = photometric.estimate_light_and_albedo(surface.surface_samples(toy_model), start, target)
    monkeypatch.setattr(surface, "MAX_SAMPLES", 250)
    fewer = surface.surface_samples(FaceModel(toy_model.data))
    assert len(fewer.weights) <= 250
    some = photometric.estimate_light_and_albedo(fewer, start, target)
    assert not np.array_equal(some.albedo, every.albedo)
    shown = [toy_model.albedo(s.tensor("albedo")) * float(s.light[0].mean()) for s in (every, some)]
    assert float((shown[1] - shown[0]).abs().mean()) < 0.05 * float(shown[0].mean())


# ----------------------------------------------------------------------------------------------------------- whole fit


def test_fit_explains_the_picture(fitted):
    scene, result = fitted
    eyes = np.linalg.norm(result.landmarks_px[33] - result.landmarks_px[263])
    distance = np.linalg.norm(result.matched_landmarks_px - result.projected_landmarks_px, axis=1)
    assert distance.mean() < 0.04 * eyes
    assert degrees_between(result.params.rotation, scene.rotation) < 6
    low, high = result.model.expression_limits.T
    assert (result.params.expression >= low).all() and (result.params.expression <= high).all()
    drawn = fv.render(result, camera=result.camera)
    assert np.abs(drawn.rgb[drawn.mask].astype(int) - scene.picture[drawn.mask]).mean() < 25
    assert result.texture_confidence.max() > 200


def test_landmarks_have_a_row_for_each_point_of_the_model(fitted):
    _, result = fitted
    count = len(result.model.fit_landmarks.triangle)
    assert result.landmarks_px.shape == (478, 2)
    assert result.projected_landmarks_px.shape == result.matched_landmarks_px.shape == (count, 2)
    assert result.replace(landmarks_px=None).matched_landmarks_px is None


def test_fit_is_stored_exported_and_shown(fitted, tmp_path):
    scene, result = fitted
    for suffix in ("glb", "obj", "ply", "stl", "json"):
        assert fv.export(result, tmp_path / f"head.{suffix}").stat().st_size > 1000
    again = fv.load_result(tmp_path / "head.json", result.model)
    for name in ("projected_landmarks_px", "landmarks_px", "vertices", "texture"):
        np.testing.assert_array_equal(getattr(again, name), getattr(result, name))
    for mode in ("color", "clay", "wireframe"):
        assert fv.render(result, 64, mode).mask.any()
    assert fv.overview(scene.picture, result, 64).shape == (64, 256, 3)


def test_stored_landmarks_of_another_number_are_refused(toy_model, tmp_path, monkeypatch):
    few = few_model(toy_model)
    scene = Scene(few, toy_model)
    monkeypatch.setattr(fitting, "detect_faces", lambda rgb: [scene.face])
    path = fv.export(fv.fit(scene.picture, few), tmp_path / "head.json")
    with pytest.raises(fv.ParameterError, match=r"projected_landmarks_px should have shape \(478, 2\), but has \(68"):
        fv.load_result(path, toy_model)


def test_video_is_followed(other, toy_model, monkeypatch):
    scenes = [Scene(other, toy_model, yaw=yaw) for yaw in (-15, -5, 5, 15)]
    faces = iter([[scene.face] for scene in scenes])

    class Detector:
        def __init__(self, max_faces):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            return None

        def __call__(self, rgb, milliseconds):
            return next(faces)

    monkeypatch.setattr(tracking, "VideoDetector", Detector)
    track = fv.track([scene.picture for scene in scenes], other, smooth=True)
    low, high = other.expression_limits.T
    assert track.expression.shape == (4, len(low))
    assert (track.expression >= low).all() and (track.expression <= high).all()
    assert [np.sign(yaw) for yaw in track.euler_deg()[:, 0]] == [-1, -1, 1, 1]
    assert track.confidence.min() > 0.3 and np.isfinite(track.light).all()


# ---------------------------------------------------------------------------------------------------------- edit, demo


def test_components_are_edited_by_number_within_their_limits(unnamed):
    head = fv.edit(fv.head(unnamed.neutral(), unnamed, texture_size=32), expression={"expression_03": -1.5})
    assert head.params.expression[3] == np.float32(-1.5) and head.warnings == ()
    far = fv.edit(head, expression={"expression_03": -7, "expression_04": 2.5})
    assert list(far.params.expression[3:5]) == [-3, 2.5]
    assert far.warnings == ("expression expression_03: -7 is outside -3..3 and was clamped",)


def test_names_that_a_statistic_does_not_have_are_explained(unnamed):
    head = fv.head(unnamed.neutral(), unnamed, texture_size=32)
    expected = (
        "there is no expression 'mouthSmileLeft': the model 'FaceVerse version 1' has no named expressions; its 20 "
        "components are called expression_00 to expression_19"
    )
    with pytest.raises(fv.ParameterError) as error:
        fv.edit(head, expression={"mouthSmileLeft": 1})
    assert str(error.value) == expected
    with pytest.raises(fv.ParameterError, match="'FaceVerse version 1' has no attributes, so age cannot be changed"):
        fv.edit(head, age=10)
    assert fv.edit(head, age=None, gender=None).params.identity is head.params.identity


def test_eyes_of_a_named_model_are_edited_in_radians(eyed):
    head = fv.head(eyed.neutral(), eyed, texture_size=32)
    far = fv.edit(head, expression={"eyeballLeftYaw": -2, "jawOpen": 1})
    assert far.params.expression[eyed.expression_names.index("eyeballLeftYaw")] == np.float32(-0.6)
    assert far.warnings == ("expression eyeballLeftYaw: -2 is outside -0.6..0.6 and was clamped",)
    with pytest.raises(fv.ParameterError, match="no expression 'eyeballLeftYawn'; did you mean 'eyeballLeftYaw'"):
        fv.edit(head, expression={"eyeballLeftYawn": 0.1})


def test_the_page_shows_what_a_model_has(fitted, tmp_path):
    pytest.importorskip("gradio")
    from demo import heads, pictures, view_files
    from demo.edit_state import EditState

    scene, result = fitted
    model = result.model
    head = heads.EditableHead.of(result, 1)
    (tmp_path / "model.bin").write_bytes(view_files.model_pack(model))
    shown = heads.view(head, tmp_path, tmp_path / "model.bin")
    json.loads(json.dumps(shown, allow_nan=False))
    assert list(shown["start"]["expression"]) == list(model.expression_names)
    assert set(shown["estimates"]) == set(model.attribute_names)
    limits = [shown["limits"].get(name, [0, 1]) for name in model.expression_names]
    np.testing.assert_allclose(limits, np.clip(model.expression_limits, -10, 10), atol=1e-3)
    assert EditState.from_json(shown["start"], model).expression == shown["start"]["expression"], "within its limits"
    assert pictures.of_fit(result, scene.picture, tmp_path).overlay.exists()
    name, (_, high) = model.expression_names[0], limits[0]
    moved = EditState.from_json({"expression": {name: high}}, model)
    assert heads.with_state(head, moved).params.expression[0] == pytest.approx(high, abs=1e-3)
    assert heads.download(head, "glb", moved, tmp_path).exists()
    assert heads.edit(head, EditState()).edited is head.neutral


@pytest.mark.parametrize("name", ["few", "eyed"])
def test_age_alone_is_enough_for_the_page(name, toy_model):
    pytest.importorskip("gradio")
    from demo.edit_state import EditState
    from demo.heads import EditableHead, edit

    data = MODELS[name](toy_model).data
    model = FaceModel(replace(data, attributes=data.attributes[:1]))
    result = fv.head(model.neutral(), model, texture_size=32)
    older = edit(EditableHead.of(result, 1), EditState(attributes={"age": 10.0}))
    assert model.attributes(older.edited.params)["age"] > model.attributes(result.params)["age"] + 5


# ------------------------------------------------------------------------------------------------- the open model's 68


def test_open_model_is_fitted_with_its_68_points(model, astronaut):
    few = FaceModel(replace(model.data, landmarks_478=None))
    all_points, few_points = (fv.fit(astronaut, m, detail=False) for m in (model, few))
    assert few_points.warnings == all_points.warnings == ()
    assert few_points.projected_landmarks_px.shape == (68, 2)
    eyes = np.linalg.norm(few_points.landmarks_px[33] - few_points.landmarks_px[263])
    distance = np.linalg.norm(few_points.matched_landmarks_px - few_points.projected_landmarks_px, axis=1)
    assert distance.mean() < 0.04 * eyes  # a third of them lie on the contour, where the detector is least sure
    assert degrees_between(few_points.params.rotation, all_points.params.rotation) < 6
    apart = np.linalg.norm(few_points.vertices - all_points.vertices, axis=1)[model.regions["face"]]
    assert 1e3 * apart.mean() < 4
