"""`rlcap score RESULTS.json --references FILE`: the metrics of any tool's captions."""

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "results",
        metavar="RESULTS.json",
        help="captions in the coco results format, as rlcap evaluate writes them, or {image: caption}; one an image, "
        "known by its image_id or its name",
    )
    parser.add_argument(
        "--references",
        metavar="FILE",
        required=True,
        help="annotations in any form that rlcap prepare reads, or the folder of a prepared data set",
    )
    parser.add_argument(
        "--split",
        metavar="NAME",
        help="score this split and leave other captions aside (default: the splits that the results touch)",
    )
    parser.add_argument(
        "--partial",
        action="store_true",
        help="score the images that have captions, though others of the split have none",
    )
    parser.add_argument(
        "--metrics",
        metavar="NAME",
        nargs="+",
        default=[],
        help="metrics besides BLEU, ROUGE-L, CIDEr-D and CIDEr: meteor, spice (both need Java)",
    )
    parser.add_argument(
        "--per-image",
        action="store_true",
        help="in place of the table, a line an image, tab separated, the worst by CIDEr-D first",
    )
    parser.add_argument(
        "--json", action="store_true", help="print corpus, per_image and the images in their order as one JSON object"
    )


def run(arguments: argparse.Namespace) -> int:
    import json
    from pathlib import Path

    from rlcap.scoring import score_captions

    score = score_captions(
        Path(arguments.results),
        arguments.references,
        split=arguments.split,
        partial=arguments.partial,
        metrics=arguments.metrics,
    )
    if arguments.json:
        print(json.dumps({"corpus": score.corpus, "per_image": score.per_image, "images": score.images}))
    elif arguments.per_image:
        print(score.lines())
    else:
        of = f" of {', '.join(score.splits)}" if score.splits else ""
        aside = f"; {score.left_aside} captions of other splits left aside" if score.left_aside else ""
        print(f"{arguments.results}: {len(score.images)} images{of}{aside}; x100")
        print(score.table())
    return 0
