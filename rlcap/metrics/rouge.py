"""ROUGE-L (Lin 2004, https://aclanthology.org/W04-1013), exact to coco-caption."""

from collections.abc import Sequence

import numpy as np

from rlcap.metrics.ngrams import Result, Words, check_pairs

BETA = 1.2  # how much more recall weighs than precision


def rouge_l(captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> Result:
    """The F-measure of the longest common subsequence; the corpus value is the mean over images."""
    check_pairs(captions, references)
    scores = np.array([_rouge_l(*pair) for pair in zip(captions, references, strict=True)])
    return Result(float(scores.mean()), scores)


def rouge_l_single(captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> Result:
    """With precision and recall of one reference, the one that gives the best F-measure."""
    check_pairs(captions, references)
    pairs = zip(captions, references, strict=True)
    scores = np.array([max(_rouge_l(caption, [reference]) for reference in image) for caption, image in pairs])
    return Result(float(scores.mean()), scores)


def _rouge_l(caption: Words, references: Sequence[Words]) -> float:
    """Best precision and best recall, perhaps of two different references: coco-caption's convention."""
    caption = caption or [""]  # there, an empty caption is one empty word
    precision = recall = 0.0
    for reference in references:
        common = common_words(caption, reference or [""])
        precision = max(precision, common / len(caption))
        recall = max(recall, common / max(1, len(reference)))
    if precision == 0:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def common_words(left: Words, right: Words) -> int:
    """Length of the longest common subsequence."""
    best = [0] * (len(right) + 1)  # best[j]: of the words of `left` so far and the first j words of `right`
    for word in left:
        diagonal = 0
        for j, other in enumerate(right, start=1):
            above = best[j]
            if word == other:
                best[j] = diagonal + 1
            elif best[j - 1] > above:
                best[j] = best[j - 1]
            diagonal = above
    return best[-1]
