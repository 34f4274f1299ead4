"""Recipes: one YAML file a published row. README.md is the table of evidence."""

if __name__ != "rlcap.experiments":
    raise ImportError(
        f"import rlcap.experiments, not {__name__}: the bare name would make a second copy of every class"
    )
