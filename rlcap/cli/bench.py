"""`rlcap bench WHAT`: how fast it is here next to what others use, and how noisy a gradient is."""

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

    from rlcap.bench import sru
    from rlcap.bench.packing import Packing
    from rlcap.bench.rewards import Row

IMAGES = 5_000  # made up, where no data set is given


class Bench(NamedTuple):
    meaning: str
    add_options: Callable[[argparse.ArgumentParser], None]
    perform: Callable[[argparse.Namespace], None]


def configure(parser: argparse.ArgumentParser) -> None:
    benches = parser.add_subparsers(dest="bench", metavar="WHAT", required=True)
    for name, bench in BENCHES.items():
        _add_options(benches.add_parser(name, help=bench.meaning, description=bench.meaning, allow_abbrev=False), bench)


def run(arguments: argparse.Namespace) -> int:
    BENCHES[arguments.bench].perform(arguments)
    return 0


def _add_options(parser: argparse.ArgumentParser, bench: Bench) -> None:
    quiet = argparse.SUPPRESS  # the switches of every command also stand behind the name of a benchmark
    parser.add_argument("--debug", action="store_true", default=quiet, help="show the traceback of an error")
    parser.add_argument("--quiet", action="store_true", default=quiet, help="no progress, only results")
    parser.add_argument(
        "--device",
        nargs="+",
        default=["auto"],
        help="cpu, cuda, or both; auto (the default): the CPU, and the GPU where there is one",
    )
    parser.add_argument(
        "--threads",
        type=_positive,
        nargs="+",
        metavar="N",
        help="threads of torch on the CPU, several to compare them (default: 1, and one a core)",
    )
    parser.add_argument("--json", action="store_true", help="print the rows as a JSON list, and nothing else")
    bench.add_options(parser)


def _add_reward_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", metavar="FOLDER", help="a prepared data set (default: made-up captions, COCO-like)")
    parser.add_argument("--coco", action="store_true", help="also pack as many references as COCO has")
    parser.add_argument(
        "--batch", type=_positive, nargs="+", default=[300, 3000], metavar="N", help="captions at once (300 3000)"
    )
    parser.add_argument(
        "--seconds", type=float, default=10, metavar="S", help="of rounds, for each reward and batch (10)"
    )


def _rewards(arguments: argparse.Namespace) -> None:
    import json
    from dataclasses import asdict
    from pathlib import Path

    from rlcap.bench.captions import made_up, prepared
    from rlcap.bench.packing import measure_coco_packing, measure_packing
    from rlcap.bench.rewards import measure_rewards

    settings = _settings(arguments)
    references = prepared(Path(arguments.data)) if arguments.data else made_up(IMAGES)
    packings = measure_packing(references) + (measure_coco_packing() if arguments.coco else [])
    rows = measure_rewards(references, settings, batches=arguments.batch, seconds=arguments.seconds)
    if arguments.json:
        packing = {row.name: [asdict(each) for each in packings if row.name in each.rewards] for row in rows}
        print(json.dumps([{**asdict(row), "packing": packing[row.name]} for row in rows]))
        return
    what = arguments.data or "made up in the likeness of COCO's"
    print(f"{_machine(settings)}\ncaptions: {what}; references of {len(references)} images\n")
    print(_table(_reward_lines(rows)))
    print("\nTimes are medians, and between brackets the quartiles, over rounds in which all take turns.\n")
    print(_table(_packing_lines(packings)))


def _add_variance_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipe", metavar="RECIPE", help="of a policy-gradient training, or its last stage; training.start says of what"
    )
    parser.add_argument("overrides", metavar="section.key=value", nargs="*", help="any value of the recipe")
    parser.add_argument("--baselines", nargs="+", metavar="NAME", help="default: all that so many samples allow")
    parser.add_argument("--draws", type=_positive, default=40, metavar="N", help="of captions for the one batch (40)")


def _variance(arguments: argparse.Namespace) -> None:
    import json
    from dataclasses import asdict

    import torch

    from rlcap.agents.baselines import BASELINES, COMPARING
    from rlcap.agents.rollout import Drawing
    from rlcap.agents.variance import gradient_variance
    from rlcap.contracts import Policy
    from rlcap.data.batches import training_batches
    from rlcap.errors import ConfigError
    from rlcap.materials import gather
    from rlcap.recipe import load_recipe

    device, threads = _settings(arguments)[0]
    experiment = load_recipe(arguments.recipe, [*arguments.overrides, f"training.device={device}"])
    torch.set_num_threads(threads)
    made = gather(experiment)
    if made.judge is None or not isinstance(made.model, Policy):
        raise ConfigError(f"{arguments.recipe}: has no rewards; give the recipe of a policy-gradient training")
    batch = next(training_batches(made.batches, made.plan)).to(device)
    drawing = experiment.trainer.settings.get("rollout") or Drawing()
    possible = [name for name in BASELINES if drawing.samples > 1 or name not in COMPARING]
    noises = gradient_variance(
        made.model,
        batch,
        made.judge,
        arguments.baselines or possible,
        max(2, arguments.draws),
        drawing=drawing,
        seed=experiment.training.seed,
    )
    if arguments.json:
        print(json.dumps([{"baseline": name, **asdict(noise)} for name, noise in noises.items()]))
        return
    start = experiment.training.start or "random weights (training.start names a run)"
    print(f"{len(batch.images)} images x {drawing.samples} captions, {max(2, arguments.draws)} draws, from {start}\n")
    lines = [(name, f"{noise.relative:.1f}", f"{noise.variance:.3g}") for name, noise in noises.items()]
    print(_table([("baseline", "variance / signal", "variance"), *lines]))


