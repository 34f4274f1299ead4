"""Pictures -> a feature file: what a frozen encoder sees in them, or the small pictures themselves."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlcap.components import check_arguments
from rlcap.data.features import EncoderCard, FeatureWriter, Layout
from rlcap.data.images import check_resize, fit, list_images, read_image
from rlcap.devices import choose_device
from rlcap.errors import ConfigError, DataError
from rlcap.models.encoders import card_of, frozen_encoder
from rlcap.models.torchvision_encoders import TorchvisionEncoder
from rlcap.progress import track

PIXELS = "pixels"  # in the place of an encoder: the resized pictures, for an encoder that is trained along
MOST_THREADS = 8

Arrays = tuple[np.ndarray, np.ndarray | None, np.ndarray | None]  # values, counts, boxes, as they are written


@dataclass(frozen=True)
class Report:
    done: int  # images in the file
    resumed: int  # of these, done by an earlier run that was interrupted
    skipped: list[tuple[str, str]]  # those that could not be read: name, and a line that says where and why


@dataclass(frozen=True)
class _Eye:
    """What looks at the pictures: a batch of uint8 (B, 3, size, size) -> what is written."""

    card: EncoderCard
    layout: Layout
    see: Callable[[np.ndarray], Arrays]


def extract(
    source: str | Path,
    out: str | Path,
    *,
    encoder: str,
    options: Mapping[str, Any] | None = None,
    device: str = "auto",
    batch: int = 32,
    workers: int = 0,
    strict: bool = False,
) -> Report:
    """The features of one picture, or of all in a folder, in the file `out`; goes on after an interrupt.

    In the file a picture is known by its path below the folder, with slashes. `workers` threads decode (0:
    one a core, 8 at most). Pictures that cannot be read are skipped and reported, or end it if `strict`. The
    arithmetic is float32 also on a GPU: a picture has the same features when it is captioned elsewhere.
    """
    source, out = Path(source), Path(out)
    if batch < 1 or workers < 0:
        raise ConfigError(f"batch={batch}, workers={workers}: batch must be 1 or more, workers 0 or more")
    if out.is_dir():
        raise ConfigError(f"{out}: is a folder; name the file to write, such as {out / 'features.h5'}")
    if source.is_file():
        paths = {source.name: source}
    else:
        paths = {path.relative_to(source).as_posix(): path for path in list_images(source)}
    options = dict(options or {})
    if encoder == PIXELS:
        eye = _pixels(**check_arguments(_pixels, options, "encoder 'pixels'"))
    else:
        eye = _encoder(encoder, options, device)
    skipped: list[tuple[str, str]] = []
    with FeatureWriter(out, eye.layout.kind, card=eye.card, grid=eye.layout.grid) as writer:
        resumed = len(writer.done)
        todo = {name: path for name, path in paths.items() if name not in writer.done}
        threads = workers or min(os.cpu_count() or 1, MOST_THREADS)
        # closed here also when something fails: the garbage collector would end its threads at any time
        with closing(_decoded(todo, eye.card, threads, 2 * batch)) as decoded:
            seen = track(decoded, "features", len(paths), resumed)
            for names, images in _batches(_readable(seen, skipped, strict), batch):
                writer.append(names, *eye.see(images))
        if not writer.done:
            raise DataError(f"{source}: none of {len(paths)} pictures can be read; {skipped[0][1]}")
        return Report(len(writer.done), resumed, skipped)


def _decoded(
    paths: Mapping[str, Path], card: EncoderCard, threads: int, ahead: int
) -> Generator[tuple[str, np.ndarray | DataError], None, None]:
    """Each name with its pixels, in order, while `ahead` more are decoded: Pillow frees Python's lock."""

    def decode(name: str, path: Path) -> np.ndarray | DataError:
        try:
            name.encode()
            return fit(read_image(path), card.size, card.resize)
        except UnicodeEncodeError:
            return DataError(f"{_shown(str(path))}: its name is not UTF-8; rename it")
        except DataError as error:
            return error

    pool = ThreadPoolExecutor(threads)
    coming = iter(paths.items())
    queue: deque[tuple[str, Future[np.ndarray | DataError]]] = deque()
    try:
        for name, path in coming:
            queue.append((name, pool.submit(decode, name, path)))
            if len(queue) > ahead:
                name, future = queue.popleft()
                yield name, future.result()
        for name, future in queue:
            yield name, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _readable(
    decoded: Iterable[tuple[str, np.ndarray | DataError]], skipped: list[tuple[str, str]], strict: bool
) -> Iterator[tuple[str, np.ndarray]]:
    """Without those that could not be read: they are added to `skipped`, or the first of them is raised."""
    for name, image in decoded:
        if isinstance(image, np.ndarray):
            yield name, image
        elif strict:
            raise image
        else:
            skipped.append((_shown(name), str(image)))


def _shown(name: str) -> str:
    """A file's name as it can be printed, whatever its bytes."""
    return os.fsencode(name).decode(errors="replace")


def _batches(images: Iterable[tuple[str, np.ndarray]], size: int) -> Iterator[tuple[list[str], np.ndarray]]:
    images = iter(images)
    while several := list(islice(images, size)):
        yield [name for name, _ in several], np.stack([image for _, image in several])


def _pixels(*, size: int = 64, resize: str = "squash") -> _Eye:
    """The pictures as they are, in the size that SmallCNN wants unless another is named."""
    if size < 1:
        raise ConfigError(f"encoder 'pixels': size={size} must be 1 or more")
    card = EncoderCard(PIXELS, {"size": size, "resize": resize}, size, check_resize(resize))
    return _Eye(card, Layout.of_pixels(size), lambda images: (images, None, None))


def _encoder(spec: str, options: Mapping[str, Any], device: str) -> _Eye:
    where = choose_device(device)
    encoder = frozen_encoder(spec, options)
    card, layout = card_of(spec, options, encoder), Layout.of(encoder.shape)
    encoder.to(where)
    if isinstance(encoder, TorchvisionEncoder):  # a fifth faster on a CPU; other networks may not bear it
        encoder.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def see(images: np.ndarray) -> Arrays:
        try:
            features = encoder(torch.from_numpy(images).to(where).float().div_(255))
        except torch.cuda.OutOfMemoryError as error:
            raise ConfigError(f"batch={len(images)}: the memory of {where} is full; use a smaller batch") from error
        counts = features.mask.sum(1).cpu().numpy() if layout.kind == "regions" else None
        boxes = None if features.boxes is None else features.boxes.float().cpu().numpy()
        return features.values.float().cpu().numpy(), counts, boxes

    return _Eye(card, layout, see)
