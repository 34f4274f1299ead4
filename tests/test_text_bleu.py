"""BLEU and self-BLEU of sentences without images, against the definition written out."""

import math
import random

import numpy as np
import pytest

from rlcap.metrics.text_bleu import ORDERS, text_bleu, text_self_bleu

WORDS = ["a", "dog", "cat", "runs", "on", "the", "grass", "."]


def by_definition(sentence, references, order):
    """Sentence BLEU of NLTK with smoothing method 1 and equal weights, without a thought for speed."""
    log_precisions = []
    for n in range(1, order + 1):
        said = [tuple(sentence[i : i + n]) for i in range(len(sentence) - n + 1)]
        matches = 0
        for ngram in set(said):
            in_references = [
                sum(tuple(line[i : i + n]) == ngram for i in range(len(line) - n + 1)) for line in references
            ]
            matches += min(said.count(ngram), max(in_references))
        if n == 1 and matches == 0:
            return 0.0
        log_precisions.append(math.log((matches or 0.1) / max(1, len(said))))
    gaps = sorted((abs(len(line) - len(sentence)), len(line)) for line in references)
    penalty = min(0.0, 1 - gaps[0][1] / len(sentence))
    return math.exp(sum(log_precisions) / order + penalty)


def some(count, seed):
    dice = random.Random(seed)
    return [dice.choices(WORDS, k=dice.choice([1, 2, 3, 5, 8, 8, 12])) for _ in range(count)]


def test_bleu_against_all_references():
    references = some(20, 1)
    sentences = [*some(30, 0), references[3], ["nobody"], [], ["a"] * 6]
    expected = [[by_definition(words, references, n) for n in ORDERS] for words in sentences]
    np.testing.assert_allclose(text_bleu(sentences, references), expected, atol=1e-12)
    assert text_bleu([references[9]], references) == pytest.approx(1) or len(references[9]) < 5


def test_self_bleu_leaves_the_sentence_itself_out():
    sentences = some(25, 2)
    sentences += [sentences[0], ["only", "here"], ["only", "only", "only"], some(1, 3)[0] * 3]
    expected = [
        [by_definition(words, sentences[:i] + sentences[i + 1 :], n) for n in ORDERS]
        for i, words in enumerate(sentences)
    ]
    np.testing.assert_allclose(text_self_bleu(sentences), expected, atol=1e-12)


def test_the_closest_length_counts_and_the_shorter_one_of_two():
    references, sentence = [["a"] * 4, ["a"] * 8], ["a"] * 6
    assert text_bleu([sentence], references)[0, 0] == pytest.approx(1), "4 words, so 6 are not short"
    assert by_definition(sentence, references, 2) == pytest.approx(1)
    alone = [["a"] * 3, ["a"] * 5, ["a"] * 9]  # the lengths of the others, not the sentence's own
    expected = [[by_definition(words, alone[:i] + alone[i + 1 :], n) for n in ORDERS] for i, words in enumerate(alone)]
    np.testing.assert_allclose(text_self_bleu(alone), expected, atol=1e-12)
    assert expected[0][0] == pytest.approx(math.exp(1 - 5 / 3))


def test_the_corners_of_self_bleu():
    assert text_self_bleu([["a", "b", "c", "d", "e"]]).tolist() == [[0.0] * 4], "nobody to be like"
    assert text_self_bleu([["a", "b", "c", "d", "e"]] * 2) == pytest.approx(1), "the very same"
    assert text_self_bleu([["a", "b"], ["c", "d"]]).max() == 0
    assert text_bleu([], [["a"]]).shape == (0, 4)
