"""Attention pictures and contact sheets: what they show, and where."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rlcap.decoding.decode import Hypothesis
from rlcap.errors import ConfigError
from rlcap.pictures import FRAME, Picture, attention_picture, contact_sheet, illustrated, save_picture, side_by_side
from rlcap.sheets import GAP, MARGIN

TILE = 100
GRAY = np.full((64, 64, 3), 200, dtype=np.uint8)


def luminance(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("L"), dtype=float)


def tiles(picture: Image.Image, columns: int, rows: int, high: int = TILE) -> list[np.ndarray]:
    """The tiles of a sheet, from the layout alone: they end at the lower margin and stand GAP apart."""
    values = luminance(picture)
    first_row = values.shape[0] - MARGIN - high
    if rows == 1:
        tops = [first_row]
    else:  # the rows are as far apart as a row of words, a tile and a gap
        dark = [y for y in range(values.shape[0]) if (values[y, MARGIN : MARGIN + TILE] < 250).all()]
        tops = [y for y in dark if y - 1 not in dark]
    assert len(tops) == rows
    lefts = [MARGIN + column * (TILE + GAP) for column in range(columns)]
    return [values[top : top + high, left : left + TILE] for top in tops for left in lefts]


def peak(tile: np.ndarray) -> tuple[float, float]:
    """(x, y) of the brightest region, as shares."""
    bright = np.argwhere(tile >= tile.max() - 3).mean(0)
    return bright[1] / tile.shape[1], bright[0] / tile.shape[0]


def test_the_brightest_place_is_where_the_attention_is() -> None:
    attention = np.zeros((2, 49))
    attention[0, 1 * 7 + 5] = 1  # row 1, column 5
    attention[1, 6 * 7 + 0] = 1
    found = tiles(attention_picture(GRAY, ["red", "ball"], attention, grid=(7, 7), tile=TILE, title=""), 3, 1)
    assert found[0].min() == found[0].max() == 200  # the picture itself
    assert peak(found[1]) == pytest.approx((5.5 / 7, 1.5 / 7), abs=0.05)
    assert peak(found[2]) == pytest.approx((0.5 / 7, 6.5 / 7), abs=0.08)  # a corner pulls the mean inwards
    assert found[1].min() < 60


def test_a_grid_need_not_be_square() -> None:
    attention = np.zeros((1, 8))
    attention[0, 0 * 4 + 3] = 1  # 2 rows of 4: the upper right
    picture = attention_picture(GRAY, ["a"], attention, grid=(2, 4), tile=TILE, title="")
    x, y = peak(tiles(picture, 2, 1)[1])
    assert x > 0.8
    assert y < 0.35


def test_even_attention_is_bright_all_over() -> None:
    picture = attention_picture(GRAY, ["a"], np.full((1, 16), 1 / 16), grid=(4, 4), tile=TILE, title="")
    assert tiles(picture, 2, 1)[1].min() >= 199


def test_a_line_runs_where_the_weight_is_half_and_a_dot_marks_the_peak() -> None:
    attention = np.zeros((1, 25))
    attention[0, 2 * 5 + 2] = 1  # the middle cell, 40 to 60 pixels from the left
    picture = attention_picture(GRAY, ["a"], attention, grid=(5, 5), tile=TILE, title="")
    tile = np.asarray(picture)[-MARGIN - TILE : -MARGIN, MARGIN + TILE + GAP : -MARGIN]
    framed = (np.abs(tile.astype(int) - FRAME).max(-1) < 60)[50]  # a row through the middle
    places = np.flatnonzero(framed)
    dot = places[np.abs(places - 49.5) < 8]
    line = np.abs(places[np.abs(places - 49.5) >= 8] - 49.5)
    assert dot.min() < 48 < 52 < dot.max()
    assert 8 < line.min() <= line.max() < 16  # half between the middles of two cells, 20 pixels apart


@pytest.mark.parametrize("cell", [0, 10, 19, 380, 399])
def test_the_dot_is_whole_at_the_edge_too(cell: int) -> None:
    def framed(cell: int) -> int:
        attention = np.full((1, 400), 0.2)  # a cell has 5 pixels; no line runs, since half is nowhere
        attention[0, cell] = 0.21
        picture = attention_picture(GRAY, ["a"], attention, grid=(20, 20), tile=TILE, title="")
        tile = np.asarray(picture)[-MARGIN - TILE : -MARGIN, MARGIN + TILE + GAP : -MARGIN]
        return int((tile == FRAME).all(-1).sum())

    assert framed(cell) == framed(210)  # as in the middle


def test_even_attention_has_neither_line_nor_dot() -> None:
    picture = attention_picture(GRAY, ["a"], np.full((1, 16), 1 / 16), grid=(4, 4), tile=TILE, title="")
    tile = np.asarray(picture)[-MARGIN - TILE : -MARGIN, -MARGIN - TILE : -MARGIN].astype(int)
    assert np.ptp(tile, axis=-1).max() < 2  # gray all over


def test_heavy_boxes_are_framed_the_heaviest_thickly() -> None:
    boxes = [[0.1, 0.1, 0.3, 0.4], [0.5, 0.1, 0.9, 0.4], [0.2, 0.6, 0.6, 0.9], [0, 0, 0, 0]]  # the last is padding
    picture = attention_picture(GRAY, ["dog"], [[0.1, 0.36, 0.54, 0]], boxes=boxes, tile=TILE, title="")
    tile = np.asarray(picture)[-MARGIN - TILE : -MARGIN, MARGIN + TILE + GAP : -MARGIN]
    framed = (tile == FRAME).all(-1)
    assert framed[75].sum() == 8  # left and right, 4 pixels each
    assert framed[25].sum() == 2  # of the second, 1 pixel each; the first has too little
    assert not framed[0, 0]


def seen(words: str, regions: int | None, **more) -> Picture:
    said = tuple(words.split())
    attention = None if regions is None else np.full((len(said), regions), 1 / regions)
    given = {"grid": None, "boxes": None, "resize": "squash", **more}
    return Picture(Image.fromarray(GRAY), [Hypothesis(said, 0.0, attention)], **given)


def test_runs_stand_below_each_other_word_under_word() -> None:
    boxes = np.tile([0.2, 0.2, 0.8, 0.8], (5, 1))
    runs = {
        "runs/soft": seen("a dog runs on the grass now", 4, grid=(2, 2)),
        "runs/hard": seen("a dog runs fast", 5, boxes=boxes),
        "runs/blind": seen("a", None),
    }
    sheet = side_by_side(runs, tile=TILE)
    assert sheet.width == 2 * MARGIN + 4 * TILE + 3 * GAP
    values = luminance(sheet)
    # A run's first row begins where the image itself stands to the left: light makes it a little paler.
    picture = (values[:, MARGIN : MARGIN + TILE] == 200).all(1)
    tops = [y for y in np.flatnonzero(picture) if not picture[y - 1]]
    widths = [(values[top + 50, MARGIN:-MARGIN] < 250).sum() // TILE for top in tops]
    assert widths == [4, 4, 1]  # the second run's five tiles would make five columns


@pytest.mark.parametrize("more", [{}, {"grid": (2, 2)}, {"boxes": np.zeros((3, 4))}])
def test_without_places_the_image_stands_above_its_caption(more: dict) -> None:
    picture = seen("a dog", 5, **more)
    assert illustrated(picture, tile=TILE).tobytes() == contact_sheet([GRAY], ["a dog"], tile=TILE, columns=1).tobytes()


def test_a_caption_of_nothing_is_drawn() -> None:
    assert illustrated(seen("", 4, grid=(2, 2)), tile=TILE).width == 2 * MARGIN + TILE


def test_boxes_are_lit_by_their_weight() -> None:
    boxes = [[0.1, 0.1, 0.4, 0.5], [0.5, 0.5, 0.9, 0.9], [0.6, 0.0, 0.9, 0.3]]
    picture = attention_picture(GRAY, ["dog"], [[0.3, 0.7, 0.0]], boxes=boxes, tile=TILE, title="")
    tile = tiles(picture, 2, 1)[1]
    half, full, none, outside = tile[30, 25], tile[70, 70], tile[15, 75], tile[95, 5]
    assert full >= 199
    assert outside < half < full
    assert none == outside


def test_one_tile_a_word_in_even_rows() -> None:
    words = [f"word{number}" for number in range(7)]
    attention = np.eye(7, 49)
    picture = attention_picture(GRAY, words, attention, grid=(7, 7), tile=TILE, title="")
    assert picture.width == 2 * MARGIN + 4 * TILE + 3 * GAP  # 8 tiles: 4 + 4 rather than 6 + 2
    found = tiles(picture, 4, 2)
    assert len(found) == 8
    for column, tile in enumerate(found[1:]):
        assert peak(tile)[0] == pytest.approx((column + 0.5) / 7, abs=0.08)


def test_rows_beyond_the_words_are_left_out() -> None:
    with_end, without = (
        attention_picture(GRAY, ["a", "ball"], np.eye(rows, 4), grid=(2, 2), tile=TILE) for rows in (3, 2)
    )
    assert with_end.tobytes() == without.tobytes()


def test_a_wide_picture_keeps_its_shape_and_a_crop_shows_its_centre() -> None:
    wide = np.full((40, 80, 3), 200, dtype=np.uint8)
    wide[:, :20] = wide[:, 60:] = 20  # what a crop does not show
    attention = np.full((1, 4), 0.25)
    found = tiles(attention_picture(wide, ["a"], attention, grid=(2, 2), tile=TILE, title=""), 2, 1, high=50)
    assert found[0].shape == (50, 100)
    assert found[0][25, 5] < 40
    picture = attention_picture(wide, ["a"], attention, grid=(2, 2), tile=TILE, title="", resize="crop")
    assert tiles(picture, 2, 1)[0].min() == 200


def test_light_shows_on_a_black_picture() -> None:
    black = np.zeros((64, 64, 3), dtype=np.uint8)
    attention = np.eye(1, 16)
    tile = tiles(attention_picture(black, ["night"], attention, grid=(4, 4), tile=TILE, title=""), 2, 1)[1]
    assert tile[10, 10] > tile[90, 90] + 50


def test_the_words_and_the_title_are_written() -> None:
    def ink(word: str, title: str) -> tuple[float, int]:
        picture = attention_picture(GRAY, [word], np.eye(1, 4), grid=(2, 2), tile=TILE, title=title)
        above = luminance(picture)[: picture.height - MARGIN - TILE]
        return (255 - above).sum(), picture.height

    assert ink("elephant", "")[0] > ink("a", "")[0] > 0
    assert ink("a", "An elephant")[1] > ink("a", "")[1]
    # A word wider than its tile goes on in the next line, inside the tile's width.
    long = attention_picture(GRAY, ["w" * 40], np.eye(1, 4), grid=(2, 2), tile=TILE, title="")
    assert long.height > ink("w", "")[1]
    assert (luminance(long)[: -MARGIN - TILE, -MARGIN + 2 :] == 255).all()


@pytest.mark.parametrize(
    ("shape", "given", "said"),
    [
        ((1, 4), {"grid": (2, 2)}, "2 words"),
        ((2, 5), {"grid": (2, 2)}, "5 regions"),
        ((2, 4), {}, "4 regions need boxes"),
        ((2, 4), {"boxes": np.zeros((3, 4))}, "boxes of shape"),
        ((4,), {"grid": (2, 2)}, "attention of shape"),
    ],
)
def test_what_does_not_go_together_is_refused(shape: tuple[int, ...], given: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        attention_picture(GRAY, ["a", "ball"], np.ones(shape), **given)


def test_a_contact_sheet_has_a_tile_an_image() -> None:
    shades = (40, 90, 140, 190, 240)
    images = [np.full((30, 50, 3), shade, dtype=np.uint8) for shade in shades]
    captions = ["a dog", "a cat on a very long mat that takes more than one line", "a bird", "", "a fish"]
    sheet = contact_sheet(images, captions, tile=TILE, columns=3)
    assert sheet.width == 2 * MARGIN + 3 * TILE + 2 * GAP
    values = luminance(sheet)
    assert all((values == shade).sum() >= 60 * TILE * 0.9 for shade in shades)
    fuller = contact_sheet(images, captions, [["one", "two", "three"]] * 5, [0.5] * 5, tile=TILE, columns=3)
    assert fuller.height > sheet.height
    with pytest.raises(ValueError, match="for each a caption"):
        contact_sheet(images, captions[:3])
    with pytest.raises(ValueError, match="for each a caption"):
        contact_sheet(images, captions, scores=[1.0])


def test_only_so_many_references_are_shown() -> None:
    heights = [
        contact_sheet([GRAY], ["a"], [["one", "two", "three"]], tile=TILE, shown=shown).height for shown in (1, 2, 3)
    ]
    assert heights[0] < heights[1] < heights[2]


def test_saving_follows_the_name(tmp_path: Path) -> None:
    picture = Image.fromarray(GRAY)
    for name, kind in (("a.png", "PNG"), ("b.JPG", "JPEG")):
        save_picture(picture, tmp_path / name)
        with Image.open(tmp_path / name) as opened:
            assert opened.format == kind
    with pytest.raises(ConfigError, match=r"c\.txt: pictures are written as"):
        save_picture(picture, tmp_path / "c.txt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.JPG"]