def _add_sru_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shape",
        type=_shape,
        nargs="+",
        metavar="ROWSxCHANNELSxWORDS",
        help="of what is learned from (64x512x20 128x512x40 64x1024x20)",
    )
    parser.add_argument("--seconds", type=float, default=20, metavar="S", help="of rounds, for each shape (20)")


def _sru(arguments: argparse.Namespace) -> None:
    import json
    from dataclasses import asdict

    from rlcap.bench.sru import SHAPES, measure_sru

    settings = _settings(arguments)
    rows = measure_sru(settings, shapes=arguments.shape or SHAPES, seconds=arguments.seconds)
    if arguments.json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    print(f"{_machine(settings)}\none layer, forward and backward; sizes are rows x channels x words\n")
    print(_table(_sru_lines(rows)))
    print("\nTimes are medians, and between brackets the quartiles, over rounds in which all take turns.")


def _add_leakgan_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=_positive, default=64, metavar="N", help="sentences, or images, at once (64)")
    parser.add_argument("--playouts", type=_positive, default=16, metavar="N", help="of each prefix (16)")
    parser.add_argument("--hidden", type=_positive, default=32, metavar="N", help="units on text; captioners: 8N (32)")
    parser.add_argument("--seconds", type=float, default=30, metavar="S", help="of rounds, text and captioners (30)")


def _leakgan(arguments: argparse.Namespace) -> None:
    import json
    from dataclasses import asdict

    from rlcap.bench.leakgan import Size, measure_leakgan

    settings = _settings(arguments)
    size = Size(rows=arguments.rows, playouts=arguments.playouts, hidden=arguments.hidden)
    rows = measure_leakgan(settings, size=size, seconds=arguments.seconds)
    if arguments.json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    print(f"{_machine(settings)}\n{size.rows} sentences of {size.length} words, {size.playouts} playouts a prefix\n")
    lines = [("what", "device", "threads", "ms", "words a second", "times soft attention")]
    for row in rows:
        words = "" if row.words_per_second is None else f"{row.words_per_second:,.0f}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        lines.append((row.name, row.device, str(row.threads), _time(row.ms, row.spread), words, ratio))
    print(_table(lines))


def _settings(arguments: argparse.Namespace) -> "Sequence[tuple[torch.device, int]]":
    """Devices with numbers of threads, which matter on the CPU alone."""
    import torch

    from rlcap.devices import choose_device

    names = arguments.device
    if "auto" in names:
        names = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    threads = arguments.threads or [1, torch.get_num_threads()]
    devices = [choose_device(name) for name in names]
    pairs = [(device, count) for device in devices for count in (threads if device.type == "cpu" else threads[:1])]
    return list(dict.fromkeys(pairs))


def _reward_lines(rows: "Iterable[Row]") -> Iterator[Sequence[str]]:
    yield "reward", "device", "threads", "batch", "µs a caption", "yardstick", "µs a caption", "ratio"
    for row in rows:
        ours, theirs = _time(row.us_per_caption, row.spread), _time(row.yardstick_us_per_caption, row.yardstick_spread)
        place = row.name, row.device, str(row.threads), str(row.batch)
        yield *place, ours, row.yardstick, theirs, f"{row.ratio:.1f}"


def _sru_lines(rows: "Iterable[sru.Row]") -> Iterator[Sequence[str]]:
    yield "network", "device", "threads", "size", "ms", "yardstick", "ms", "ratio"
    for row in rows:
        ours, theirs = _time(row.ms, row.spread), _time(row.yardstick_ms, row.yardstick_spread)
        place = row.name, row.device, str(row.threads), f"{row.rows}x{row.channels}x{row.words}"
        yield *place, ours, row.yardstick, theirs, f"{row.ratio:.2f}"


def _time(median: float, spread: tuple[float, float]) -> str:
    digits = 2 if median < 10 else 1 if median < 100 else 0
    return f"{median:.{digits}f} ({spread[0]:.{digits}f}–{spread[1]:.{digits}f})"


def _packing_lines(packings: "Iterable[Packing]") -> Iterator[Sequence[str]]:
    yield "packed", "for", "images", "references", "s", "s of CPU", "MB", "MB while packing"
    for each in packings:
        figures = each.seconds, each.cpu_seconds, each.megabytes
        peak = "" if each.peak_megabytes is None else f"{each.peak_megabytes:.1f}"
        counts = str(each.images), str(each.references)
        yield each.what, ", ".join(each.rewards), *counts, *(f"{figure:.1f}" for figure in figures), peak


def _table(lines: Iterable[Sequence[str]]) -> str:
    rows = list(lines)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _machine(settings: "Sequence[tuple[torch.device, int]]") -> str:
    import os
    import platform
    from pathlib import Path

    import torch

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    processor = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    gpus = [torch.cuda.get_device_name(device) for device, _ in settings if device.type == "cuda"]
    python = f"Python {platform.python_version()}, torch {torch.__version__}"
    return ", ".join([processor, f"{os.cpu_count()} cores", *gpus, python])


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is no number above 0")
    return int(text)


def _shape(text: str) -> tuple[int, int, int]:
    sizes = text.split("x")
    if len(sizes) != 3:
        raise argparse.ArgumentTypeError(f"'{text}' is not like 64x512x20: rows, channels, words")
    rows, channels, words = map(_positive, sizes)
    return rows, channels, words


BENCHES = {
    "leakgan": Bench("an adversarial update by part, and LeakGAN's captioner", _add_leakgan_options, _leakgan),
    "rewards": Bench("rewards next to plain-Python scorers", _add_reward_options, _rewards),
    "sru": Bench("the SRU next to torch's LSTM and GRU", _add_sru_options, _sru),
    "variance": Bench("the noise of the policy gradient under each baseline", _add_variance_options, _variance),
}
