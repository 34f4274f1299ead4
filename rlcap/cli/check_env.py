"""`rlcap check-env NAME [setting=value …]`: an environment tried before an agent depends on it."""

import argparse

from rlcap.cli.check_reward import setting


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "environment", metavar="ENV", help="my_module:Mine-v0, my_module:MyEnv, or one of ours, as rlcap/Caption-v0"
    )
    parser.add_argument("settings", metavar="setting=value", nargs="*", type=setting, help="arguments of it")


def run(arguments: argparse.Namespace) -> int:
    import rlcap.envs  # noqa: F401  registers ours
    from rlcap.envs.checking import check_env

    check = check_env(arguments.environment, dict(arguments.settings))
    for line in check.lines():
        print(line)
    return 2 if check.problems else 0
