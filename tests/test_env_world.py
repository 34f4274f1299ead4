"""Worlds from prepared data, and the tiny built-in one."""

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image

import rlcap.envs  # noqa: F401  registers
from rlcap.data.annotations import Annotations
from rlcap.data.features import FeatureStore, FeatureWriter
from rlcap.data.preparation import prepare
from rlcap.data.records import Record
from rlcap.envs.world import tiny_world, world_of
from rlcap.errors import ConfigError

RECORDS = [
    Record(f"{name}.png", split, (f"A {name} box.", f"One {name} box on the grass."))
    for name, split in (("red", "val"), ("blue", "train"), ("green", "train"), ("black", "train"))
]


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    prepare(Annotations("test", RECORDS), folder, min_count=1)
    with FeatureWriter(folder / "grid.h5", "grid", grid=(1, 2)) as writer:
        values = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
        writer.append([record.image for record in RECORDS], values)
    (tmp_path / "pictures").mkdir()
    for record in RECORDS:
        Image.new("RGB", (30, 20), record.image.removesuffix(".png")).save(tmp_path / "pictures" / record.image)
    return folder


def test_a_split_of_prepared_data(data, tmp_path):
    world = world_of(data, pictures=tmp_path / "pictures")
    assert list(world.references.images) == ["blue.png", "green.png", "black.png"]
    envs = gymnasium.make_vec("rlcap/Caption-v0", 3, world=world, autoreset_mode="Disabled", render_mode="rgb_array")
    seen, _ = envs.reset(options={"images": [2, 0, 0]})
    assert seen["features"][:, 0, 0].tolist() == [18, 6, 6]
    assert envs.single_observation_space["features"].shape == (2, 3)
    words = [*world.codec.encode(["a", "black", "box"]), world.codec.end]
    for word in words:
        seen, reward, ended, *_ = envs.step(np.full(3, word))
    assert ended.all()
    assert reward[0] > 1
    assert reward[1:].tolist() == [0, 0]  # 'a' and 'box' stand in every image's references and are worth nothing
    frames = envs.render()
    assert [frame[5, 5].tolist() for frame in frames] == [[0, 0, 0], [0, 0, 255], [0, 0, 255]]


def test_what_was_read_is_read_once_and_given_away(data, monkeypatch):
    world = world_of(data)
    reads = []
    read = FeatureStore.read
    monkeypatch.setattr(FeatureStore, "read", lambda store, rows: reads.append(list(rows)) or read(store, rows))
    images = torch.tensor([1, 0])
    world.source.read(images).values.zero_()
    assert world.source.read(images).values[:, 0, 0].tolist() == [12, 6]
    world.source.read(images.flip(0))
    assert reads == [[2, 1], [1, 2]]


def test_what_is_missing_or_unfit_is_named(data, tmp_path):
    (data / "second.h5").write_bytes((data / "grid.h5").read_bytes())
    with pytest.raises(ConfigError, match=r"holds 2 feature files; name one with features=FILE\.h5"):
        world_of(data)
    assert len(world_of(data, "val", features=data / "grid.h5")) == 1


@pytest.mark.parametrize("side", [64, 128])
def test_of_pixels_the_regions_are_patches(data, tmp_path, side):
    """A picture of 64x64 is seen whole; a larger one is averaged down to it."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, side, side), np.uint8)
    with FeatureWriter(tmp_path / "pixels.h5", "pixels") as writer:
        writer.append([record.image for record in RECORDS], pixels)
    world = world_of(data, "val", features=tmp_path / "pixels.h5")
    env = gymnasium.make("rlcap/Glimpse-v0", world=world, peripheral="all", render_mode="rgb_array")
    seen, _ = env.reset()
    assert env.observation_space.contains(seen)
    assert seen["features"].shape == (64, 192)
    small = pixels[0].reshape(3, 64, side // 64, 64, side // 64).mean((2, 4)) / 255
    patch = small[:, 8:16, 24:32]  # the second row's fourth
    np.testing.assert_allclose(seen["features"][8 + 3], patch.ravel(), atol=1e-6)  # float32 against float64
    np.testing.assert_array_equal(world.pictures(0), pixels[0].transpose(1, 2, 0))
    seen, *_ = env.step([11, world.codec.start])
    np.testing.assert_array_equal(seen["glimpse"], seen["features"][11])
    frame, whole = env.render(), np.asarray(world.pictures(0).resize((256, 256)))
    assert (frame[32:64, 96:128] == whole[32:64, 96:128]).all()
    assert frame[:32].mean() < whole[:32].mean() / 3


def test_the_tiny_world_tells_what_it_shows():
    world = tiny_world(8)
    assert world is tiny_world(8)
    assert world.references.raw[1] == ["a pink star and a red circle", "a red circle and a pink star"]
    assert not set(world.codec.words(range(4, world.codec.size))) - {
        word for image in world.references.tokens for text in image for word in text
    }
    patches = world.source.read(torch.tensor([1])).values[0].view(4, 4, 6)
    picture = torch.from_numpy(np.asarray(world.pictures(1)) / 255.0)
    corner = picture[16:32, 48:]  # the second row's last patch
    np.testing.assert_allclose(patches[1, 3, :3], corner.mean((0, 1)), atol=1e-6)
    np.testing.assert_allclose(patches[1, 3, 3:], corner.flatten(0, 1).std(0, correction=0), atol=1e-6)
