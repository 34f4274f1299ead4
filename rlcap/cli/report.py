"""`rlcap report RUN [RUN …]`: one HTML page that shows what was run, how it went, and what the captions are like."""

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", metavar="RUN", nargs="+", help="folders of runs; stages of a run stand side by side")
    parser.add_argument("--out", metavar="OUT.html", default="report.html", help="the page (report.html)")
    parser.add_argument("--captions", metavar="NAME", help="RUN/captions/NAME.json (the best checkpoint's)")
    parser.add_argument("--images", type=int, default=4, metavar="N", help="in each group: best, worst, … (4)")
    parser.add_argument("--no-models", action="store_true", help="from the folders alone, without attention")
    parser.add_argument("--data", metavar="FOLDER", help="the prepared data set, if it has moved")
    parser.add_argument("--features", metavar="FILE.h5", help="its features, if they have moved")
    parser.add_argument("--pictures", metavar="FOLDER", help="the split's (data.pictures; stored pixels)")
    parser.add_argument("--device", default="auto")


def run(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from rlcap.errors import ConfigError
    from rlcap.files import write_text
    from rlcap.report.page import report
    from rlcap.report.sources import Where

    out = Path(arguments.out)
    if out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--out {out}: is to be a page; name it OUT.html")
    if arguments.images < 1:
        raise ConfigError(f"--images {arguments.images}: must be at least 1")
    where = Where(arguments.data, arguments.features, arguments.pictures, arguments.device, not arguments.no_models)
    made = report(arguments.runs, where, arguments.captions, arguments.images)
    write_text(out, made.html)
    runs = ", ".join(column.label for column in made.columns)
    print(f"{out}: {runs}; {made.images} images, {out.stat().st_size / 1e6:.1f} MB")
    return 0
