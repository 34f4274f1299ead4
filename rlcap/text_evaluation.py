"""Text without images -> sentences drawn from the policy, and how good and how various they are.

Sentences belong to no line of the split: as many are drawn as it has lines, 1,000 at most.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from rlcap.config import Decoding
from rlcap.contracts import Codec, Policy
from rlcap.data.batches import FeatureSource, encode_captions, feature_batches, pad
from rlcap.data.dataset import DataSet, Split
from rlcap.errors import ConfigError
from rlcap.evaluation import HEALTH, IMAGES_AT_ONCE, Evaluation, caption_split
from rlcap.metrics.diversity import health
from rlcap.metrics.text_bleu import ORDERS, Scores, text_bleu, text_self_bleu
from rlcap.models.oracle import OracleLSTM, read_weights

SENTENCES = 1000  # at most: BLEU and self-BLEU of so many take about two seconds
BLEU = {f"bleu_{n}": f"BLEU-{n} against all lines of the split" for n in ORDERS}
SELF_BLEU = {f"self_bleu_{n}": f"self-BLEU-{n} (lower: more various)" for n in ORDERS}
ORACLE = {"oracle_nll": "nats a word under the oracle"}
OWN = {"nll": "nats a word of the split under the policy", "entropy": "nats a word of its own drawn sentences"}


@dataclass(frozen=True)
class TextEvaluation(Evaluation):
    """Drawn sentences and what they are worth; `image_ids` only number them."""

    names: ClassVar[Mapping[str, str]] = BLEU | SELF_BLEU | ORACLE | OWN | HEALTH
    as_they_are: ClassVar[Sequence[str]] = ("length", *ORACLE, *OWN)
    telling: ClassVar[Sequence[str]] = ("bleu_4", "self_bleu_4", "oracle_nll", "nll")
    unit: ClassVar[str] = "sentences"


def text_metrics(data: DataSet) -> dict[str, str]:
    """What may choose the best checkpoint, each with its name for people."""
    return (BLEU if data.oracle is None else ORACLE) | SELF_BLEU | {"nll": OWN["nll"]}


def check_text(split: Split, codec: Codec, settings: Decoding, max_words: int) -> None:
    """Sentences are drawn; where all have one length, training and decoding keep to it."""
    if not settings.sample:
        raise ConfigError(
            "decoding.sample=false: without images the likeliest sentence is always the same one; "
            "set decoding.sample=true (--sample)"
        )
    if codec.end is not None:
        return
    words = len(split.tokens[0][0])
    if settings.length != words:
        raise ConfigError(
            f"decoding.length={settings.length}: all sentences of '{split.name}' have {words} words and no end; "
            f"set decoding.length={words}"
        )
    if max_words < words:
        raise ConfigError(
            f"data.max_words={max_words}: would cut the sentences of '{split.name}', which all have {words} words; "
            f"set data.max_words={words}"
        )


def evaluate_text(
    policy: Policy,
    source: FeatureSource,
    split: Split,
    data: DataSet,
    settings: Decoding,
    max_words: int,
    device: torch.device,
    seed: int = 1,
) -> TextEvaluation:
    """Draws sentences and compares them: with the split's lines or the oracle, with one another, with the policy."""
    check_text(split, policy.codec, settings, max_words)
    rows = np.arange(min(len(split), SENTENCES))
    drawn = caption_split(policy, source, rows, settings, device, seed, f"drawing sentences like {split.name}")
    sentences = [list(hypothesis.words) for hypothesis in drawn]
    parts: dict[str, Scores] = {}
    each: dict[str, Scores] = {}
    if data.oracle is None:
        parts["bleu"] = text_bleu(sentences, [line for lines in split.tokens for line in lines])
    else:
        oracle = OracleLSTM(read_weights(data.oracle))
        ids = torch.tensor([list(map(int, words)) for words in sentences])
        each["oracle_nll"] = -oracle.log_prob(ids).mean(1).numpy()
    parts["self_bleu"] = text_self_bleu(sentences)
    each |= {f"{name}_{n}": scores[:, k] for name, scores in parts.items() for k, n in enumerate(ORDERS)}
    endless = policy.codec.end is None
    said = sum(min(len(words) + 1, settings.length) for words in sentences)  # the end token among them
    return TextEvaluation(
        split=split.name,
        image_ids=list(range(len(sentences))),
        captions=[hypothesis.text for hypothesis in drawn],
        corpus={
            **{key: float(scores.mean()) for key, scores in each.items()},
            "nll": held_out_nll(policy, source, split, device, max_words),
            "entropy": -sum(hypothesis.log_prob for hypothesis in drawn) / said,
        },
        health=health(sentences, [endless or len(words) < settings.length for words in sentences], policy.codec.size),
        per_image={key: scores.tolist() for key, scores in each.items()},
    )


@torch.inference_mode()
def held_out_nll(policy: Policy, source: FeatureSource, split: Split, device: torch.device, max_words: int) -> float:
    """Nats a word of the split's lines, the end token among them, each word given the true ones before it."""
    policy.eval()
    captions = encode_captions(split.tokens, policy.codec, max_words)
    total, count, first = 0.0, 0, 0
    for features in feature_batches(source, np.arange(len(split)), IMAGES_AT_ONCE):
        words = pad(captions[first : first + features.images], policy.codec.pad).to(device)
        log_prob = policy(features.to(device), words).log_prob[words != policy.codec.pad]
        total, count, first = total - float(log_prob.double().sum()), count + len(log_prob), first + features.images
    return total / count
