"""Does a reward keep its contract, what does it cost, and does it tell right from wrong? Tried on made-up scenes."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlcap.components import check_arguments, find
from rlcap.contracts import Candidates, Features, Reward
from rlcap.data.frequencies import DocumentFrequencies
from rlcap.data.references import References
from rlcap.data.scenes import scene
from rlcap.data.tokens import TOKENISER, tokenise
from rlcap.data.vocabulary import Vocabulary
from rlcap.errors import ComponentError, RlcapError
from rlcap.progress import track
from rlcap.rewards.functions import FunctionReward

SCENES, CAPTIONS = 60, 5  # a batch of 300
FEWEST = 4  # scenes for a slow reward
PATIENCE = 30.0  # seconds that the batches of a slow reward may take together
CALLS = 11  # of whole batches, about
GRID = 8  # features: the mean colours of 8x8 fields of the picture
ALIKE = 1e-5  # times the score, or 1: batches of other sizes round differently in float32
SLOW = 0.01  # seconds a caption that are worth a word
WRONG_WAY = 0.45  # of preferring what people say; a little below chance is chance

Words = Sequence[str]


@dataclass
class RewardCheck:
    """What was found; a reward is sound if there are no problems."""

    name: str
    captions: int  # a batch
    scenes: int
    ranges: list[tuple[str, Tensor]] = field(default_factory=list)  # what was judged, and its scores
    corners: list[tuple[str, float]] = field(default_factory=list)
    seconds: float | None = None  # a caption
    first: float = 0.0  # seconds of the first call
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"reward:   {self.name}"
        yield f"judged:   {self.scenes} made-up scenes x {CAPTIONS} captions"
        width = max((len(label) for label, _ in [*self.ranges, *self.corners]), default=0)
        if self.ranges:
            yield f"scores:   {'':{width}}  {'mean':>9}  {'least':>9}  {'most':>9}"
        for label, scores in self.ranges:
            figures = (scores.mean(), scores.min(), scores.max())
            yield f"          {label:{width}}  " + "  ".join(f"{float(figure):9.4g}" for figure in figures)
        for place, (label, score) in enumerate(self.corners):
            yield f"{'' if place else 'corners:':9} {label:{width}}  {score:9.4g}"
        for label, scores in self.ranges[1:]:
            share = _preferred(self.ranges[0][1], scores)
            yield f"prefers:  what people say to {label} {share:.0%} of the time (50%: chance)"
        if self.seconds is not None:
            batch = self.seconds * self.captions
            first = f"; the first call took {_time(self.first)}" if self.first > 3 * batch + 0.1 else ""
            yield f"time:     {_time(self.seconds)} a caption, {_time(batch)} for {self.captions}{first}"
        yield from (f"note:     {note}" for note in self.notes)
        yield from (f"problem:  {problem}" for problem in self.problems)
        count = len(self.problems)
        yield f"not ok: {count} problem{'s' if count > 1 else ''} to mend" if count else "ok: no problem was found"


def check_reward(name: str, settings: Mapping[str, Any]) -> RewardCheck:
    """Tries the reward that a recipe would name so. What keeps it from being made is an error; all else is gathered."""
    factory = find("reward", name, [Path.cwd()])
    arguments = check_arguments(factory, settings, f"reward '{name}'")
    scenes = Scenes(SCENES)
    try:
        reward = factory(scenes.references, **arguments)
    except RlcapError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        raise ComponentError(f"reward '{name}': cannot be made: {type(error).__name__}: {said}") from error
    constant = isinstance(reward, FunctionReward) and bool(arguments.get("constant"))
    if constant:  # so that equal calls are calls
        reward = factory(scenes.references, **arguments | {"constant": False})
    return _Trial(name, reward, scenes, constant).check()


class Scenes:
    """Scenes as references, and captions of them as candidates. Nothing touches the disk."""

    def __init__(self, count: int) -> None:
        made = [scene(seed=0, index=index) for index in range(count)]
        images = [f"scene-2-0-{index:06d}.png" for index in range(count)]
        raw = [each.captions for each in made]
        tokens = [[tokenise(caption) for caption in captions] for captions in raw]
        vocabulary = Vocabulary.build((words for image in tokens for words in image), 1, TOKENISER)
        frequencies = DocumentFrequencies.build(tokens, "made-up scenes")
        self.references = References(images, tokens, raw, vocabulary, frequencies)
        pixels = torch.from_numpy(np.stack([each.image for each in made])).permute(0, 3, 1, 2) / 255
        self._fields = torch.nn.functional.adaptive_avg_pool2d(pixels, GRID).flatten(2).transpose(1, 2)

    def candidates(self, images: Sequence[int], captions: Sequence[Sequence[Words]], ended: bool = True) -> Candidates:
        """Equally many captions of each image."""
        vocabulary, n = self.references.vocabulary, len(captions[0])
        end = [vocabulary.end] if ended else []
        rows = [[*vocabulary.encode(words), *end] for image in captions for words in image]
        longest = max(map(len, rows))
        padded = [[*row, *[vocabulary.pad] * (longest - len(row))] for row in rows]
        values = self._fields[torch.tensor(images)]
        mask = torch.ones(values.shape[:2], dtype=torch.bool)
        return Candidates(
            words=torch.tensor(padded).view(len(images), n, longest),
            lengths=torch.tensor([len(row) for row in rows]).view(len(images), n),
            images=torch.tensor(images),
            drawn=n,
            features=Features(values, mask, grid=(GRID, GRID)),
        )


class _Trial:
    def __init__(self, name: str, reward: Reward, scenes: Scenes, constant: bool) -> None:
        self.name, self.reward, self.scenes = name, reward, scenes
        self.constant = constant  # is said to be a matter of image and caption alone
        self.dice = np.random.default_rng(0)
        self.said = [list(image[:CAPTIONS]) for image in scenes.references.tokens]
        self.found = RewardCheck(name, SCENES * CAPTIONS, SCENES)

    def check(self) -> RewardCheck:
        found = self.found
        if self._sized():
            steps = (self._scored, self._compared, self._cornered, self._timed)
            for step in track(steps, "checking", len(steps)):
                step()
            self._conclude()
        found.problems = list(dict.fromkeys(found.problems))
        return found

    def _sized(self) -> bool:
        """The first call, and fewer scenes where they would take too long; False: the reward cannot be used at all."""
        begun = time.perf_counter()
        if self._ask("", [0, 1], self.said[:2]) is None:
            return False
        self.found.first = time.perf_counter() - begun
        begun = time.perf_counter()
        self._ask("", [2, 3], self._shuffled(self.said[2:4]))
        batch = (time.perf_counter() - begun) * SCENES / 2
        count = min(SCENES, max(FEWEST, int(SCENES * PATIENCE / (CALLS * batch))))
        self.said = self.said[:count]
        self.found.scenes, self.found.captions = count, count * CAPTIONS
        return True

    def _scored(self) -> None:
        others = [*self.said[1:], self.said[0]]
        for label, captions in (
            ("what people say", self.said),
            ("captions of other scenes", others),
            ("its words shuffled", self._shuffled(self.said)),
        ):
            scores = self._ask(label, range(len(self.said)), captions)
            if scores is not None:
                self.found.ranges.append((label, scores))

    def _compared(self) -> None:
        """Two equal calls, then the same captions in other company."""
        images = list(range(len(self.said)))
        state = self.reward.state_dict()  # a reward that learns begins both times from the same
        together = self._ask("", images, self.said)
        self.reward.load_state_dict(state)
        again = self._ask("", images, self.said)
        if together is None or again is None:
            return
        if gap := _gap(together, again):
            self.found.problems.append(
                f"two equal calls differ, by up to {gap:.4g}: draw nothing at random, and keep nothing between calls"
            )
        else:
            self._moved(images, together)

    def _moved(self, images: list[int], together: Tensor) -> None:
        """Rewards of sets differ in other company, others should not."""
        order = [int(image) for image in self.dice.permutation(len(images))]
        turned = self._ask("in another order", order, [self.said[image][::-1] for image in order])
        single = self._ask("one caption an image", images, [captions[:1] for captions in self.said])
        alone = self._ask("one caption alone", images[:1], [self.said[0][:1]])
        if turned is None or single is None or alone is None:
            return
        gaps = {
            "in another order": _gap(together[order], turned.flip(1)),
            "without others of its image": _gap(together[:, :1], single),
            "alone": _gap(together[:1, :1], alone),
        }
        differs = ", ".join(f"{way} (by up to {gap:.4g})" for way, gap in gaps.items() if gap)
        if differs and self.constant:
            self.found.problems.append(f"is no constant: a caption scores otherwise {differs}; leave constant out")
        elif differs:
            self.found.notes.append(
                f"a caption scores otherwise {differs}: right for a reward of sets, such as diversity, and then leave "
                "workers and constant out; a mistake otherwise"
            )

    def _cornered(self) -> None:
        """Captions that a policy will write sooner or later."""
        words = list(self.said[0][0])
        for label, caption, ended in (
            ("an empty caption", [], True),
            ("a single word", words[:1], True),
            ("one word 30 times", words[:1] * 30, True),
            (f"{len(words) * 20} words", words * 20, True),
            ("unknown words alone", ["never-heard-of"] * 5, True),
            ("cut: no end token", words, False),
        ):
            score = self._ask(label, [0], [[caption]], ended)
            if score is not None:
                self.found.corners.append((label, float(score)))

    def _timed(self) -> None:
        """Other captions each time: what was asked before may be remembered."""
        spent = []
        for _ in range(5):
            candidates = self.scenes.candidates(range(len(self.said)), self._shuffled(self.said))
            begun = time.perf_counter()
            if self._answer("", candidates) is None:
                return
            spent.append(time.perf_counter() - begun)
        self.found.seconds = median(spent) / self.found.captions

    def _conclude(self) -> None:
        found = self.found
        if isinstance(self.reward, FunctionReward) and "features" in self.reward.asks:
            found.notes.append(
                f"its features are {GRID * GRID} mean colours of the picture here, of shape ({GRID * GRID}, 3)"
            )
        every = torch.cat([scores.flatten() for _, scores in found.ranges]) if found.ranges else torch.zeros(0)
        if len(every) and every.min() == every.max():
            found.notes.append(f"every caption scores {float(every[0]):.4g}: there is nothing to learn from it")
        elif found.ranges:
            usual = float(found.ranges[0][1].mean())
            better = [
                f"{label} ({score:.4g})"
                for label, score in found.corners
                if not label.startswith("cut") and score > usual
            ]
            if better:
                found.notes.append(
                    f"scores higher than what people say ({usual:.4g} on average): {', '.join(better)}; a policy will "
                    "find that out, so weigh it together with a reward of content"
                )
        for label, scores in found.ranges[1:]:
            if _preferred(found.ranges[0][1], scores) < WRONG_WAY:
                found.notes.append(f"prefers {label} to what people say: if it is a penalty, give it a negative weight")
        if found.seconds is not None and found.seconds > SLOW:
            found.notes.append(
                "slow: workers=2 shares the captions of a batch between processes, constant=true asks once for each"
            )

    def _shuffled(self, captions: Sequence[Sequence[Words]]) -> list[list[Words]]:
        return [[[words[k] for k in self.dice.permutation(len(words))] for words in image] for image in captions]

    def _ask(
        self, label: str, images: Sequence[int], captions: Sequence[Sequence[Words]], ended: bool = True
    ) -> Tensor | None:
        """The scores (B, N); None after a problem."""
        return self._answer(label, self.scenes.candidates(images, captions, ended))

    def _answer(self, label: str, candidates: Candidates) -> Tensor | None:
        try:
            scores = self.reward(candidates)
        except RlcapError as error:
            wrong = str(error)
        except Exception as error:
            wrong = f"reward '{self.name}': {type(error).__name__}: {' '.join(str(error).split())}"
        else:
            wrong = self._fault(scores, candidates)
            if not wrong:
                scores = scores.detach().double().cpu()
                if scores.dim() == 2:
                    return scores
                counted = torch.arange(scores.shape[-1]) < candidates.lengths[..., None]
                return (scores * counted).sum(-1)
        self.found.problems.append(f"{label}: {wrong}" if label else wrong)
        return None

    def _fault(self, scores: Any, candidates: Candidates) -> str:
        what = f"reward '{self.name}': gave"
        shapes = (candidates.words.shape[:2], candidates.words.shape)
        if not isinstance(scores, Tensor):
            return f"{what} a {type(scores).__name__}, not a tensor"
        if scores.shape not in shapes:
            return f"{what} the shape {tuple(scores.shape)}, not {tuple(shapes[0])} (or {tuple(shapes[1])}, by word)"
        if scores.dtype.is_complex or not scores.isfinite().all():
            return f"{what} numbers that are not finite reals"
        return ""


def _gap(one: Tensor, other: Tensor) -> float:
    """The largest difference, 0 if all could be rounding."""
    difference = (one - other).abs()
    return float(difference.max()) if (difference > ALIKE * one.abs().clamp_min(1)).any() else 0.0


def _preferred(right: Tensor, wrong: Tensor) -> float:
    """How often the first scores more; a tie is half."""
    return float((right > wrong).double().mean() + (right == wrong).double().mean() / 2)


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"
