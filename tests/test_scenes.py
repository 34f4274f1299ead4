"""Made-up scenes: the same each time, told rightly, drawn where they say, and never shared between splits."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rlcap.data.features import FeatureStore
from rlcap.data.records import Record
from rlcap.data.scene_drawing import COLOURS, SHAPES, SIZE, Thing, box_of, draw, stencil
from rlcap.data.scene_grammar import COUNTS, LONGEST, NOUNS, PLURALS, SHORTEST, Dice, Group, Plot, captions
from rlcap.data.scene_layout import CLEAR, sketch
from rlcap.data.scenes import make, scene, write_images
from rlcap.data.tokens import tokenise
from rlcap.errors import ConfigError, DataError

ALL = [(difficulty, index) for difficulty in (1, 2, 3) for index in range(60)]
NAMES = {
    said: shape for shape, nouns in NOUNS.items() for noun, _ in nouns for said in (noun, PLURALS.get(noun, noun + "s"))
}


def of_difficulty(difficulty: int) -> list[str]:
    return [caption for index in range(200) for caption in scene(3, index, difficulty).captions]


@pytest.mark.parametrize("difficulty", [1, 2, 3])
def test_a_scene_is_the_same_each_time(difficulty: int) -> None:
    once, again = scene(7, 12, difficulty), scene(7, 12, difficulty)
    np.testing.assert_array_equal(once.image, again.image)
    assert (once.captions, once.mentions, once.objects) == (again.captions, again.mentions, again.objects)


def test_seeds_and_indices_give_other_scenes() -> None:
    pictures = {scene(seed, index).image.tobytes() for seed in range(5) for index in range(20)}
    assert len(pictures) == 100


@pytest.mark.parametrize("difficulty", [1, 2, 3])
def test_mentions_point_at_the_noun_that_names_the_thing(difficulty: int) -> None:
    for index in range(60):
        made = scene(1, index, difficulty)
        for caption, mentions in zip(made.captions, made.mentions, strict=True):
            words = tokenise(caption)
            assert mentions
            for word, thing in mentions:
                colour, shape = made.objects[thing].name.split()
                assert NAMES[words[word]] == shape
                assert words[word - 1] in {colour, "violet" if colour == "purple" else "grey"}
            nouns = {at for at, word in enumerate(words) if word in NAMES}
            assert nouns == {word for word, _ in mentions}


@pytest.mark.parametrize("difficulty", [1, 2, 3])
def test_counts_are_those_of_the_mentions(difficulty: int) -> None:
    said = {word: many for many, word in COUNTS.items()} | {"pair": 2, "a": 1, "an": 1}
    for index in range(60):
        made = scene(1, index, difficulty)
        for caption, mentions in zip(made.captions, made.mentions, strict=True):
            words = tokenise(caption)
            for noun, things in itertools.groupby(mentions, key=lambda pair: pair[0]):
                count = next(said[word] for word in reversed(words[:noun]) if word in said)
                assert len(list(things)) == count


def test_captions_are_five_different_sentences_of_good_english() -> None:
    for difficulty, index in ALL:
        told = scene(2, index, difficulty).captions
        assert len(told) == len(set(told)) == 5
        for caption in told:
            assert caption[0].isupper()
            assert caption.endswith(".")
            words = tokenise(caption)
            # Punctuation is no word of its own, so the place in the sentence is the place among the tokens.
            assert words == [word.strip(",.").lower() for word in caption.split()]
            assert SHORTEST <= len(words) <= LONGEST
            for article, word in itertools.pairwise(words):
                if article in ("a", "an"):
                    assert (article == "an") == (word[0] in "aeiou")


def test_a_plural_takes_a_plural_verb() -> None:
    plot = Plot((Group("square", "red", "", (0, 1)), Group("ring", "blue", "", (2,))), "above", (0,))
    dice = Dice(np.random.default_rng(0))
    told = [text for _ in range(100) for text, _ in captions(plot, dice)]
    assert any("boxes are above a blue ring" in text for text in told)
    assert any("ring is below two red squares" in text for text in told)
    assert any(text.startswith("There are two red squares") for text in told)
    for text in told:
        words = tokenise(text)
        assert "square" not in words
        for noun, verb in itertools.pairwise(words):
            if verb in ("is", "sits", "lies") and noun != "there":
                assert noun in ("ring", "hoop")


def test_the_vocabulary_is_small_and_the_colours_and_shapes_are_even() -> None:
    words = [word for caption in of_difficulty(2) for word in tokenise(caption)]
    assert 50 <= len(set(words)) <= 120
    # 200 scenes of 2.5 things among 8 shapes: 62 expected, 7 the standard deviation; 4 of them either way.
    seen = [thing.name.split()[1] for index in range(200) for thing in scene(3, index).objects]
    assert all(30 <= seen.count(shape) <= 95 for shape in SHAPES)


def test_references_of_one_image_share_their_content() -> None:
    """Words of one caption that another one of the same image holds too, against one of another image."""

    def shared(one: str, other: str) -> float:
        pairs = [set(itertools.pairwise(tokenise(caption))) for caption in (one, other)]
        return len(pairs[0] & pairs[1]) / len(pairs[0])

    told = [scene(4, index).captions for index in range(200)]
    same = np.mean([shared(captions[0], captions[1]) for captions in told])
    other = np.mean([shared(one[0], two[1]) for one, two in itertools.pairwise(told)])
    assert same > 0.4
    assert same > 4 * other


@pytest.mark.parametrize("difficulty", [2, 3])
def test_relations_hold_in_the_picture(difficulty: int) -> None:
    related = [made for index in range(150) if (made := sketch(5, index, difficulty)).plot.relation]
    assert len(related) == 150 if difficulty == 2 else 50 < len(related) < 150
    for made in related:
        axis = {"left": 0, "above": 1}[made.plot.relation]
        groups = made.plot.groups
        first = {thing for group in made.plot.first for thing in groups[group].members}
        rest = {thing for group in groups for thing in group.members} - first
        spots = [(thing.x, thing.y)[axis] for thing in made.things]
        assert max(spots[at] for at in first) + CLEAR <= min(spots[at] for at in rest)


def test_what_is_said_to_be_left_is_left() -> None:
    """From the captions' words and the boxes alone."""
    checked = 0
    for index in range(150):
        made = scene(6, index)
        for caption, mentions in zip(made.captions, made.mentions, strict=True):
            if len(mentions) != 2:
                continue
            (left_a, top_a, right_a, bottom_a), (left_b, top_b, right_b, bottom_b) = (
                made.objects[thing].box for _, thing in mentions
            )
            words = set(tokenise(caption))
            right = left_a + right_a - left_b - right_b
            down = top_a + bottom_a - top_b - bottom_b
            if words & {"left", "right"}:
                assert (right < 0) == ("left" in words)
                checked += 1
            if words & {"above", "over", "below", "under", "beneath"}:
                assert (down < 0) == bool(words & {"above", "over"})
                checked += 1
    assert checked > 100


