"""`rlcap compare RUN RUN …`: which differences between runs are more than noise."""

import argparse

from rlcap.cli.decoding import add_switches, given


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Each run is compared with the first, A, by a paired bootstrap over images. Of several seeds, what other "
        "seeds would do is part of the interval. One in twenty comparisons of equals is told as a difference."
    )
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        help="a run, a folder of several seeds, or a file of captions in the coco results format",
    )
    parser.add_argument("--split", help="as given to rlcap evaluate (default: the recipe's data.evaluate)")
    parser.add_argument(
        "--references",
        metavar="FILE",
        help="annotations or a prepared data set (default: the data set of the first run)",
    )
    parser.add_argument(
        "--metrics",
        metavar="NAME",
        nargs="+",
        default=[],
        help="these alone: bleu_1, …, bleu_4, rouge_l, cider_d, cider, meteor, spice",
    )
    parser.add_argument("--resamples", metavar="N", type=int, default=10_000, help="default: 10000")
    parser.add_argument("--json", action="store_true", help="print all as one JSON object")
    add_switches(parser)


def run(arguments: argparse.Namespace) -> int:
    import json
    from dataclasses import asdict

    from rlcap.comparing import compare

    way = "_".join(f"{name}{value}" for name, value in given(arguments).items())
    found = compare(
        arguments.runs,
        split=arguments.split,
        way=way,
        references=arguments.references,
        metrics=arguments.metrics,
        resamples=arguments.resamples,
    )
    print(json.dumps(asdict(found), default=str) if arguments.json else found.table())
    return 0
