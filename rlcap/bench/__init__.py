"""Benchmarks: one file each behind `rlcap bench`."""