@pytest.mark.parametrize("difficulty", [1, 2, 3])
def test_boxes_hold_all_pixels_of_their_colour(difficulty: int) -> None:
    for index in range(60):
        made = scene(8, index, difficulty)
        for thing in made.objects:
            colour = thing.name.split()[0]
            boxes = [np.rint(np.array(o.box) * SIZE).astype(int) for o in made.objects if o.name.startswith(colour)]
            # 8 of shade, 8 of noise, 12 of light.
            near = (np.abs(made.image.astype(int) - COLOURS[colour]) <= 28).all(-1)
            left, top, right, bottom = np.rint(np.array(thing.box) * SIZE).astype(int)
            assert 0 <= left < right <= SIZE
            assert 0 <= top < bottom <= SIZE
            assert near[top:bottom, left:right].any()
            if difficulty < 3:  # where no two colours are alike
                outside = near.copy()
                for left, top, right, bottom in boxes:
                    outside[top:bottom, left:right] = False
                assert not outside.any()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_box_is_tight_and_no_stencil_is_clipped(shape: str) -> None:
    for tilt in (-10, 0, 10):
        thing = Thing(shape, "black", 30, 33, 12, tilt)
        inked = (draw([thing], np.random.default_rng(0), noise=1) < 195).all(0)  # (64, 64)
        rows, columns = np.flatnonzero(inked.any(1)), np.flatnonzero(inked.any(0))
        drawn = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        # A pixel that is covered by less than a tenth belongs to the box, but is no darker than the ground.
        assert np.abs(drawn - np.array(box_of(thing)) * SIZE).max() <= 1
        inside = stencil(shape, 12, tilt)
        assert inside.max() == 1
        assert inside[:, 0].max() < 1
        assert inside[0].max() < 1


def test_things_do_not_touch() -> None:
    for difficulty, index in ALL:
        for one, other in itertools.combinations(sketch(9, index, difficulty).things, 2):
            apart = np.hypot(one.x - other.x, one.y - other.y)
            assert apart > one.radius + other.radius


