"""The caption metrics against pycocoevalcap's Python scorers, the pointing game against counting by hand."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from rlcap.data.frequencies import DocumentFrequencies
from rlcap.data.tokens import tokenise
from rlcap.errors import ConfigError, DataError
from rlcap.metrics import NAMES, evaluate_captions
from rlcap.metrics.cider import CiderReferences, cider, cider_d
from rlcap.metrics.pointing import Pointing, cells_of, movement, pointing

EXACT = 1e-9  # both sides add the same few hundred doubles, perhaps in another order: the worst seen is 4e-15

Captions = Sequence[Sequence[str]]
References = Sequence[Sequence[Sequence[str]]]


def split(text: str) -> list[str]:
    return text.split()


def coco_caption(captions: Captions, references: References) -> dict[str, tuple[float, np.ndarray]]:
    """pycocoevalcap's figures under our keys: corpus and per image."""
    given = {i: [" ".join(words) for words in image] for i, image in enumerate(references)}
    said = {i: [" ".join(words)] for i, words in enumerate(captions)}
    bleu_corpus, bleu_images = Bleu(4).compute_score(given, said, verbose=0)
    figures = {f"bleu_{n + 1}": (bleu_corpus[n], np.array(bleu_images[n])) for n in range(4)}
    figures["rouge_l"] = Rouge().compute_score(given, said)
    if any(words for image in references for words in image):  # it fails where no reference has a word
        figures["cider_d"] = Cider().compute_score(given, said)
    return figures


def assert_equal(captions: Captions, references: References) -> None:
    ours = evaluate_captions(captions, references)
    for key, (corpus, per_image) in coco_caption(captions, references).items():
        assert ours[key].corpus == pytest.approx(corpus, abs=EXACT), key
        np.testing.assert_allclose(ours[key].per_image, per_image, rtol=0, atol=EXACT, err_msg=key)


# Few words, so that n-grams repeat and match; some are odd: a combining mark, other scripts, an emoji.
words = st.lists(st.sampled_from(["a", "dog", "on", "é", "e\u0301", "中国", "-lrb-", "😀"]), max_size=12)
images = st.lists(st.tuples(words, st.lists(words, min_size=1, max_size=5)), min_size=1, max_size=6)


@settings(max_examples=150, deadline=None)
@given(images)
def test_all_metrics_equal_coco_caption(pairs: list[tuple[list[str], list[list[str]]]]) -> None:
    assert_equal([caption for caption, _ in pairs], [references for _, references in pairs])


@pytest.mark.parametrize(
    ("caption", "references"),
    [
        ("", ["a dog"]),
        ("", [""]),
        ("a dog", [""]),
        ("a a a a a a", ["a dog on a mat", "a a"]),
        ("a dog on a mat by the sea in the sun", ["a dog", "a mat"]),
        ("dog", ["dog"]),
        ("a dog sits", ["a dog runs away now", "a dog"]),  # as far from one length as from the other
    ],
)
@pytest.mark.parametrize("others", [0, 2])
def test_corners_equal_coco_caption(caption: str, references: list[str], others: int) -> None:
    image = (caption.split(), [reference.split() for reference in references])
    pairs = [image, *[(split("a red ball"), [split("a red box"), split("the ball")])] * others]
    assert_equal([said for said, _ in pairs], [given for _, given in pairs])


def test_bleu_equals_sacrebleu_where_something_matches() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    captions = ["a brown dog runs on the green grass", "two men play chess in a park", "a red ball"]
    references = [
        ["a brown dog runs over green grass", "the dog is on the green grass"],
        ["two men play a game of chess in a park", "men in a park"],
        ["a red ball lies there", "a ball"],
    ]
    streams = list(zip(*references, strict=True))
    theirs = sacrebleu.corpus_bleu(captions, streams, tokenize="none", smooth_method="none").score / 100
    ours = evaluate_captions([c.split() for c in captions], [[r.split() for r in image] for image in references])
    assert ours["bleu_4"].corpus == pytest.approx(theirs, abs=1e-8)  # coco-caption's 1e-9 beside each count


def test_perfect_captions_reach_the_top_of_each_scale() -> None:
    captions = [
        split("a dog runs on grass"),
        split("two red cats sleep here"),
        split("one man eats an apple"),
    ]
    results = evaluate_captions(captions, [[caption] for caption in captions], ("bleu", "rouge_l", "cider_d", "cider"))
    tops = {key: 10.0 if key.startswith("cider") else 1.0 for key in NAMES}
    assert {key: result.corpus for key, result in results.items()} == pytest.approx(tops, abs=1e-8)


def test_plain_cider_by_hand() -> None:
    """Two images; "a" is in both, so that it weighs log(2/2) = 0, and every other n-gram weighs log 2.

    "a dog dog" has dog twice, the bigrams (a dog) and (dog dog), a trigram; the reference "a dog" has dog
    and (a dog). Cosines of orders 1 to 4: 1, 1/sqrt(2), 0, 0. The other image has nothing in common.
    """
    captions, references = [split("a dog dog"), ["x"]], [[split("a dog")], [split("a cat")]]
    plain = cider(captions, references)
    assert plain.per_image == pytest.approx([10 * (1 + 0.5**0.5) / 4, 0.0])
    assert plain.corpus == pytest.approx(plain.per_image.mean())
    # CIDEr-D counts dog once of two, so half the cosine; its lengths differ by one word.
    clipped = cider_d(captions, references)
    assert clipped.per_image[0] == pytest.approx(10 * (0.5 + 0.5**0.5) / 4 * np.exp(-1 / 72))


