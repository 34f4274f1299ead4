"""Odd pictures are read as people see them; broken ones are named in one line."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rlcap.data.images import fit, list_images, read_image
from rlcap.errors import ConfigError, DataError

RED, BLUE = (255, 0, 0), (0, 0, 255)


def save(path: Path, image: Image.Image, **settings: object) -> Path:
    image.save(path, **settings)
    return path


def colour_at(path: Path, x: int = 0, y: int = 0) -> tuple[int, ...]:
    image = read_image(path)
    assert image.mode == "RGB"
    return tuple(np.asarray(image)[y, x].tolist())


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P", "YCbCr", "HSV"])
def test_every_common_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    white = Image.new("RGB", (6, 4), "white").convert(mode)
    assert colour_at(save(tmp_path / "x.tif", white.convert("RGB") if mode == "HSV" else white)) == (255,) * 3


def test_cmyk_jpeg(tmp_path: Path) -> None:
    cyan = save(tmp_path / "x.jpg", Image.new("CMYK", (16, 16), (255, 0, 0, 0)), quality=100)
    # JPEG may move a flat colour by a rounding step or two
    assert np.abs(np.subtract(colour_at(cyan), (0, 255, 255))).max() <= 2


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_16_bit_gray_is_scaled_not_cut(tmp_path: Path, name: str) -> None:
    levels = np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16)  # 257 = 65535 / 255
    image = read_image(save(tmp_path / name, Image.fromarray(levels)))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_16_bit_pgm(tmp_path: Path) -> None:
    path = tmp_path / "x.pgm"  # Pillow reads it as 32-bit integers
    path.write_bytes(b"P5 3 1 65535\n" + struct.pack(">3H", 0, 100 * 257, 200 * 257))
    assert np.asarray(read_image(path))[0, :, 1].tolist() == [0, 100, 200]  # a dark picture stays dark


def test_32_bit_gray_reaches_white_at_its_peak(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 2**30, 2**31 - 1]], dtype=np.int32))
    assert np.asarray(read_image(save(tmp_path / "x.tif", image)))[0, :, 1].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("values", "gray"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([float("nan"), 0.5, 1.0], [0, 128, 255]),
    ],
)
def test_fractions(tmp_path: Path, values: list[float], gray: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.float32))
    assert np.asarray(read_image(save(tmp_path / "x.tif", image)))[0, :, 2].tolist() == gray


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_what_is_transparent_is_white(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    image.putpixel((2, 0), (0, 0, 0, 51))  # a fifth of black on white
    read = np.asarray(read_image(save(tmp_path / "x.png", image.convert(mode))))
    assert read[0, :, 0].tolist() == [255, 0, 204]


@pytest.mark.parametrize("name", ["x.gif", "x.png"])
def test_a_palette_with_a_transparent_colour(tmp_path: Path, name: str) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    path = save(tmp_path / name, image, transparency=0)
    assert [colour_at(path, 0), colour_at(path, 1)] == [(255, 255, 255), BLUE]


UPRIGHT = {  # what the EXIF standard says of the stored rows and columns
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    stored = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    image = Image.fromarray(stored)
    exif = image.getexif()
    exif[0x0112] = orientation
    read = read_image(save(tmp_path / "x.png", image, exif=exif))
    assert np.array_equal(np.asarray(read), UPRIGHT[orientation](stored))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\x7f"])
def test_broken_exif_is_passed_over(tmp_path: Path, exif: bytes) -> None:
    assert read_image(save(tmp_path / "x.jpg", Image.new("RGB", (5, 3)), exif=exif)).size == (5, 3)


@pytest.mark.parametrize("name", ["x.gif", "x.png", "x.webp"])
def test_an_animation_gives_its_first_frame(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    settings = {"lossless": True} if name == "x.webp" else {}
    assert colour_at(save(tmp_path / name, frames[0], save_all=True, append_images=frames[1:], **settings)) == RED


def test_one_pixel(tmp_path: Path) -> None:
    image = read_image(save(tmp_path / "x.png", Image.new("RGB", (1, 1), RED)))
    for resize in ("squash", "crop"):
        assert (fit(image, 7, resize) == np.array(RED)[:, None, None]).all()


def truncated(path: Path, kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, kind)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BROKEN = {
    "missing": (lambda path: None, "no such file"),
    "folder": (lambda path: path.mkdir(), "is not a file"),
    "empty": (lambda path: path.touch(), "is empty (0 bytes)"),
    "text": (lambda path: path.write_text("a dog runs"), "no picture"),
    "cut jpeg": (lambda path: truncated(path, "JPEG"), "cannot be decoded"),
    "cut png": (lambda path: truncated(path, "PNG"), "cannot be decoded"),
    "cut gif": (lambda path: truncated(path, "GIF"), "cannot be decoded"),
    "cut tiff": (lambda path: truncated(path, "TIFF"), "replace it"),
    "cut webp": (lambda path: truncated(path, "WEBP"), "replace it"),
    "large": (lambda path: path.write_bytes(b"P4 10000 10000\n"), "more than 89,478,485 pixels"),
    "bomb": (lambda path: path.write_bytes(b"P4 100000 100000\n"), "more than 89,478,485 pixels"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_picture_is_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.jpg"
    make, said = BROKEN[kind]
    make(path)
    with pytest.raises(DataError) as caught:
        read_image(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert said in message
    assert "\n" not in message


def stripes(width: int, height: int, *colours: tuple[int, int, int]) -> Image.Image:
    """Upright stripes of the same width."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    for place, part in enumerate(np.array_split(np.arange(width), len(colours))):
        pixels[:, part] = colours[place]
    return Image.fromarray(pixels)


