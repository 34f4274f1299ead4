"""The scorers that rewards are measured against: plain Python over strings, as most projects use.

A yardstick takes a batch of texts and gives a score a caption. Making the texts from ids is not counted against it,
though training code must do that at every update.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rlcap.bench.captions import CaptionBatch
from rlcap.data.references import References
from rlcap.data.vocabulary import END
from rlcap.metrics.bleu import bleu
from rlcap.metrics.rouge import rouge_l

Ngram = tuple[str, ...]
Yardstick = Callable[[CaptionBatch], Sequence[float]]
ORDERS = 4
SIGMA = 6.0
PYCOCOEVALCAP = "pycocoevalcap"


def yardsticks(reward: str, references: References, images: Iterable[int]) -> dict[str, Yardstick]:
    """Those of one reward, by name. `images`: rows of `references` that batches will ask for."""
    if reward == "bleu_4":
        return {"plain": plain_bleu_4, PYCOCOEVALCAP: pycocoevalcap_bleu_4}
    if reward == "rouge_l":
        return {"plain": plain_rouge_l, PYCOCOEVALCAP: pycocoevalcap_rouge_l}
    plain = PlainCiderD(references.tokens)
    return {
        "plain, references cooked at each call": plain.cooking,
        "plain, references cached": plain.caching(references, images),
        PYCOCOEVALCAP: pycocoevalcap_cider,
    }


@dataclass(frozen=True)
class _Cooked:
    """A text as vectors, one an order: each n-gram's count times its rarity."""

    weights: list[dict[Ngram, float]]
    norms: list[float]
    length: int  # in words


class PlainCiderD:
    """CIDEr-D (Vedantam et al. 2015, https://arxiv.org/abs/1411.5726) with document frequencies in a dict.

    Somewhat quicker than the scorers in use, which call numpy for the logarithm of each single number.
    """

    def __init__(self, documents: Sequence[Sequence[Sequence[str]]]) -> None:
        """`documents`: the references of each training image, as words; an end token is put behind each."""
        self._images: Counter[Ngram] = Counter()  # that have an n-gram
        for image in documents:
            self._images.update({ngram for words in image for ngram in _count_ngrams([*words, END])})
        self._log_images = math.log(len(documents))

    def cooking(self, batch: CaptionBatch) -> list[float]:
        """References are cooked anew for each caption, as scorers in use do when captions of one image are several."""
        pairs = zip(batch.captions, batch.references, strict=True)
        return [self._score(self._cook(caption), list(map(self._cook, texts))) for caption, texts in pairs]

    def caching(self, references: References, images: Iterable[int]) -> Yardstick:
        """References cooked beforehand; captions are new at every call."""
        cooked = {
            image: [self._cook(" ".join([*words, END])) for words in references.tokens[image]] for image in set(images)
        }

        def score(batch: CaptionBatch) -> list[float]:
            pairs = zip(batch.captions, batch.images, strict=True)
            return [self._score(self._cook(caption), cooked[image]) for caption, image in pairs]

        return score

    def _cook(self, text: str) -> _Cooked:
        words = text.split()
        weights: list[dict[Ngram, float]] = [{} for _ in range(ORDERS)]
        squares = [0.0] * ORDERS
        for ngram, count in _count_ngrams(words).items():
            weight = count * (self._log_images - math.log(max(1, self._images.get(ngram, 0))))
            weights[len(ngram) - 1][ngram] = weight
            squares[len(ngram) - 1] += weight**2
        return _Cooked(weights, list(map(math.sqrt, squares)), len(words))

    @staticmethod
    def _score(caption: _Cooked, references: Sequence[_Cooked]) -> float:
        total = 0.0
        for reference in references:
            cosines = 0.0
            for n in range(ORDERS):
                theirs = reference.weights[n]
                product = 0.0
                for ngram, weight in caption.weights[n].items():
                    if ngram in theirs:
                        product += min(weight, theirs[ngram]) * theirs[ngram]
                if product:
                    cosines += product / (caption.norms[n] * reference.norms[n])
            total += cosines * math.exp(-((caption.length - reference.length) ** 2) / (2 * SIGMA**2))
        return 10 * total / (ORDERS * len(references))


def _count_ngrams(words: Sequence[str]) -> Counter[Ngram]:
    return Counter(tuple(words[i : i + n]) for n in range(1, ORDERS + 1) for i in range(len(words) - n + 1))


def plain_bleu_4(batch: CaptionBatch) -> list[float]:
    scores: list[float] = bleu(*_split(batch))[-1].per_image.tolist()
    return scores


def plain_rouge_l(batch: CaptionBatch) -> list[float]:
    scores: list[float] = rouge_l(*_split(batch)).per_image.tolist()
    return scores


def _split(batch: CaptionBatch) -> tuple[list[list[str]], list[list[list[str]]]]:
    return [text.split() for text in batch.captions], [[text.split() for text in texts] for texts in batch.references]


def pycocoevalcap_cider(batch: CaptionBatch) -> Sequence[float]:
    """Its document frequencies are those of the references that it is called with: other scores than the reward's."""
    from pycocoevalcap.cider.cider import Cider

    scores: Sequence[float] = Cider().compute_score(*_by_number(batch))[1]
    return scores


def pycocoevalcap_bleu_4(batch: CaptionBatch) -> Sequence[float]:
    from pycocoevalcap.bleu.bleu import Bleu

    scores: Sequence[float] = Bleu(ORDERS).compute_score(*_by_number(batch), verbose=0)[1][-1]
    return scores


def pycocoevalcap_rouge_l(batch: CaptionBatch) -> Sequence[float]:
    from pycocoevalcap.rouge.rouge import Rouge

    scores: Sequence[float] = Rouge().compute_score(*_by_number(batch))[1]
    return scores


def _by_number(batch: CaptionBatch) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    return dict(enumerate(batch.references)), {i: [text] for i, text in enumerate(batch.captions)}
