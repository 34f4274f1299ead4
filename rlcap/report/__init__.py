"""One self-contained HTML page about one run or several: what was run, its curves, its captions. See `rlcap report`."""
