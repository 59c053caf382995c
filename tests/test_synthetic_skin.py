import numpy as np
import pytest

from faceverse import load_model
from faceverse.detail.displacement import sample_bilinear, split_bands
from faceverse.detail.latents import picture_of_maps
from faceverse.errors import ParameterError
from faceverse.graphics.mesh import vertex_normals
from faceverse.model.texture_maps import bake_planes
from faceverse.training.creases import FACTORS, Z_DIM, crease_displacement
from faceverse.training.synthetic_skin import (
    ALBEDO_LOG_RANGE,
    CODE,
    DISPLACEMENT_RANGE_MM,
    DetailSurface,
    detail_sheet,
    random_z,
    synthetic_detail,
    training_sample,
)

SIZE = 256


@pytest.fixture(scope="module")
def model():
    return load_model()


@pytest.fixture(scope="module")
def surface(model):
    return DetailSurface.of(model, SIZE)


def person(years: float, **factors: float) -> np.ndarray:
    z = np.zeros(Z_DIM)
    z[0] = (years - 45) / 16
    for name, value in factors.items():
        z[FACTORS.index(name)] = value
    return z


def energy(values: np.ndarray, where: np.ndarray) -> float:
    return float(np.sqrt((values**2 * where).sum() / where.sum()))


def test_same_z_and_seed_same_maps(surface):
    z = random_z(np.random.default_rng(1), 60, 0.5)
    first, again, other = (synthetic_detail(surface, z, seed) for seed in (4, 4, 5))
    assert np.array_equal(first.displacement, again.displacement)
    assert np.array_equal(first.albedo_log, again.albedo_log)
    assert not np.array_equal(first.displacement, other.displacement)


@pytest.mark.parametrize("years, male", [(18, -1.5), (45, 0.0), (80, 1.5)])
def test_maps_stay_in_their_ranges(surface, years, male):
    rng = np.random.default_rng(years)
    for seed in range(3):
        maps = synthetic_detail(surface, 1.5 * random_z(rng, years, male), seed, tone=rng.uniform(0.03, 0.6))
        assert maps.displacement.shape == (SIZE, SIZE) and maps.displacement.dtype == np.float32
        assert maps.albedo_log.shape == (SIZE, SIZE, 3) and maps.albedo_log.dtype == np.float32
        assert DISPLACEMENT_RANGE_MM[0] <= maps.displacement.min() < maps.displacement.max() <= DISPLACEMENT_RANGE_MM[1]
        assert ALBEDO_LOG_RANGE[0] <= maps.albedo_log.min() < maps.albedo_log.max() <= ALBEDO_LOG_RANGE[1]


def test_nothing_on_eyes_teeth_and_in_the_mouth(model, surface):
    hidden = np.zeros((len(model.mean_vertices), 1), np.float32)
    for name in ("eyeballs", "eye_sockets", "teeth", "tongue", "mouth_inside"):
        hidden[model.regions[name]] = 1
    where = bake_planes(model, hidden, SIZE)[0] > 0.5
    maps = synthetic_detail(surface, random_z(np.random.default_rng(3), 75, 1), 3)
    assert where.sum() > 500
    assert not maps.displacement[where].any() and not maps.albedo_log[where].any()
    assert np.abs(maps.displacement[~where]).max() > 0.1


def test_no_structure_wider_than_eight_millimetres(surface):
    from scipy.ndimage import gaussian_filter

    maps = synthetic_detail(surface, random_z(np.random.default_rng(4), 78, 1), 3)
    texels = 12 / 1.16
    assert np.abs(gaussian_filter(maps.displacement, texels)).max() < 0.12 * np.abs(maps.displacement).max()


@pytest.mark.parametrize("region", ["forehead", "eye_corner", "cheeks", "neck"])
def test_age_deepens_creases(surface, region):
    where = getattr(surface.skin, region) * surface.skin.inside
    depth = [energy(crease_displacement(surface.creases, person(years)), where) for years in (20, 35, 50, 65, 78)]
    assert all(older > younger for younger, older in zip(depth, depth[1:]))
    assert depth[-1] > 4 * depth[0]


@pytest.mark.parametrize("name", [name for name in FACTORS if name.endswith("_left")])
def test_factors_of_one_side_change_that_side_only(surface, name):
    left = np.arange(SIZE) >= SIZE // 2  # u grows towards the subject's left
    for factor, own in ((name, left), (name.replace("_left", "_right"), ~left)):
        change = crease_displacement(surface.creases, person(60, **{factor: 2.0})) - crease_displacement(
            surface.creases, person(60)
        )
        assert np.abs(change[:, own]).max() > 0.01
        assert not change[:, ~own].any()


