"""The arithmetic of BLEU, ROUGE-L and CIDEr over lists of words: rewards and evaluation both use it.

These plain forms are the reference that faster ones are held against. They agree with coco-caption
(pycocoevalcap), corpus and per image. Its "CIDEr" is CIDEr-D here. METEOR and SPICE are Java programs, started
by the first caption that they are to judge.
"""

from collections.abc import Callable, Sequence

from rlcap.errors import ConfigError, did_you_mean
from rlcap.metrics.bleu import bleu
from rlcap.metrics.cider import cider, cider_d
from rlcap.metrics.meteor import meteor
from rlcap.metrics.ngrams import Result, Words
from rlcap.metrics.rouge import rouge_l
from rlcap.metrics.spice import spice

# A key for files -> the name for people.
NAMES = {
    "bleu_1": "BLEU-1",
    "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3",
    "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "cider_d": "CIDEr-D",
    "cider": "CIDEr",
}
JAVA_NAMES = {"meteor": "METEOR", "spice": "SPICE"}  # evaluated on request only
# Of sentences without images: nats a word, and how alike they are (rlcap.text_evaluation).
LOWER_IS_BETTER = frozenset({"nll", "oracle_nll", "self_bleu_2", "self_bleu_3", "self_bleu_4", "self_bleu_5"})
METRICS = ("bleu", "rouge_l", "cider_d")  # what evaluation shows unasked
_SINGLE: dict[str, Callable[[Sequence[Words], Sequence[Sequence[Words]]], Result]] = {
    "rouge_l": rouge_l,
    "cider_d": cider_d,
    "cider": cider,
    "meteor": meteor,
    "spice": spice,
}


def evaluate_captions(
    captions: Sequence[Words],  # one an image
    references: Sequence[Sequence[Words]],
    metrics: Sequence[str] = METRICS,
) -> dict[str, Result]:
    """By the keys of NAMES and JAVA_NAMES. CIDEr uses the document frequencies of these references, as published."""
    results: dict[str, Result] = {}
    for metric in metrics:
        if metric == "bleu":
            results |= {f"bleu_{n}": result for n, result in enumerate(bleu(captions, references), start=1)}
        elif metric in _SINGLE:
            results[metric] = _SINGLE[metric](captions, references)
        else:
            raise ConfigError(f"there is no metric '{metric}'{did_you_mean(metric, ['bleu', *_SINGLE])}")
    return results
