"""Point files: every format, every way in which a file is broken, sampling by area, data sets of clouds."""

import gzip
import io
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from vitrail.data.points.cloud import Cloud, PointFileError
from vitrail.data.points.open_points import open_points
from vitrail.data.points.reading import read_cloud
from vitrail.data.points.shapes import SHAPES, varied
from vitrail.data.points.surface import sample_points, unit_sphere
from vitrail.data.points.voxels import voxelize
from vitrail.data.stateless_rng import BatchRng
from vitrail.errors import DataError, VitrailError

POINTS = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.5]])
FACES = [[0, 1, 2], [0, 2, 3]]


def ply(order: str, quads: bool = False) -> bytes:
    faces = [[0, 1, 2, 3]] if quads else FACES
    head = (
        f"ply\nformat {order} 1.0\ncomment x\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\n"
    )
    head += f"property uchar red\nelement face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    if order == "ascii":
        rows = [*(f"{x} {y} {z} 7" for x, y, z in POINTS), *(f"{len(f)} {' '.join(map(str, f))}" for f in faces)]
        return (head + "\n".join(rows) + "\n").encode()
    mark = "<" if "little" in order else ">"
    body = b"".join(struct.pack(f"{mark}3fB", *point, 7) for point in POINTS)
    return head.encode() + body + b"".join(struct.pack(f"{mark}B{len(f)}i", len(f), *f) for f in faces)


def saved(write, *arrays, **named) -> bytes:
    file = io.BytesIO()
    write(file, *arrays, **named)
    return file.getvalue()


def off(head: str = "OFF\n4 2 0\n") -> bytes:
    rows = ["0 0 0", "1 0 0", "1 1 0 # corner", "", "0 1 0.5", "3 0 1 2", "3 0 2 3"]
    return (head + "\n".join(rows)).encode()


FILES = {
    "off": off(),
    "off of ModelNet40": off("OFF4 2 0\n"),
    "off after comments": off("# made by a scanner\n\n#\nOFF\n# counts\n4 2 0\n"),
    "off with colours": b"COFF\n4 2 0\n0 0 0 255 0 0\n1 0 0 1 1 1\n1 1 0 1 1 1\n0 1 0.5 1 1 1\n3 0 1 2 9 9\n3 0 2 3\n",
    "off with a quad": b"OFF\n4 1 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0.5\n4 0 1 2 3\n",
    **{f"ply {order}": ply(order) for order in ("ascii", "binary_little_endian", "binary_big_endian")},
    "ply quads": ply("binary_little_endian", quads=True),
    "ply ascii quads": ply("ascii", quads=True),
    "npz": saved(np.savez, points=POINTS, faces=np.array(FACES)),
}
CLOUDS = {
    "npy": saved(np.save, POINTS.astype(np.float32)),
    "npy, columns and Fortran order": saved(np.save, np.asfortranarray(np.hstack([POINTS, POINTS]))),
    "npz of one array": saved(np.savez_compressed, anything=POINTS),
    "xyz": b"0 0 0\n1 0 0\n# a comment\n1 1 0\n0 1 0.5\n",
    "xyz with colours": b"0 0 0 9 9 9\n1 0 0 9 9 9\n1 1 0 9 9 9\n0 1 0.5 9 9 9\n",
    "csv": b"\xef\xbb\xbfid,Z,Y,X\n1,0,0,0\n2,0,0,1\n3,0,1,1\n4,.5,1,0\n",
    "pts": b"4\n0 0 0\n1 0 0\n1 1 0\n0 1 0.5\n",
}


@pytest.mark.parametrize("name", [*FILES, *CLOUDS])
def test_formats(name):
    cloud = read_cloud({**FILES, **CLOUDS}[name])
    assert np.array_equal(cloud.points, POINTS)
    assert (cloud.faces is None) == (name in CLOUDS)
    if cloud.faces is not None:
        assert cloud.faces.tolist() == FACES


def test_las(tmp_path):
    laspy = pytest.importorskip("laspy")
    scan = laspy.create()
    scan.x, scan.y, scan.z = (POINTS + 500_000).T
    scan.classification = np.array([1, 2, 2, 1], dtype=np.uint8)
    scan.write(tmp_path / "scan.las")
    cloud = read_cloud(tmp_path / "scan.las")
    assert np.allclose(cloud.points, POINTS + 500_000, atol=0.01)
    assert cloud.parts.tolist() == [1, 2, 2, 1]
    with pytest.raises(PointFileError, match="laspy cannot read it"):
        read_cloud((tmp_path / "scan.las").read_bytes()[:250])


