"""Captioning as gymnasium environments."""

if __name__ != "rlcap.envs":
    raise ImportError(f"import rlcap.envs, not {__name__}: the bare name would make a second copy of every class")
