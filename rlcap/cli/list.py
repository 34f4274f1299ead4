"""`rlcap list [KIND]`: what can be named in a recipe or on the command line."""

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "kind", metavar="KIND", nargs="?", help="policies, encoders, trainers or recipes; all without it"
    )


def run(arguments: argparse.Namespace) -> int:
    from rlcap.components import TABLES, names
    from rlcap.errors import ConfigError, did_you_mean
    from rlcap.recipe import recipes

    listings = {_plural(kind): names(kind) for kind in TABLES} | {"recipes": recipes()}
    kind = arguments.kind
    if kind is not None and kind not in listings:
        raise ConfigError(f"'{kind}' cannot be listed{did_you_mean(kind, listings)}")
    for heading, entries in listings.items():
        if kind is None:
            print(f"{heading}:")
        if kind in (None, heading):
            width = max(map(len, entries), default=0)
            for name, meaning in entries.items():
                print(f"{'  ' if kind is None else ''}{name:{width}}  {meaning}".rstrip())
    return 0


def _plural(kind: str) -> str:
    return f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