@pytest.mark.parametrize("name", [*FILES, "npy", "npz of one array"])
def test_a_file_that_is_cut_is_refused_or_still_whole(name):
    content = {**FILES, **CLOUDS}[name]
    for end in range(1, len(content), max(1, len(content) // 40)):
        try:
            cloud = read_cloud(content[:end], "cut")
        except PointFileError as error:
            assert error.reason
        else:  # text may be cut within its last number
            assert cloud.points.shape == POINTS.shape


@pytest.mark.parametrize("name", [*FILES, *CLOUDS])
def test_damaged_files_raise_data_errors_only(name):
    content, draw = {**FILES, **CLOUDS}[name], np.random.default_rng(0)
    for _ in range(60):
        broken = bytearray(content)
        for place in draw.integers(0, len(content), 3):
            broken[place] = draw.integers(0, 256)
        with suppress(PointFileError):
            assert np.isfinite(read_cloud(bytes(broken)).points).all()


@pytest.mark.parametrize(
    ("content", "kind", "reason"),
    [
        (b"", "empty", "empty"),
        (b"  \n ", "empty", "empty"),
        (b"OFF\n0 0 0\n", "empty", "no points"),
        (b"OFF\n99999999999 2 0\n0 0 0\n", "size", "at most 20,000,000"),
        (b"OFF\n20000000 2 0\n0 0 0\n", "truncated", "ends too early"),
        (b"OFF\n1e999 2 0\n", "broken", "count"),
        (b"OFF\n3 1 0\n0 0 0 1 0 0 0 1 0\n3 0 1 9", "broken", "names point 9 of 3"),
        (b"OFF\n3 1 0\n0 0 nan 1 0 0 0 1 0\n3 0 1 2", "values", "point 0 is"),
        (b"OFF\n3 1 0\n0 zero 0\n", "broken", "not a number"),
        (ply("ascii").replace(b"element vertex 4", b"element vertex 99999999999"), "size", "vertex"),
        (ply("binary_little_endian").replace(b"vertex 4", b"vertex 9000000"), "truncated", "ends too early"),
        (b"ply\nformat ascii 1.0\n", "truncated", "header does not end"),
        (b"ply\nformat ascii 1.0\nelement dot 1\nproperty float x\nend_header\n1\n", "format", "no element vertex"),
        (b"0 0\n1 1\n", "format", "three are needed"),
        (b"1 2 3\n1 2\n", "broken", "line 2"),
        (b"a,b,c\n1,2,3\n", "format", "names no column x, y, z"),
        (b"1 2 1e400\n", "values", "finite"),
        (b"\xff\xfe\x00", "format", "neither"),
        (saved(np.save, np.array([{}], dtype=object)), "format", "not unpickled"),
        (saved(np.save, np.zeros((4, 2))), "format", "no cloud"),
        (saved(np.save, np.zeros((4, 3)))[:-1], "truncated", "too early"),
        (saved(np.savez, a=POINTS, b=POINTS), "format", "no array named"),
        (saved(np.savez, points=POINTS, faces=np.zeros((2, 3))), "format", "integers"),
    ],
)
def test_a_broken_file_is_named_with_its_reason(content, kind, reason, tmp_path):
    (tmp_path / "broken.bin").write_bytes(content)
    with pytest.raises(PointFileError, match=reason) as caught:
        read_cloud(tmp_path / "broken.bin")
    assert caught.value.kind == kind and "broken.bin" in str(caught.value)


def test_no_file_and_no_regular_file(tmp_path):
    for path, kind in ((tmp_path / "none.off", "missing"), (tmp_path, "not a file")):
        with pytest.raises(PointFileError) as caught:
            read_cloud(path)
        assert caught.value.kind == kind


def draws(number: int = 0, seed: int = 0) -> BatchRng:
    return BatchRng(seed, 0, np.array([number]))


def test_points_fall_on_triangles_in_proportion_to_area():
    points = np.array([[0.0, 0, 0], [2, 0, 0], [0, 3, 0], [0, 0, 1], [1, 0, 1], [0, 1, 1]])
    mesh = Cloud(points, np.array([[0, 1, 2], [3, 4, 5]]), np.array([4, 9]))
    found, parts = sample_points(mesh, 20_000, draws())
    assert np.array_equal(parts, np.where(found[:, 2] < 0.5, 4, 9))
    assert abs((parts == 4).mean() - 3 / 3.5) < 0.01
    lower = found[parts == 4]
    assert (lower[:, 0] / 2 + lower[:, 1] / 3 <= 1 + 1e-9).all() and (lower >= 0).all()
    assert np.allclose(lower.mean(0), [2 / 3, 1, 0], atol=0.02)
    assert np.array_equal(found, sample_points(mesh, 20_000, draws())[0])
    assert not np.array_equal(found, sample_points(mesh, 20_000, draws(1))[0])


def test_clouds_and_meshes_without_area_give_their_points():
    flat = Cloud(POINTS, np.array([[0, 1, 1]]))
    for cloud in (Cloud(POINTS, None, np.arange(4)), flat):
        found, _ = sample_points(cloud, 4, draws())
        assert sorted(found.tolist()) == sorted(POINTS.tolist())
        assert len(sample_points(cloud, 11, draws())[0]) == 11
    assert np.array_equal(POINTS[sample_points(Cloud(POINTS, None, np.arange(4)), 3, draws())[1]][:, 0].shape, (3,))


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30, 1e300])
def test_unit_sphere_at_any_scale(scale):
    found = unit_sphere(POINTS * scale)
    assert found.dtype == np.float32 and np.allclose(found, unit_sphere(POINTS), atol=1e-6)
    assert np.linalg.norm(found, axis=1).max() == pytest.approx(1)
    assert not unit_sphere(np.full((5, 3), scale)).any() and not unit_sphere(np.full((1, 3), scale)).any()


