"""rlcap."""
