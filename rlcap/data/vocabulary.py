"""The words that a captioner knows, and their ids."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from rlcap.data.tokens import TOKENISER
from rlcap.errors import DataError
from rlcap.files import write_text

PAD, START, END, UNKNOWN = "<pad>", "<start>", "<end>", "<unk>"
SPECIALS = (PAD, START, END, UNKNOWN)  # their ids are their places
FORMAT = "rlcap vocabulary 1"
ENDLESS = "without an end token"  # no word holds a space


def fingerprint_of(*parts: str) -> str:
    """A short text that differs as soon as one of `parts` does."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


class Vocabulary:
    """A Codec over whole words. `entries` lists them by id, the four special tokens first.

    `ends` is False where all captions have one length: then nobody says the end token, and `end` is None.
    """

    pad, start, end_token, unknown = range(4)

    def __init__(
        self, words: Iterable[str], *, min_count: int = 1, tokeniser: str = TOKENISER, ends: bool = True
    ) -> None:
        self.entries: tuple[str, ...] = (*SPECIALS, *words)
        self.min_count = min_count
        self.tokeniser = tokeniser
        self.end: int | None = self.end_token if ends else None
        self.banned = (self.pad, self.start, self.unknown) if ends else tuple(range(len(SPECIALS)))
        self.fingerprint = fingerprint_of(tokeniser, *self.entries, *([] if ends else [ENDLESS]))
        self._ids = {word: i for i, word in enumerate(self.entries) if i >= len(SPECIALS)}
        if len(self._ids) != len(self.entries) - len(SPECIALS):
            raise ValueError("a word stands twice")

    @staticmethod
    def build(
        token_lists: Iterable[Sequence[str]], min_count: int, tokeniser: str = TOKENISER, ends: bool = True
    ) -> "Vocabulary":
        """The words that occur at least `min_count` times: by count down, then in alphabetical order."""
        counts = Counter(word for words in token_lists for word in words)
        kept = [word for word, count in counts.items() if count >= min_count and word not in SPECIALS]
        kept.sort(key=lambda word: (-counts[word], word))
        return Vocabulary(kept, min_count=min_count, tokeniser=tokeniser, ends=ends)

    @property
    def size(self) -> int:
        return len(self.entries)

    def encode(self, words: Sequence[str]) -> list[int]:
        """Ids, without the end token. A text cannot smuggle a special token in: its name is unknown here."""
        return [self._ids.get(word, self.unknown) for word in words]

    def words(self, tokens: Sequence[int]) -> list[str]:
        """Words up to the end token, without it; padding and the start are no words."""
        words = []
        for token in tokens:
            if token == self.end:
                break
            if token not in (self.pad, self.start):
                words.append(self.entries[token])
        return words

    def save(self, path: Path) -> None:
        state = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "tokeniser": self.tokeniser,
            "min_count": self.min_count,
            "words": self.entries,
            **({"ends": False} if self.end is None else {}),
        }
        write_text(path, json.dumps(state, ensure_ascii=False, indent=0) + "\n")

    @staticmethod
    def load(path: Path, remedy: str = "run `rlcap prepare` again") -> "Vocabulary":
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError(f"{path}: there is no such vocabulary; {remedy}") from None
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{path}: the vocabulary cannot be read ({error}); {remedy}") from None
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise DataError(f"{path}: is not a vocabulary of this version ('{FORMAT}'); {remedy}")
        match state:
            case {"words": [*words], "tokeniser": str(tokeniser), "min_count": int(min_count)} if _sound(words):
                kept, ends = words[len(SPECIALS) :], state.get("ends") is not False
                vocabulary = Vocabulary(kept, min_count=min_count, tokeniser=tokeniser, ends=ends)
                if vocabulary.fingerprint == state.get("fingerprint"):
                    return vocabulary
        raise DataError(f"{path}: was changed since it was written (fingerprint); {remedy}")


def _sound(words: list[object]) -> bool:
    """The special tokens at their places, then texts, none of them twice."""
    texts = all(isinstance(word, str) for word in words)
    return texts and tuple(words[: len(SPECIALS)]) == SPECIALS and len(set(words)) == len(words)
