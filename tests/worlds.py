"""Small worlds for rewards: images with references, and candidates for them."""

from collections.abc import Sequence

import torch

from rlcap.contracts import Candidates
from rlcap.data.frequencies import DocumentFrequencies
from rlcap.data.references import References
from rlcap.data.vocabulary import Vocabulary

TEXTS = [
    ["a red ball", "the red ball is small", "a ball"],
    ["a blue box", "the box is blue and big"],
    ["a red box and a blue ball", "a box and a ball"],
]


def references_of(texts: Sequence[Sequence[str]] = TEXTS, min_count: int = 1, dtype=torch.float32) -> References:
    tokens = [[text.split() for text in image] for image in texts]
    vocabulary = Vocabulary.build([words for image in tokens for words in image], min_count=min_count)
    frequencies = DocumentFrequencies.build(tokens, "test")
    names = [f"{row}.jpg" for row in range(len(texts))]
    raw = [[text.capitalize() + "." for text in image] for image in texts]
    return References(names, tokens, raw, vocabulary, frequencies, dtype=dtype)


def candidates_of(
    references: References,
    captions: Sequence[Sequence[str]],  # of each image; a text that ends in "…" is cut: it has no end token
    images: Sequence[int] | None = None,
    drawn: int | None = None,
) -> Candidates:
    vocabulary = references.vocabulary
    rows = [
        [
            [*vocabulary.encode(text.rstrip("…").split()), *([] if text.endswith("…") else [vocabulary.end])]
            for text in image
        ]
        for image in captions
    ]
    longest = max(1, *(len(row) for image in rows for row in image))
    words = [[[*row, *[vocabulary.pad] * (longest - len(row))] for row in image] for image in rows]
    lengths = [[len(row) for row in image] for image in rows]
    return Candidates(
        words=torch.tensor(words),
        lengths=torch.tensor(lengths),
        images=torch.tensor(range(len(captions)) if images is None else images),
        drawn=len(captions[0]) if drawn is None else drawn,
    )
