"""`rlcap check-reward NAME [setting=value …]`: a reward tried on made-up scenes before a run depends on it."""

import argparse
from typing import Any


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "reward", metavar="REWARD", help="my_module:function, my_module:Class or a short name (rlcap list rewards)"
    )
    parser.add_argument(
        "settings", metavar="setting=value", nargs="*", type=setting, help="as a recipe would give them"
    )


def run(arguments: argparse.Namespace) -> int:
    from rlcap.reward_check import check_reward

    check = check_reward(arguments.reward, dict(arguments.settings))
    for line in check.lines():
        print(line)
    return 2 if check.problems else 0


def setting(text: str) -> tuple[str, Any]:
    """The value as JSON, or else as the text that it is."""
    import json

    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise argparse.ArgumentTypeError(f"'{text}' is no setting=value")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
