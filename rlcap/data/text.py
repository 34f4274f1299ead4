"""Text without images as a data set: each sentence is a record of its own, with one caption and no features.

Words are what stands between blanks, as they are. Where all sentences have one length, as those of an oracle, the
vocabulary has no end token.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rlcap.data.annotations import read_text
from rlcap.data.preparation import TRAIN, write_tokens
from rlcap.data.records import Record
from rlcap.data.vocabulary import Vocabulary
from rlcap.errors import DataError

TOKENISER = "blanks-1"  # as in rlcap.data.tokens
DEV = "dev"
Sentences = Sequence[Sequence[str]]


def read_sentences(path: Path) -> list[list[str]]:
    """The words of each line; an empty list for a blank one, so that places are line numbers."""
    return [line.split() for line in read_text(path).rstrip().split("\n")]


def write_sentences(
    folder: Path,
    splits: Mapping[str, Sentences],  # "train" among them
    *,
    source: str,
    min_count: int = 1,
    words: Sequence[str] | None = None,  # of the vocabulary; None: those of the training sentences
    notes: Sequence[str] = (),
) -> None:
    """The files of a data set, into a folder that is made by `data_folder`. A record is named "SPLIT:LINE"."""
    records, tokens, notes = [], [], list(notes)
    for split, sentences in splits.items():
        blank = sum(not sentence for sentence in sentences)
        if blank:
            notes.append(f"blank lines of '{split}', left out: {blank}")
        for number, sentence in enumerate(sentences, 1):
            if sentence:
                records.append(Record(f"{split}:{number}", split, (" ".join(sentence),)))
                tokens.append([list(sentence)])
    if not tokens:
        raise DataError(f"{source}: all lines are blank; name a file with sentences")
    lengths = {len(captions[0]) for captions in tokens}
    ends = len(lengths) > 1
    if not ends:
        notes.append(f"all sentences have {lengths.pop()} words: there is no end token")
    if words is None:
        vocabulary = Vocabulary.build(splits[TRAIN], min_count, TOKENISER, ends)
        if vocabulary.size == Vocabulary([]).size:
            raise DataError(f"no word occurs {min_count} times in '{TRAIN}'; choose a smaller --min-count")
    else:
        vocabulary = Vocabulary(words, tokeniser=TOKENISER, ends=ends)
    write_tokens(folder, records, tokens, vocabulary, source=source, notes=notes, images=False)
