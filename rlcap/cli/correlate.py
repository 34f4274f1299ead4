"""`rlcap correlate JUDGEMENTS.txt --captions Flickr8k.token.txt`: metrics against what people say."""

import argparse
import math


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Custom is tau-c for Flickr8k-Expert, each of the three scores a data point, and tau-b for CrowdFlower, "
        "on the share of Yes. CIDEr's document frequencies are those of all images in the captions file."
    )
    parser.add_argument(
        "judgements", metavar="JUDGEMENTS.txt", help="Flickr8k's ExpertAnnotations.txt or CrowdFlowerAnnotations.txt"
    )
    parser.add_argument(
        "--captions",
        metavar="FILE",
        required=True,
        help="Flickr8k.token.txt, all splits in one: the references and the judged captions",
    )
    parser.add_argument(
        "--metrics",
        metavar="NAME",
        nargs="+",
        default=[],
        help="metrics besides BLEU, ROUGE-L, CIDEr-D and CIDEr: meteor, spice (both need Java)",
    )
    parser.add_argument(
        "--keep-own",
        action="store_true",
        help="keep judgements of captions that are references of their image (left out by default)",
    )
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    import json
    from pathlib import Path

    from rlcap.data.judgements import EXPERT, read_judgements
    from rlcap.metrics.correlation import TITLES, correlate

    judgements = read_judgements(Path(arguments.judgements), Path(arguments.captions))
    agreement = correlate(judgements, arguments.metrics, keep_own=arguments.keep_own)
    custom = "tau_c" if judgements.form == EXPERT else "tau_b"
    if arguments.json:
        summary = {"form": judgements.form, "custom": custom, "left_out": agreement.left_out}
        taus = {
            key: {"tau_b": _json(tau.tau_b), "tau_c": _json(tau.tau_c), "pairs": tau.points}
            for key, tau in agreement.taus.items()
        }
        print(json.dumps({**summary, "metrics": taus}))
        return 0
    print(f"{arguments.judgements}: {judgements.form} (custom: {custom.replace('_', '-')}), x100")
    if agreement.left_out:
        print(f"left out: {agreement.left_out} captions that are references of their image; --keep-own keeps them")
    width = max(len(TITLES[key]) for key in agreement.taus)
    print(f"{'':<{width}}    tau-b    tau-c    pairs")
    for key, tau in agreement.taus.items():
        print(f"{TITLES[key]:<{width}}  {100 * tau.tau_b:7.2f}  {100 * tau.tau_c:7.2f}  {tau.points:7}")
    print(f"CIDEr's document frequencies: {len(judgements.references)} images of {arguments.captions}")
    return 0


def _json(tau: float) -> float | None:
    """JSON has no NaN, which stands for a metric that says the same of everything."""
    return None if math.isnan(tau) else tau
