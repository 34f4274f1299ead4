"""`rlcap goals RUN`: what the Manager of a LeakGAN captioner wants, word by word, beside where the Worker looks."""

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the folder of a run of policy leakgan")
    parser.add_argument("--split", help="default: the recipe's data.evaluate")
    parser.add_argument("--data", metavar="FOLDER", help="the prepared data set, if it has moved")
    parser.add_argument("--features", metavar="FILE.h5", help="its features, if they have moved")
    parser.add_argument("--out", metavar="OUT.png", help="draw goals, gazes and their changes of the first captions")
    parser.add_argument("--captions", type=int, default=3, metavar="N", help="in the picture (3)")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best")
    parser.add_argument("--device", default="auto")


def run(arguments: argparse.Namespace) -> int:
    from rlcap.cli.pictures import open_album
    from rlcap.errors import ConfigError
    from rlcap.evaluation import caption_split
    from rlcap.goals import goals_picture, steer, together
    from rlcap.pictures import check_format, save_picture
    from rlcap.run import load

    if arguments.captions < 1:
        raise ConfigError(f"--captions {arguments.captions}: must be at least 1")
    if arguments.out:
        check_format(arguments.out)
    loaded = load(arguments.run, arguments.device, arguments.checkpoint)
    split = arguments.split or loaded.experiment.data.evaluate
    album = open_album(loaded, split, arguments.data, arguments.features, None)
    said = caption_split(loaded.policy, album.store, album.rows, loaded.experiment.decoding, loaded.device)
    captions = steer(loaded.policy, album.store, album.rows, said, loaded.device)
    print(together(captions))
    if arguments.out:
        shown = [caption for caption in captions if len(caption.words) > 1][: arguments.captions]
        save_picture(goals_picture(shown), arguments.out)
        print(f"goals and gazes of {len(shown)} captions: {arguments.out}")
    return 0
