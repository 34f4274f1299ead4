"""Pictures as people have them -> upright RGB pictures -> squares of pixels."""

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from rlcap.errors import ConfigError, DataError, did_you_mean

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
RESIZES = ("squash", "crop")
MAX_PIXELS = 89_478_485  # about 9,400 x 9,400: a larger picture is a mistake, or a bomb that fills the memory


def list_images(folder: str | Path) -> list[Path]:
    """The pictures in a folder and its subfolders, in the order of their relative names.

    They are known by their extension. Hidden files and folders are left out, links to folders not followed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {problem}; give a folder of pictures")
    found: list[Path] = []
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        shown = (Path(where, name) for name in files if not name.startswith("."))
        found += [path for path in shown if path.suffix.lower() in EXTENSIONS]
    if not found:
        raise DataError(f"{folder}: holds no picture (a file that ends in {', '.join(EXTENSIONS)})")
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def read_image(path: str | Path) -> Image.Image:
    """The picture as people see it: RGB, upright, white where transparent, an animation's first frame."""
    path = Path(path)
    if not path.is_file():
        problem = "is not a file" if path.exists() else "no such file"
        raise DataError(f"{path}: {problem}; give the path of a picture")
    try:
        with Image.open(path) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            opened.load()
            return upright(opened)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{path}: has more than {MAX_PIXELS:,} pixels; scale it down first") from error
    except UnidentifiedImageError as error:
        what = "is no picture that can be read" if path.stat().st_size else "is empty (0 bytes)"
        raise DataError(f"{path}: {what}; replace it, or save it as PNG or JPEG") from error
    except Exception as error:  # on broken files decoders raise anything, IndexError and SyntaxError included
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: cannot be decoded ({reason}); replace it, or save it anew") from error


def upright(image: Image.Image) -> Image.Image:
    """An opened picture as people see it."""
    return _to_rgb(ImageOps.exif_transpose(image))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_to_8_bits(np.asarray(image))).convert("RGB")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    """Deep gray values -> uint8. Whole numbers fill 16 bits unless one is larger, fractions 1 or else 255."""
    values = np.nan_to_num(values)
    peak = float(values.max())
    full = (1.0 if peak <= 1 else 255.0) if values.dtype.kind == "f" else max(peak, 65535.0)
    return np.rint(values.clip(0, full) * (255 / full)).astype(np.uint8)


def check_resize(resize: str) -> str:
    if resize not in RESIZES:
        raise ConfigError(f"resize={resize!r} is unknown{did_you_mean(str(resize), RESIZES)}")
    return resize


def fit(image: Image.Image, size: int, resize: str) -> np.ndarray:
    """An RGB picture of any shape -> (3, size, size) uint8.

    "squash" ignores the aspect; "crop" cuts the largest square from the middle, then scales it: the usual
    scaling of the short side and cut of the centre, without rounding in between.
    The filter is bilinear with antialias (a pixel averages all that it covers), as for torchvision's weights.
    """
    left = top = 0.0
    width, height = float(image.width), float(image.height)
    if check_resize(resize) == "crop":
        side = min(width, height)
        left, top, width, height = (width - side) / 2, (height - side) / 2, side, side
    box = (left, top, left + width, top + height)
    scaled = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.ascontiguousarray(np.asarray(scaled).transpose(2, 0, 1))
