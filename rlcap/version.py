"""The version, in a file that imports nothing: setup.cfg and `rlcap --version` read it."""

__version__ = "0.1.0"
