"""`rlcap check-policy NAME [setting=value …]`: a policy tried before a run depends on it."""

import argparse

from rlcap.cli.check_reward import setting


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("policy", metavar="POLICY", help="my_module:MyPolicy or a short name (rlcap list policies)")
    parser.add_argument(
        "settings", metavar="setting=value", nargs="*", type=setting, help="as a recipe would give them"
    )


def run(arguments: argparse.Namespace) -> int:
    from rlcap.policy_check import check_policy

    check = check_policy(arguments.policy, dict(arguments.settings))
    for line in check.lines():
        print(line)
    return 2 if check.problems else 0