def test_squash_shows_all_and_crop_the_middle() -> None:
    image = stripes(300, 100, RED, (0, 255, 0), BLUE)
    squashed, cropped = fit(image, 30, "squash"), fit(image, 30, "crop")
    for small in (squashed, cropped):
        assert (small.shape, small.dtype) == ((3, 30, 30), np.uint8)
        assert small.flags["C_CONTIGUOUS"]
    assert squashed[:, 15, [2, 15, 27]].T.tolist() == [list(RED), [0, 255, 0], list(BLUE)]
    assert (cropped[:, :, 1:-1] == np.array([0, 255, 0])[:, None, None]).all()


@pytest.mark.parametrize("turn", [False, True])
def test_crop_is_the_scaling_of_the_short_side_and_a_cut(turn: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 120, 3), dtype=np.uint8)
    image = Image.fromarray(pixels.transpose(1, 0, 2) if turn else pixels)
    scaled = image.resize((20, 60) if turn else (60, 20), Image.Resampling.BILINEAR)
    middle = np.asarray(scaled)[20:40] if turn else np.asarray(scaled)[:, 20:40]
    # the filter's weights are rounded to fixed point, hence one step
    assert np.abs(fit(image, 20, "crop").astype(int) - middle.transpose(2, 0, 1)).max() <= 1


def test_scaling_down_averages() -> None:
    chess = np.indices((64, 64)).sum(0) % 2 * 255
    small = fit(Image.fromarray(chess.astype(np.uint8)).convert("RGB"), 8, "squash")
    assert np.abs(small.astype(int) - 127).max() <= 5  # a filter that looked at few pixels would give 0 and 255


def test_the_right_size_is_left_alone() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    for resize in ("squash", "crop"):
        assert np.array_equal(fit(Image.fromarray(pixels), 12, resize), pixels.transpose(2, 0, 1))


def test_an_unknown_way_to_resize() -> None:
    with pytest.raises(ConfigError, match="did you mean 'squash'"):
        fit(Image.new("RGB", (2, 2)), 2, "sqash")


def test_pictures_of_a_folder(tmp_path: Path) -> None:
    for name in (
        "b.JPG",
        "a.png",
        "B.webp",
        "sub/c.jpeg",
        ".hidden.jpg",
        "._a.png",
        ".git/d.jpg",
        "notes.txt",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert found == ["B.webp", "a.png", "b.JPG", "sub/c.jpeg"]


def test_a_folder_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    for path, said in (
        (tmp_path, "holds no picture"),
        (tmp_path / "nowhere", "no such folder"),
        (tmp_path / "notes.txt", "is a file"),
    ):
        with pytest.raises(DataError, match=said):
            list_images(path)
