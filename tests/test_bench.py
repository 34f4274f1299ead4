"""`rlcap bench`: what it measures must be what it says. No test asks how fast anything is."""

import gc
import json
from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
import torch

from rlcap import progress
from rlcap.bench import leakgan, packing, timing
from rlcap.bench.captions import CaptionBatch, made_up, make_batch, prepared
from rlcap.bench.packing import measure_coco_packing, measure_packing
from rlcap.bench.rewards import REWARDS, measure_rewards
from rlcap.bench.sru import VARIANTS, measure_sru
from rlcap.bench.timing import FEWEST, Competitor, Timing, race
from rlcap.bench.yardsticks import PYCOCOEVALCAP, yardsticks
from rlcap.cli import main
from rlcap.data.frequencies import DocumentFrequencies
from rlcap.data.references import References

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """One call a turn, and no more rounds than needed."""
    monkeypatch.setattr(progress, "QUIET", True)
    monkeypatch.setattr(timing, "TURN", 1e-9)
    monkeypatch.setattr(timing, "WARM", 1e-9)
    monkeypatch.setattr(timing, "MOST", FEWEST)


@pytest.fixture(scope="module")
def references() -> References:
    return made_up(60)


@pytest.fixture(scope="module")
def batch(references) -> CaptionBatch:
    """Captions that end and one that is cut, one of a word, one that says it thrice."""
    batch = make_batch(references, 20, 6, seed=3)
    words, lengths, captions = batch.candidates.words.clone(), batch.candidates.lengths.clone(), list(batch.captions)
    word, said = references.vocabulary.entries[4], captions[0].split()
    for n, text in enumerate([" ".join(said[:-1]), f"{word} <end>", f"{word} {word} {word} <end>"]):
        ids = references.vocabulary.encode([w for w in text.split() if w != "<end>"])
        ids += [references.vocabulary.end] * text.endswith("<end>")
        words[0, n, : len(ids)], lengths[0, n], captions[n] = torch.tensor(ids), len(ids), text
    return replace(batch, candidates=replace(batch.candidates, words=words, lengths=lengths), captions=captions)


@pytest.mark.parametrize("name", REWARDS)
def test_yardsticks_give_the_reward(name, references, batch):
    """In float64, where only the order of sums differs; coco-caption's ROUGE-L too."""
    ours = REWARDS[name](replace(references, dtype=torch.float64))(batch.candidates).flatten().tolist()
    others = yardsticks(name, references, batch.images)
    assert len(others) > 1
    for other, score in others.items():
        if (name, other) != ("cider_d", PYCOCOEVALCAP):
            assert score(batch) == pytest.approx(ours, abs=1e-9), other
    assert len(set(ours)) > len(ours) / 2  # a bench of zeros would agree as well


def test_pycocoevalcap_gives_the_reward_with_frequencies_of_its_own(references, batch):
    """It counts each caption's references as an image's."""
    documents = [references.tokens[image] for image in batch.images]
    frequencies = DocumentFrequencies.build(documents, "of the call")
    ours = REWARDS["cider_d"](replace(references, frequencies=frequencies, dtype=torch.float64))
    theirs = yardsticks("cider_d", references, [])[PYCOCOEVALCAP](batch)
    assert list(theirs) == pytest.approx(ours(batch.candidates).flatten().tolist(), abs=1e-9)


def test_made_up_captions_are_like_cocos():
    """10.5 words; of Flickr8k's captions, 42% of the words, 18% of the pairs, 4% of four in a row are in another."""
    tokens = made_up(400).tokens
    captions = [words for image in tokens for words in image]
    assert np.mean(list(map(len, captions))) == pytest.approx(10.5, abs=0.2)
    shared = []
    for n in (1, 2, 4):
        grams = [[{tuple(w[i : i + n]) for i in range(len(w) - n + 1)} for w in image] for image in tokens]
        shared.append(np.mean([len(a & b) / len(a) for image in grams for a, b in permutations(image, 2) if a]))
    assert shared == pytest.approx([0.42, 0.18, 0.04], abs=0.03)


def test_half_of_the_candidates_are_near_a_reference(references):
    scores = REWARDS["rouge_l"](references)(make_batch(references, 30, 6, seed=0).candidates)
    assert scores[:, ::2].mean() > 1.5 * scores[:, 1::2].mean()


def test_candidates_are_what_the_texts_say(references, batch):
    vocabulary = references.vocabulary
    words, lengths = batch.candidates.words.flatten(0, 1).tolist(), batch.candidates.lengths.flatten().tolist()
    for ids, length, text in zip(words, lengths, batch.captions, strict=True):
        assert " ".join(vocabulary.entries[i] for i in ids[:length]) == text
    assert batch.references[7] == [" ".join([*words, "<end>"]) for words in references.tokens[batch.images[7]]]


def test_rows(references):
    rows = measure_rewards(references, [(CPU, 1), (CPU, 2)], batches=[12], seconds=0)
    others = {name: list(yardsticks(name, references, [])) for name in REWARDS}
    expected = [(name, t, other) for name in REWARDS for t in (1, 2) for other in others[name]]
    assert [(row.name, row.threads, row.yardstick) for row in rows] == expected
    for row in rows:
        assert (row.device, row.batch, row.rounds) == ("cpu", 12, FEWEST)
        assert row.spread[0] <= row.us_per_caption <= row.spread[1]
        assert row.ratio == pytest.approx(row.yardstick_us_per_caption / row.us_per_caption)
        if (row.name, row.yardstick) == ("cider_d", PYCOCOEVALCAP):
            assert row.difference is None
        else:  # float32
            assert row.difference is not None
            assert row.difference < 1e-6 * 10