@pytest.mark.parametrize("name", SHAPES)
def test_analytic_shapes_are_closed(name):
    mesh = varied(SHAPES[name](), 5)
    a, b, c = (mesh.points[mesh.faces[:, i]] for i in range(3))
    normals = np.cross(b - a, c - a)
    assert np.allclose(normals.sum(0), 0, atol=1e-9)  # the area vectors of a closed surface cancel
    assert len(mesh.parts) == len(mesh.faces) and np.isfinite(mesh.points).all()


@pytest.mark.parametrize("layout", ["{label}/train/{number}.off", "train/{label}/{number}.off", "{label}/{number}.off"])
def test_class_folders(layout, tmp_path):
    for label in ("chair", "table"):
        for number in range(3):
            for part in {"train", "test"} if "train" in layout else {"train"}:
                path = tmp_path / layout.replace("train", part).format(label=label, number=number)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(off())
    data = open_points(str(tmp_path), val_share=0.3)
    assert data.classes == ("chair", "table")
    assert {split: len(clouds) for split, clouds in data} == {"train": 4, "val": 2} | (
        {"test": 6} if "train" in layout else {}
    )
    assert np.array_equal(data.require("train").cloud(0).points, POINTS)


def test_every_unreadable_file_is_listed_before_training(tmp_path):
    for label, content in (("a", off()), ("b", off()[:30]), ("c", b"")):
        (tmp_path / label).mkdir()
        (tmp_path / label / "x.off").write_bytes(content)
    data = open_points(str(tmp_path), bad="list")
    assert [(problem.id, problem.kind) for problem in data.problems[:2]] == [
        ("b/x.off", "truncated"),
        ("c/x.off", "empty"),
    ]


def test_voxel_rows_without_the_empty_ones(tmp_path):
    grids = np.zeros((3, 1, 4, 4, 4))
    grids[1, 0, 0, 1, 2] = grids[2, 0, 3, 3, 3] = 1
    for label in ("chair", "monitor"):
        (tmp_path / f"{label}.npy.gz").write_bytes(gzip.compress(saved(np.save, grids)))
    data = open_points(str(tmp_path), val_share=0.5)
    assert data.require("train").ids[0].startswith("chair.npy.gz#") and len(data.require("val")) == 2
    clouds = {i: c.cloud(k).points.tolist() for _, c in data for k, i in enumerate(c.ids)}
    assert clouds["chair.npy.gz#1"] == [[0.5, 1.5, 2.5]]
    (tmp_path / "chair.npy.gz").write_bytes(gzip.compress(saved(np.save, grids))[:60])
    with pytest.raises(DataError, match=r"chair\.npy\.gz"):
        open_points(str(tmp_path))


def test_voxels_of_points():
    corners = np.array([[0.0, 0, 0], [1, 0.5, 0.2]])
    assert np.argwhere(voxelize(corners, 4)).tolist() == [[0, 0, 0], [3, 2, 0]]


def test_specs_that_are_no_data(tmp_path):
    for spec, reason in (("shapes:x", "needs a number"), ("nowhere", "no folder"), (str(tmp_path), "two classes")):
        with pytest.raises(VitrailError, match=reason):
            open_points(spec)


@pytest.mark.shared
def test_modelnet_meshes(shared: Path):
    for path in sorted((shared / "data/modelnet10_off").rglob("*.off"))[:2]:
        cloud = read_cloud(path)
        assert cloud.is_mesh
        points, _ = sample_points(cloud, 500, draws())
        assert torch.isfinite(torch.from_numpy(unit_sphere(points))).all()