def test_difficulty_grows() -> None:
    things = [np.mean([len(scene(0, index, d).objects) for index in range(150)]) for d in (1, 2, 3)]
    assert things[0] < 2 <= things[1] < 3 < things[2]
    one, two, three = ({word for caption in of_difficulty(d) for word in tokenise(caption)} for d in (1, 2, 3))
    assert len(one) < len(two) < len(three)
    assert "above" not in one
    assert "small" not in one
    assert {"above", "small"} <= two
    assert "three" not in two
    assert {"three", "turquoise"} <= three


def test_make_writes_pixels_and_records(tmp_path: Path) -> None:
    records = make(tmp_path, count=300, seed=2)
    assert [sum(record.split == name for record in records) for name in ("train", "val", "test")] == [
        240,
        30,
        30,
    ]
    store = FeatureStore(tmp_path / "scenes.h5")
    assert store.kind == "pixels"
    assert store.names == [record.image for record in records]
    assert store.encoder is not None
    assert (store.encoder.spec, store.encoder.size, store.encoder.resize) == ("pixels", 64, "squash")
    made = scene(2, int(records[-1].image_id or 0))
    pixels = store.read(np.array([299])).pixels
    assert pixels is not None
    np.testing.assert_array_equal((pixels[0] * 255).round().permute(1, 2, 0).numpy(), made.image)
    assert records[-1].captions == made.captions
    assert records[-1].mentions == made.mentions
    assert Record.from_json(records[-1].to_json()) == records[-1]


def test_a_scene_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    few = {record.image: record for record in make(tmp_path / "few", count=30)}
    many = {record.image: record for record in make(tmp_path / "many", count=90)}
    assert few.keys() & many.keys()
    assert all(many[name] == few[name] for name in few.keys() & many.keys())


@pytest.mark.parametrize("difficulty", [1, 2, 3])
def test_no_content_is_in_two_splits(tmp_path: Path, difficulty: int) -> None:
    records = make(tmp_path, count=400, difficulty=difficulty, splits={"train": 0.5, "val": 0.25, "test": 0.25})
    seen: dict[str, set[str]] = {}
    for record in records:
        content = sketch(0, int(record.image_id or 0), difficulty).content
        seen.setdefault(content, set()).add(record.split or "")
    assert all(len(splits) == 1 for splits in seen.values())
    assert difficulty > 1 or len(seen) < 400  # easy scenes do repeat, within their split


def test_what_an_interrupt_left_is_not_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(things: Sequence[Thing], generator: np.random.Generator, *, noise: int) -> np.ndarray:
        if next(drawn) == 8:
            raise KeyboardInterrupt
        return draw(things, generator, noise=noise)

    drawn = itertools.count()
    monkeypatch.setattr("rlcap.data.scenes.WRITE_EVERY", 5)
    with monkeypatch.context() as patch:
        patch.setattr("rlcap.data.scenes.draw", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path, count=10, seed=1)
    assert [path.name for path in tmp_path.iterdir()] == [".scenes.h5.part"]
    records = make(tmp_path, count=10, seed=2)
    assert FeatureStore(tmp_path / "scenes.h5").names == [record.image for record in records]
    assert [path.name for path in tmp_path.iterdir()] == ["scenes.h5"]


def test_small_sets_fill_every_split(tmp_path: Path) -> None:
    assert [record.split for record in sorted(make(tmp_path, count=3), key=lambda r: r.split or "")] == [
        "test",
        "train",
        "val",
    ]
    assert {record.split for record in make(tmp_path, count=2, splits={"train": 2, "val": 0})} == {"train"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"difficulty": 4}, "difficulty 4"),
        ({"seed": -1}, "seed -1"),
        ({"count": 2}, "2 scenes cannot fill 3 splits"),
        ({"splits": {"train": 1, "val": -0.1}}, "share above 0"),
        ({"splits": {}}, "share above 0"),
    ],
)
def test_wrong_arguments_are_named(tmp_path: Path, wrong: dict[str, int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make(tmp_path, **{"count": 10, **wrong})  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_pictures_for_people(tmp_path: Path) -> None:
    records = make(tmp_path, count=5, seed=3, difficulty=3)
    paths = write_images(tmp_path / "pictures", records, 2)
    assert [path.name for path in paths] == [record.image for record in records[:2]]
    with Image.open(paths[1]) as opened:
        np.testing.assert_array_equal(np.asarray(opened), scene(3, int(records[1].image_id or 0), 3).image)
    with pytest.raises(DataError, match=r"'dog\.jpg' is no made-up scene"):
        write_images(tmp_path, [Record("dog.jpg", None, ("a dog",))])
