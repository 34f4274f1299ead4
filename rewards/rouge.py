"""ROUGE-L (Lin 2004, https://aclanthology.org/W04-1013) on the device of the captions."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rlcap.contracts import Candidates, Reward
from rlcap.data.references import References
from rlcap.data.vocabulary import END
from rlcap.metrics.ngrams import Result, Words
from rlcap.metrics.packed_words import EMPTY, NOTHING, PackedWords, said_words
from rlcap.metrics.rouge import BETA, rouge_l, rouge_l_single


class RougeL(Reward):
    """As coco-caption has it, from 0 to 1: best precision and best recall, perhaps of different references.

    The end token is a word, in captions that said it and in references, unless `end_token` is false.
    """

    def __init__(self, references: References, *, end_token: bool = True) -> None:
        self.references = references
        self.end_token = end_token
        self.packed = references.once(PackedWords.pack)

    def __call__(self, candidates: Candidates) -> Tensor:
        said = said_words(candidates, self.references.vocabulary.end, end_token=self.end_token)
        length = (said != NOTHING).sum(-1)
        if not self.end_token:  # with it, no reference is empty
            first = torch.arange(said.shape[-1], device=said.device) == 0
            said = said.masked_fill(first & (length == 0)[..., None], EMPTY)
        common = self.packed.common(said, candidates.images)
        theirs = self.packed.lengths[candidates.images, : common.shape[-1]] + self.end_token
        dtype = self.references.dtype
        return self._f_measure(common.to(dtype), length.clamp_min(1).to(dtype), theirs.clamp_min(1)[:, None].to(dtype))

    def _f_measure(self, common: Tensor, length: Tensor, theirs: Tensor) -> Tensor:
        """Words in common (B, N, R), of the caption (B, N), of the references (B, 1, R) -> (B, N)."""
        precision, recall = common.amax(-1) / length, (common / theirs).amax(-1)
        weighted = recall + BETA**2 * precision
        return (1 + BETA**2) * precision * recall / weighted.clamp_min(torch.finfo(weighted.dtype).tiny)

    def plain(self, captions: Sequence[Words], ended: Sequence[bool], images: Sequence[int]) -> list[float]:
        """The same by words: of each caption, where `ended` says whether it said its end token."""
        end = [END] if self.end_token else []
        said = [[*words, *(end if over else [])] for words, over in zip(captions, ended, strict=True)]
        given = [[[*words, *end] for words in self.references.tokens[image]] for image in images]
        scores: list[float] = self._by_words(said, given).per_image.tolist()
        return scores

    def _by_words(self, captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> Result:
        return rouge_l(captions, references)


class RougeLSingle(RougeL):
    """With precision and recall of one reference: the best F-measure, from 0 to 1.

    Unlike coco-caption's, no caption profits from a short and a long reference at once.
    """

    def _f_measure(self, common: Tensor, length: Tensor, theirs: Tensor) -> Tensor:
        return ((1 + BETA**2) * common / (length[..., None] + BETA**2 * theirs)).amax(-1)

    def _by_words(self, captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> Result:
        return rouge_l_single(captions, references)
