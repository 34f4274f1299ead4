"""Data sets of text without images: `rlcap prepare text TRAIN.txt --dev DEV.txt` and `rlcap prepare oracle`."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

TEXT, ORACLE = "text", "oracle"  # before or in place of a FILE
COUNT, HELD_OUT = 10000, 2000  # sentences of an oracle, unless told otherwise
AT_ONCE = 1000  # sentences that an oracle draws together


def add_options(parser: argparse.ArgumentParser, positive: Callable[[str], int]) -> None:
    group = parser.add_argument_group("text", "sentences without images: a file with one a line, or an oracle's")
    group.add_argument("--dev", metavar="FILE", help="text: the sentences to evaluate on")
    group.add_argument("--weights", metavar="FILE.npz", help="oracle: of its LSTM (default: drawn by --seed)")
    group.add_argument("--length", metavar="N", type=positive, default=20, help="oracle: words a sentence (20)")


def prepare_text(out: "Path", arguments: argparse.Namespace) -> None:
    """One record a line."""
    from pathlib import Path

    from rlcap.data.preparation import TRAIN, check_source, data_folder
    from rlcap.data.text import DEV, read_sentences, write_sentences
    from rlcap.errors import ConfigError

    files = [Path(name) for name in arguments.files[1:]]
    if len(files) != 1:
        raise ConfigError(f"prepare text: takes one file to train on, not {len(files)}; name the other one with --dev")
    if arguments.dev is not None:
        files.append(Path(arguments.dev))
    splits = {split: read_sentences(file) for split, file in zip((TRAIN, DEV), files, strict=False)}
    source = f"text ({', '.join(file.name for file in files)})"
    check_source(out, source)
    with data_folder(out) as part:
        write_sentences(part, splits, source=source, min_count=arguments.min_count)


def prepare_oracle(out: "Path", arguments: argparse.Namespace) -> None:
    """Sentences that it draws: --count to train on, --hold-out others to evaluate on."""
    from pathlib import Path

    import torch

    from rlcap.data import dataset
    from rlcap.data.preparation import TRAIN, check_source, data_folder
    from rlcap.data.text import DEV, write_sentences
    from rlcap.models.oracle import OracleLSTM, drawn_weights, read_weights, save_weights
    from rlcap.progress import track

    length, seed = arguments.length, arguments.seed
    if arguments.weights is None:
        weights, name = drawn_weights(seed), "drawn weights"
    else:
        weights, name = read_weights(Path(arguments.weights)), Path(arguments.weights).name
    source = f"oracle ({name}, seed {seed}, length {length})"
    check_source(out, source)
    oracle, generator = OracleLSTM(weights), torch.Generator().manual_seed(seed)
    count = COUNT if arguments.count is None else arguments.count
    held_out = HELD_OUT if arguments.hold_out is None else arguments.hold_out
    sizes = [min(AT_ONCE, count + held_out - first) for first in range(0, count + held_out, AT_ONCE)]
    parts = [oracle.sample(size, length, generator) for size in track(sizes, "drawing sentences", len(sizes))]
    score = -torch.cat([oracle.log_prob(part) for part in parts]).mean().item()
    sentences = [list(map(str, words)) for part in parts for words in part.tolist()]
    with data_folder(out) as part:
        save_weights(part / dataset.ORACLE, weights)
        write_sentences(
            part,
            {TRAIN: sentences[:count], **({DEV: sentences[count:]} if held_out else {})},
            source=source,
            words=list(map(str, range(len(weights[0])))),
            notes=[f"the oracle's score of its own sentences: {score:.3f} nats a word"],
        )