def test_creases_are_smooth_in_z(surface):
    rng = np.random.default_rng(5)
    z, step = random_z(rng, 65, 0.3), rng.standard_normal(Z_DIM)
    at = crease_displacement(surface.creases, z)
    far = energy(crease_displacement(surface.creases, z + 0.02 * step) - at, surface.skin.inside)
    near = energy(crease_displacement(surface.creases, z + 0.01 * step) - at, surface.skin.inside)
    assert near == pytest.approx(far / 2, rel=0.15)
    assert far < 0.2 * energy(at, surface.skin.inside)


@pytest.mark.parametrize("name, years, male", [("freckles", 25, 0), ("age_spots", 75, 0), ("moles", 40, 0)])
def test_density_factors_darken_the_skin(surface, name, years, male):
    mean = [
        np.mean([synthetic_detail(surface, person(years, **{name: v}), s).albedo_log.mean() for s in range(3)])
        for v in (-2, 2.5)
    ]
    assert mean[1] < mean[0]


def test_stubble_belongs_to_men(surface):
    beard = surface.skin.beard * surface.skin.bare > 0.5
    shade = [
        synthetic_detail(surface, person(35, masculinity=male, stubble=1), 1).albedo_log[beard].mean()
        for male in (-1, 1)
    ]
    assert shade[1] < shade[0] - 0.02


@pytest.mark.parametrize("factor", ["stubble", "freckles"])
def test_small_maps_are_no_darker_than_large_ones(model, surface, factor):
    z = person(30, masculinity=1.0, **{factor: 1.5})
    small, large = (synthetic_detail(s, z, 1).albedo_log.mean() for s in (DetailSurface.of(model, 128), surface))
    assert small == pytest.approx(large, rel=0.15)


def test_dark_skin_shows_fewer_freckles(surface):
    plain, freckled = person(25), person(25, freckles=2.5)
    change = [
        np.abs(
            synthetic_detail(surface, freckled, 1, tone).albedo_log.mean()
            - synthetic_detail(surface, plain, 1, tone).albedo_log.mean()
        )
        for tone in (0.05, 0.45)
    ]
    assert change[0] < 0.3 * change[1]


def test_random_z_follows_age_and_pairs_sides():
    rng = np.random.default_rng(0)
    z = np.stack([random_z(rng, 61, -1) for _ in range(2000)])
    assert z.shape == (2000, Z_DIM) and z.dtype == np.float32
    assert np.all(z[:, 0] == 1) and np.all(z[:, 1] == -1)
    assert np.abs(z[:, 2:].std(0) - 1).max() < 0.1
    assert np.corrcoef(z[:, FACTORS.index("crow_left")], z[:, FACTORS.index("crow_right")])[0, 1] > 0.5


def test_wrong_z_is_refused(surface):
    with pytest.raises(ParameterError, match="64 finite numbers"):
        synthetic_detail(surface, np.zeros(63), 0)


def test_size_outside_its_range_is_refused(model):
    with pytest.raises(ParameterError, match="64 to 2048"):
        DetailSurface.of(model, 16)


def test_training_sample(model, surface):
    sample, again = (training_sample(model, surface, 7, 1) for _ in range(2))
    assert sample.condition.shape == (6, 128, 128) and sample.image.shape == (6, SIZE, SIZE)
    assert sample.z.shape == (Z_DIM,)
    assert {a.dtype for a in (sample.condition, sample.image, sample.z)} == {np.dtype(np.float32)}
    assert np.array_equal(sample.image, again.image)
    assert not np.array_equal(sample.z, training_sample(model, surface, 8, 1).z)


def test_picture_holds_the_maps(surface):
    maps = synthetic_detail(surface, person(60), 0)
    picture = picture_of_maps(CODE, maps)
    total = (picture[3:] * np.array([0.25, 0.10, 0.05])[:, None, None]).sum(0)
    assert np.allclose(total, maps.displacement, atol=1e-5)
    assert np.allclose(picture[:3] * 0.35, maps.albedo_log.transpose(2, 0, 1), atol=1e-6)
    assert detail_sheet([maps, maps]).shape == (2 * SIZE, 2 * SIZE, 3)


# ----------------------------------------------------------------------------------------------------------- real scans


