"""Word vectors that were trained on other texts (GloVe, word2vec), as the first values of a policy's embedding."""

import inspect
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from rlcap.contracts import Policy
from rlcap.errors import ConfigError, DataError
from rlcap.models.seeing import Seeing
from rlcap.progress import track

EMBEDDING = "embed"  # by convention the name of a policy's nn.Embedding of words


def fill_embedding(policy: Policy, path: Path) -> str:
    """Puts the vectors of `path` into the policy's embedding; words that it lacks keep theirs. Says how many it has."""
    codec, embedding = policy.codec, _embedding_of(policy, path)
    named = {"".join(codec.words([token])): token for token in range(codec.size) if token not in codec.banned}
    named.pop("", None)  # the end
    found: set[str] = set()
    for word, vector in _vectors(path, named):
        if len(vector) != embedding.embedding_dim:
            raise ConfigError(
                f"{path}: its vectors are {len(vector)} wide, the policy's embedding {embedding.embedding_dim}; "
                f"set policy.{_width_of(policy)}={len(vector)}"
            )
        if word not in found:
            found.add(word)
            with torch.no_grad():
                embedding.weight[named[word]] = torch.tensor(vector).to(embedding.weight)
    if not found:
        raise DataError(
            f"{path}: holds none of the {len(named):,} words of the vocabulary; give vectors of the same language, "
            "in lower case"
        )
    return f"{path}: {len(found):,} of {len(named):,} words found"


def _embedding_of(policy: Policy, path: Path) -> nn.Embedding:
    modules = [module for name, module in policy.named_modules() if name.rpartition(".")[-1] == EMBEDDING]
    found = [each for each in modules if isinstance(each, nn.Embedding) and each.num_embeddings == policy.codec.size]
    if len(found) != 1:
        raise ConfigError(
            f"{path}: the policy has {len(found)} embeddings of words, and word vectors need one; call it "
            f"self.{EMBEDDING} = nn.Embedding(codec.size, …), or leave word_vectors out"
        )
    return found[0]


def _width_of(policy: Policy) -> str:
    """The setting that says how wide words are."""
    inner = policy.policy if isinstance(policy, Seeing) else policy
    settings = inspect.signature(type(inner)).parameters
    return next((name for name in ("embedding", "width") if name in settings), "embedding")


def _vectors(path: Path, wanted: dict[str, int]) -> Iterator[tuple[str, list[float]]]:
    """The vectors of those words. Lines are `word v1 v2 …`; word2vec's first one says how many words, how wide."""
    width = 0
    try:
        with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            for number, line in enumerate(track(file, f"reading {path.name}"), 1):
                word, *numbers = line.replace("\t", " ").rstrip().split(" ")
                if number == 1 and len(numbers) == 1 and word.isdecimal() and numbers[0].isdecimal():
                    width = int(numbers[0])
                    continue
                width = width or len(numbers)
                sound = len(numbers) == width > 0
                if sound and word not in wanted:
                    continue  # its numbers are not even read: files are long
                values = _values(numbers)
                if values is None and len(numbers) > width:
                    continue  # some entries of GloVe have spaces in them; no word of a vocabulary has
                if values is None or not sound:
                    raise DataError(
                        f"{path}:{number}: is no word with {width or 'its'} numbers ({line[:30].strip()!r}); give the "
                        "whole file, unpacked"
                    )
                yield word, values
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); name a text file of word vectors, such as glove.6B.300d.txt"
        ) from error


def _values(numbers: list[str]) -> list[float] | None:
    """None if they are no finite numbers."""
    try:
        values = [float(number) for number in numbers]
    except ValueError:
        return None
    return values if all(map(math.isfinite, values)) else None