def test_all_take_turns_with_their_threads():
    before, seen = torch.get_num_threads(), []

    def competitor(name, threads):
        def work(call):
            seen.append((name, call, torch.get_num_threads(), gc.isenabled(), torch.is_inference_mode_enabled()))

        return Competitor(work, CPU, threads)

    times = race({"a": competitor("a", 1), "b": competitor("b", 3)}, seconds=0, what="turns")
    assert [len(each.seconds) for each in times.values()] == [FEWEST, FEWEST]
    assert {(name, *rest) for name, _, *rest in seen} == {("a", 1, False, True), ("b", 3, False, True)}
    turns = [name for name, call, *_ in seen if call == 0]
    assert "".join(turns) == "ab" + "abba" * 3 + "ab"  # the first two to warm up
    assert (torch.get_num_threads(), gc.isenabled()) == (before, True)


def test_median_and_quartiles():
    times = Timing((5.0, 1.0, 2.0, 9.0, 3.0))
    assert (times.median, times.spread) == (3.0, (2.0, 5.0))


def test_packing(references):
    grams, words = measure_packing(references)
    assert (grams.images, grams.references) == (60, 300)
    assert grams.megabytes == pytest.approx(REWARDS["cider_d"](references)._packed.nbytes / 1e6)
    assert words.megabytes * 1e6 > 300 * 10 * 8  # a mask of 8 bytes for each of some ten words
    assert grams.peak_megabytes is None


def test_packing_in_a_process_of_its_own(monkeypatch):
    monkeypatch.setattr(packing, "PACKERS", {"words": packing.PACKERS["words"]})
    (packed,) = measure_coco_packing(images=500)
    assert packed.references == 2_500
    assert packed.peak_megabytes is None or packed.peak_megabytes >= packed.megabytes


def test_the_command(tmp_path, capsys):
    """Rows and nothing else, or two tables."""
    assert main(["prepare", "scenes", "--out", str(tmp_path), "--count", "80"]) == 0
    assert len(prepared(tmp_path)) > 40
    capsys.readouterr()
    command = ["bench", "rewards", "--data", str(tmp_path), "--batch", "12", "--seconds", "1", "--device", "cpu"]
    assert main([*command, "--threads", "1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"name", "device", "threads", "batch", "yardstick", "us_per_caption", "ratio"} <= rows[0].keys()
    assert main([*command, "--threads", "1"]) == 0
    said = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in said[3:11]]
    assert names == ["reward", *(row["name"] for row in rows)]
    assert names[1:] == ["cider_d"] * 3 + ["bleu_4"] * 2 + ["rouge_l"] * 2
    assert said[-3].split()[:2] == ["packed", "for"]


def test_networks_learn_next_to_each_other(monkeypatch):
    """What is timed is a gradient to the input and to every weight, although turns are in inference mode."""
    seen = []
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *given: seen.append((given[1], grad(*given))) or seen[-1][1])
    rows = measure_sru([(CPU, 1)], shapes=[(2, 4, 3)], seconds=0)
    assert [(row.name, row.yardstick) for row in rows] == list(product(VARIANTS, ["LSTM", "GRU", "plain loop"]))
    for row in rows:
        assert (row.rows, row.channels, row.words, row.rounds) == (2, 4, 3, FEWEST)
        assert row.ratio == pytest.approx(row.yardstick_ms / row.ms)
        if row.yardstick == "plain loop":  # float32
            assert row.difference < 1e-6
        else:
            assert row.difference is None
    assert {len(leaves) for leaves, _ in seen} == {1 + 4, 1 + 3, 1 + 2}  # torch's, with recurrent weights, without
    assert {leaves[0].shape for leaves, _ in seen} == {(2, 3, 4), (3, 2, 4)}
    assert all(gradient.any() for _, gradients in seen for gradient in gradients)


def test_the_sru_command(capsys):
    command = ["bench", "sru", "--shape", "2x4x3", "--seconds", "0", "--device", "cpu", "--threads", "1"]
    assert main([*command, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"name", "device", "threads", "yardstick", "ms", "spread", "ratio", "difference"} <= rows[0].keys()
    assert main(command) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in said[4:10]] == [row["name"] for row in rows]
    assert said[4].split()[:4] == ["sru", "cpu", "1", "2x4x3"]
    for wrong in ("64x512", "64x0x20"):
        assert main(["bench", "sru", "--shape", wrong]) == 2
        assert "'0' is no number" in (said := capsys.readouterr().err) or f"'{wrong}' is not like" in said


def test_an_adversarial_update_by_part():
    size = leakgan.Size(words=12, rows=2, length=6, playouts=3, hidden=2, maps=16)
    rows = {row.name.strip(): row for row in leakgan.measure_leakgan([(CPU, 1)], size=size, seconds=0)}
    whole, parts = rows["an adversarial update"], [rows[name] for name in ("drawing", "playouts")]
    assert whole.ms > max(part.ms for part in parts)
    assert rows["drawing"].words_per_second * rows["drawing"].ms / 1e3 == pytest.approx(2 * 6)
    # The drawn ones lead; three ends of each prefix of four words have two words more.
    assert rows["playouts"].words_per_second * rows["playouts"].ms / 1e3 == pytest.approx(2 * (6 + 3 * 2))
    training, plain = rows["leakgan: training"], rows["soft attention: training"]
    assert (plain.ratio, training.ratio) == (1, pytest.approx(training.ms / plain.ms))


@pytest.mark.parametrize("wrong", [["--threads", "0"], ["--batch", "x"], ["--device", "abacus"], ["--data", "nowhere"]])
def test_wrong_arguments(wrong, capsys):
    assert main(["bench", "rewards", *wrong]) == 2
    assert wrong[1] in capsys.readouterr().err