def test_one_image_scores_sensibly_with_training_frequencies_alone() -> None:
    training = [[[word, "dog", "runs", "on", "grass"], ["some", word]] for word in ("a", "the", "my", "his")]
    training += [[["a", "cat"]], [["two", "men", "eat"]]]
    frequencies = DocumentFrequencies.build(training, fingerprint="test")
    end = ["<end>"]
    references = [[split("the dog runs on grass") + end, split("the dog sits there") + end]]
    good, bad = split("the dog runs on grass") + end, split("two men eat") + end
    assert cider_d([good], references).corpus == 0.0  # log(1): the only image has every n-gram
    assert cider_d([good], references, frequencies).corpus > 4
    assert cider_d([good[:-1]], references, frequencies).corpus < cider_d([good], references, frequencies).corpus
    assert cider_d([bad], references, frequencies).corpus < 0.1


def test_frequencies_of_the_evaluated_references_change_nothing() -> None:
    references = [[["a", "dog"], ["the", "dog"]], [["a", "cat"]], [["a", "dog", "and", "a", "cat"]]]
    captions = [["a", "dog"], ["a", "bird"], ["a", "cat", "and", "a", "dog"]]
    frequencies = DocumentFrequencies.build(references, fingerprint="test")
    np.testing.assert_array_equal(
        cider_d(captions, references).per_image, cider_d(captions, references, frequencies).per_image
    )


def test_prepared_references_serve_many_rounds() -> None:
    references = [[["a", "dog"], ["the", "dog"]], [["a", "cat"]]]
    prepared = CiderReferences(references)
    for captions in ([["a", "dog"], ["a", "cat"]], [["the", "cat"], []]):
        assert prepared.cider_d(captions).corpus == cider_d(captions, references).corpus
        assert prepared.cider(captions).corpus == cider(captions, references).corpus


def test_mistakes_are_named() -> None:
    with pytest.raises(DataError, match="2 captions for the references of 1 images"):
        evaluate_captions([["a"], ["b"]], [[["a"]]])
    with pytest.raises(DataError, match="image 1 has no reference captions"):
        evaluate_captions([["a"], ["b"]], [[["a"]], []])
    with pytest.raises(DataError, match="no images"):
        evaluate_captions([], [])
    with pytest.raises(ConfigError, match=r"'cidr' \(did you mean 'cider'\?\)"):
        evaluate_captions([["a"]], [[["a"]]], ("cidr",))


def test_pointing_counts_cells_by_their_centres() -> None:
    assert cells_of((0.0, 0.0, 0.5, 1.0), (2, 2)).tolist() == [True, False, True, False]
    assert cells_of((0.3, 0.0, 1.0, 0.7), (2, 2)).tolist() == [False, True, False, False]
    assert cells_of((0.9, 0.9, 1.0, 1.0), (2, 2)).tolist() == [False, False, False, True]  # holds no centre


def test_pointing_scores_hits_mass_and_chance() -> None:
    attention = np.array([[0.7, 0.1, 0.1, 0.1], [0.4, 0.3, 0.2, 0.1], [0.25, 0.25, 0.25, 0.25]], np.float32)
    left, bottom = (0.0, 0.0, 0.5, 1.0), (0.0, 0.5, 1.0, 1.0)
    one = pointing(attention, [(0, 0)], [left, bottom], (2, 2))
    assert (one.words, one.accuracy, one.chance) == (1, 1.0, 0.5)
    assert one.mass == pytest.approx(0.8)
    two = pointing(attention, [(1, 1)], [left, bottom], (2, 2))
    assert (two.accuracy, two.mass) == (0.0, pytest.approx(0.3))
    both = pointing(attention, [(1, 0), (1, 1)], [left, bottom], (2, 2))  # one word, two objects
    assert (both.words, both.accuracy, both.chance) == (1, 1.0, 0.75)
    uniform = pointing(attention, [(2, 0)], [left], (2, 2))
    assert uniform.accuracy == uniform.mass == uniform.chance == 0.5
    total = Pointing.total([one, two, pointing(attention, [], [], (2, 2))])
    assert (total.words, total.accuracy, total.mass) == (2, 0.5, pytest.approx(0.55))
    three = Pointing(words=3, accuracy=1.0, mass=0.5, chance=0.25)
    assert Pointing.total([three, Pointing(1, 0.0, 0.1, 0.65)]) == Pointing(4, 0.75, pytest.approx(0.4), 0.35)
    assert Pointing.total([]) == Pointing(0, 0.0, 0.0, 0.0)


def test_movement_is_what_leaves_its_place_from_word_to_word() -> None:
    gaze = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0.5, 0.5], [0, 0.5, 0.5]])
    assert movement(gaze).tolist() == [1.0, 0.5, 0.0]
    assert movement(gaze[:1]).shape == (0,)


def test_pointing_refuses_attention_off_the_grid() -> None:
    with pytest.raises(ValueError, match="grid of 2 x 3"):
        pointing(np.ones((1, 4)), [], [], (2, 3))


@pytest.mark.real
def test_flickr8k_dev_equals_coco_caption() -> None:
    """Leave one out: the first caption of each image against the other four."""
    folder = Path(os.environ["RLCAP_DATA"]) / "flickr8k"
    images: dict[str, list[list[str]]] = {name: [] for name in (folder / "Flickr_8k.devImages.txt").read_text().split()}
    for line in (folder / "Flickr8k.token.txt").read_text(encoding="utf-8").split("\n"):
        name, _, caption = line.partition("\t")
        if (image := name.split("#")[0]) in images:
            images[image].append(tokenise(caption))
    assert len(images) == 1000
    assert_equal([image[0] for image in images.values()], [image[1:] for image in images.values()])
