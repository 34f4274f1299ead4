"""Our words against those of the Java tool: a table that it verified, and the tool itself on request."""

import os
import random
from pathlib import Path

import pytest

from rlcap.data.tokens import tokenise

# What pycocoevalcap's PTBTokenizer makes of these; `test_the_table_is_what_java_says` repeats the comparison.
TABLE = {
    "": "",
    "...": "",
    "A dog .": "a dog",
    "A dog runs through the Grass.": "a dog runs through the grass",
    "Two dogs , one cat; and: a bird!": "two dogs one cat and a bird",
    # contractions
    "It's the dog's ball": "it 's the dog 's ball",
    "they're I'm we'll he'd I've": "they 're i 'm we 'll he 'd i 've",
    "don't can't won't ISN'T shouldn't've": "do n't ca n't wo n't is n't should n't 've",
    "cannot gonna wanna gotta lemme gimme Cannot": "can not gon na wan na got ta lem me gim me can not",
    "the boys' kite and James' hat": "the boys kite and james hat",
    "'tis 'twas 'em 'til 'cause rock 'n' roll": "'t is 't was 'em 'til 'cause rock 'n' roll",
    "o'clock O'Brien ma'am y'all d'Artagnan": "o'clock o'brien ma'am y' all d'artagnan",
    "rock'n'roll jack-o'-lantern": "rock 'n' roll jack-o lantern",
    "it’s don’t “quoted” ‘single’": "it 's do n't quoted single",
    # quotation marks
    "a sign says \"stop\" and 'go'": "a sign says stop and go",
    "a sign says \" stop \" and ``go''": "a sign says stop and go",
    # hyphens, dashes, slashes
    "a t-shirt and black-and-white skis": "a t-shirt and black-and-white skis",
    "word--word word - word -word word-": "word word word word word word",
    "word—word word – word": "word word word word",
    "a man and/or a woman w/ a hat, w/o shoes, 24/7": "a man and/or a woman w / a hat w/o shoes 24/7",
    # full stops
    "Mr. T of St. Louis at 5 p.m. etc.": "mr. t of st. louis at 5 p.m. etc.",
    "in the U.S. near D.C. and the U.K": "in the u.s. near d.c. and the u.k",
    "a man on a ship. Wash. is a state": "a man on a ship wash. is a state",
    "a car wash. A mass. no. 5 is no. good": "a car wash a mass no. 5 is no good",
    "a dog.The cat": "a dog.the cat",
    "a dog...a cat wait.. what?! no!": "a dog a cat wait what ?! no",
    "dog., cat.; bird.": "dog. cat. bird",
    # numbers
    "10:30am 5pm 1,000.5 .5 3rd 1950s '50s 50's": "10:30 am 5pm 1,000.5 .5 3rd 1950s '50s 50 's",
    "3 1/2 feet, 5'10\" tall, 4x4, 3-D, 20-30": "3 1/2 feet 5 10 tall 4x4 3-d 20-30",
    "$5 £5 €5 5¢ 50% #1 2½": "$ 5 # 5 $ 5 5 cents 50 % # 1 2 1/2",
    "call 650-555-1234 on 9/11/2001": "call 650-555-1234 on 9/11/2001",
    # brackets and symbols
    "a man (in black) [sic] {x}": "a man -lrb- in black -rrb- -lsb- sic -rsb- -lcb- x -rcb-",
    "R&B Q&A AT&T at&t a &amp; b salt & pepper": "r&b q&a at&t at & t a & b salt & pepper",
    "a * b + c = d_e @user #tag <b> <unk> :) ;-(": ("a * b + c = d_e @user #tag <b> <unk> :-rrb- ;--lrb-"),
    "at www.foo.com or http://foo.com/a?b=c, me@foo.com": "at www.foo.com or http://foo.com/a?b=c me@foo.com",
    # other scripts
    "Café naïve ÜBER 中国 ΣΑΣ 😀 ♥": "café naïve über 中国 σας ♥",
    "a\u00a0b\u200bc\u3000d soft\u00adhyphen": "a b c d softhyphen",
}


@pytest.mark.parametrize("caption", TABLE)
def test_words_are_those_that_coco_caption_scores(caption: str) -> None:
    assert tokenise(caption) == TABLE[caption].split()


@pytest.mark.parametrize("blank", ["\t", "\n", "\r", "\r\n", "\v", "\f", "\x00", "\x1c", "\x85", "\u2028", "\u2029"])
def test_control_characters_separate_words_and_nothing_else(blank: str) -> None:
    assert tokenise(f"A dog{blank}and it's{blank}cat .{blank}") == ["a", "dog", "and", "it", "'s", "cat"]


def test_no_word_is_empty_or_holds_white_space() -> None:
    draw = random.Random(0)
    alphabet = "aZs 09'’\".,;:!?-–—/()[]&#$%@<>=_*\t\u2028é中½😀\u0301"
    for _ in range(3000):
        caption = "".join(draw.choices(alphabet, k=draw.randrange(15)))
        assert all(word.split() == [word] for word in tokenise(caption)), caption


def test_long_nonsense_takes_no_long_time() -> None:
    for piece in ("a.", "a-", "a'", "<a ", "1/", "a@", "::", "a b="):
        words = tokenise(piece * 3000)  # a pattern that backtracks would take hours
        assert len("".join(words)) <= 3000 * len(piece)


def java_words(captions: list[str]) -> list[list[str]]:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    table = PTBTokenizer().tokenize({0: [{"caption": caption} for caption in captions]})
    return [caption.split() for caption in table[0]]


@pytest.fixture
def java_reads_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JDK_JAVA_OPTIONS", "-Dfile.encoding=UTF-8")


@pytest.mark.java
@pytest.mark.usefixtures("java_reads_utf8")
def test_the_table_is_what_java_says() -> None:
    # Java looks past a caption's end: a word like any other shuts the next one out.
    words = java_words([f"{caption} dog" for caption in TABLE])
    assert words == [[*expected.split(), "dog"] for expected in TABLE.values()]


@pytest.mark.java
@pytest.mark.real
@pytest.mark.usefixtures("java_reads_utf8")
def test_flickr8k_train_captions_come_out_equal() -> None:
    folder = Path(os.environ["RLCAP_DATA"]) / "flickr8k"
    train = set((folder / "Flickr_8k.trainImages.txt").read_text().split())
    lines = (folder / "Flickr8k.token.txt").read_text(encoding="utf-8").split("\n")
    pairs = [line.split("\t", 1) for line in lines if line]
    captions = [caption for name, caption in pairs if name.split("#")[0] in train]
    assert len(captions) == 30_000
    different = [
        caption for caption, words in zip(captions, java_words(captions), strict=True) if tokenise(caption) != words
    ]
    assert len(different) <= 3, different  # 99.99%; there were none