def stand_in_scan(model, maps):
    """The mean head's face, subdivided twice and displaced, in millimetres and turned; and its registration."""
    from faceverse.training.registration import Registration, RegistrationReport
    from faceverse.training.scan_files import Scan

    normals = vertex_normals(model.tensor("mean_vertices"), model.tensor("faces")).numpy()
    keep = np.isin(model.faces, model.regions["face"]).all(1)
    corners = np.concatenate([model.mean_vertices, normals], 1)[model.faces[keep]]
    corners = np.concatenate([corners, model.uv[model.uv_faces[keep]]], axis=2)
    for _ in range(2):
        a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
        ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
        corners = np.concatenate([np.stack(t, 1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
    points, index = np.unique(corners.reshape(-1, 8).round(7), axis=0, return_inverse=True)
    normals = points[:, 3:6] / np.linalg.norm(points[:, 3:6], axis=1, keepdims=True)
    height = sample_bilinear(maps.displacement[..., None], points[:, 6:8].astype(np.float32))[:, 0]
    vertices = points[:, :3] + 0.001 * height[:, None] * normals
    turn = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    colours = (0.3 * np.exp(sample_bilinear(maps.albedo_log, points[:, 6:8].astype(np.float32)))).astype(np.float32)
    scan = Scan(1000 * vertices @ turn, index.reshape(-1, 3).astype(np.int64), colors=colours)
    figures = RegistrationReport(0.1, 0.09, 0.3, 0.2, 4.0, 0.1, 0.8, 0.001, 50_000, 1, 0.2, 5.0)
    weights = np.ones(len(model.mean_vertices), np.float32)
    albedo = np.full_like(model.mean_albedo, 0.3)
    return scan, Registration(
        model.mean_vertices, np.zeros((1, 3)), model.neutral(), turn * 0.001, np.zeros(3), albedo, weights, figures
    )


def test_detail_of_a_scan_is_that_of_its_surface(model, surface):
    pytest.importorskip("igl")
    from faceverse.training.scan_detail import ScanDetail, detail_of_scan, scan_sample

    truth = synthetic_detail(surface, random_z(np.random.default_rng(2), 72, 0.5), 2)
    scan, found = stand_in_scan(model, truth)
    maps, params = detail_of_scan(model, surface, scan, found)
    inner = maps.seen & (surface.skin.bare > 0.9)
    assert inner.sum() > 0.8 * (surface.skin.bare > 0.9).sum()
    measured, known = split_bands(maps.displacement)[0][inner], split_bands(truth.displacement)[0][inner]
    assert np.corrcoef(measured, known)[0, 1] > 0.9
    assert np.corrcoef(maps.displacement[inner], truth.displacement[inner])[0, 1] > 0.85
    colours = [a[..., 1][inner & (surface.skin.beard < 0.1)] for a in (maps.albedo_log, truth.albedo_log)]
    assert np.corrcoef(*colours)[0, 1] > 0.6
    assert not maps.displacement[~maps.seen].any() and not maps.albedo_log[~maps.seen].any()
    sample_of_scan = scan_sample(model, ScanDetail("scan", params, maps))
    assert sample_of_scan.image.shape == (6, SIZE, SIZE) and sample_of_scan.mask is maps.seen
    assert not sample_of_scan.known


def test_a_cloud_of_points_shows_no_detail(model, surface):
    from faceverse.training.registration import Registration
    from faceverse.training.scan_detail import detail_of_scan
    from faceverse.training.scan_files import Scan, ScanError

    found = Registration(model.mean_vertices, None, model.neutral(), np.eye(3), np.zeros(3), None, None, None)
    with pytest.raises(ScanError, match="cloud of points"):
        detail_of_scan(model, surface, Scan(np.zeros((10, 3))), found)


def test_scans_of_a_folder_come_from_their_registrations(model, surface, tmp_path, monkeypatch):
    from faceverse.training import scan_detail
    from faceverse.training.collection import RegistrationOutcome
    from faceverse.training.scan_files import Scan

    files = ["001_01.ply", "002_01.ply", "003_01.ply", "001_02.ply"]
    for name in files:
        (tmp_path / name).write_bytes(b"")
    maps, seen = synthetic_detail(surface, person(50), 0), []

    def outcomes(scans, work, base, jobs):
        seen.extend(scan.name for scan in scans)
        yield RegistrationOutcome(scans[0], registration=object())
        yield RegistrationOutcome(scans[1], reason="there is no face")
        yield RegistrationOutcome(scans[2], registration=object())

    frames = {"001_01": [Scan(np.zeros((3, 3)))], "003_01": [Scan(np.zeros((3, 3)))] * 2}
    monkeypatch.setattr(scan_detail, "register_all", outcomes)
    monkeypatch.setattr(scan_detail, "load_frames", lambda path: frames[path.stem])
    monkeypatch.setattr(scan_detail, "detail_of_scan", lambda *_: (maps, model.neutral()))
    lines = []
    found = list(scan_detail.scans_from_registered(tmp_path, tmp_path / "work", model, surface, report=lines.append))
    assert seen == ["001_01", "002_01", "003_01"]
    assert [(d.name, d.maps is maps) for d in found] == [("001_01", True)]
    assert "no face" in lines[0] and "depth frames" in lines[1]


def test_a_folder_without_neutral_scans_is_refused(model, surface, tmp_path):
    from faceverse.training.scan_detail import scans_from_registered
    from faceverse.training.scan_files import ScanError

    (tmp_path / "001_02.ply").write_bytes(b"")
    with pytest.raises(ScanError, match="no neutral scan '01'"):
        next(scans_from_registered(tmp_path, tmp_path / "work", model, surface))
