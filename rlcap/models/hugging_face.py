"""Captioners of Hugging Face's transformers (extra `hf`): their eyes as an Encoder, their speech as a Policy.

    encoder: {name: hugging_face, model: FOLDER}   # trained along; left out if its features were extracted
    policy: {name: hugging_face, model: FOLDER}

FOLDER holds a VisionEncoderDecoderModel or BlipForConditionalGeneration with its tokeniser and image processor, as
save_pretrained writes them; a name on the Hub will do where there is a network.
"""

import importlib
import json
from collections.abc import Collection, Sequence
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from rlcap.contracts import (
    Codec,
    Encoder,
    Features,
    FeatureShape,
    Memory,
    Policy,
    Scores,
    State,
    Step,
    tree_map,
)
from rlcap.data.tokens import tokenise
from rlcap.data.vocabulary import fingerprint_of
from rlcap.errors import ComponentError, ConfigError
from rlcap.models.encoder_parts import one_line, shape_by_trial

CLASSES = {"vision-encoder-decoder": "VisionEncoderDecoderModel", "blip": "BlipForConditionalGeneration"}
DECODERS = ("bert", "blip_text_model", "gpt2", "roberta")  # those whose positions and caches are known here


class HuggingFace(Policy):
    """The decoder of such a model, over the features of its encoder. It speaks subwords of its own.

    The library's layers want a row's own keys and values of the regions: they are copied for each sample or beam when
    a caption starts, and kept in the state. It gives no attention, and BLIP's decoder heeds no mask of the regions.
    """

    def __init__(self, codec: Codec, shape: FeatureShape, *, model: str) -> None:
        super().__init__()
        found = _load(model)
        if found.config.model_type == "blip":
            self.decoder, seen = found.text_decoder, found.config.vision_config.hidden_size
        else:
            self.decoder, seen = found.decoder, found.config.encoder.hidden_size
        kind = self.decoder.config.model_type
        if kind not in DECODERS:
            raise ConfigError(
                f"policy.model={model}: its decoder is a {kind}; this adapter knows {', '.join(DECODERS)}"
            )
        if shape.width != seen:
            raise ConfigError(
                f"policy.model={model}: sees features of width {seen}, and is given {shape.width}; "
                "give it those of its own encoder (encoder.name=hugging_face)"
            )
        self.codec: Subwords = Subwords(model, found)
        self.project = getattr(found, "enc_to_dec_proj", None) or nn.Identity()
        self.name = model
        self.first = self.decoder.config.pad_token_id + 1 if kind == "roberta" else 0  # the position of a first word

    def remember(self, features: Features) -> Memory:
        """Keys and values of the regions, layer by layer: what the decoder keeps of them when it reads one word."""
        seen, mask = self.project(features.values), features.mask
        start = torch.full((len(mask), 1), self.codec.start, device=mask.device)
        found = self.decoder(
            input_ids=start,
            attention_mask=torch.ones_like(start),
            position_ids=torch.full_like(start, self.first),
            encoder_hidden_states=seen,
            encoder_attention_mask=mask.long(),
            use_cache=True,
        )
        return {"regions": _pairs(found.past_key_values.cross_attention_cache), "mask": mask}

    def start(self, memory: Memory, n: int, length: int) -> State:
        self._check(length)
        regions = tree_map(lambda tensor: tensor.repeat_interleave(n, 0), memory["regions"])
        said = tree_map(lambda tensor: tensor.new_zeros(*tensor.shape[:2], length, tensor.shape[3]), regions)
        position = torch.zeros(n * len(memory["mask"]), dtype=torch.long, device=memory["mask"].device)
        return {"said": said, "regions": regions, "position": position}

    def step(
        self,
        words: Tensor,
        state: State,
        memory: Memory,
        *,
        uniforms: Tensor | None = None,
        choices: Tensor | None = None,
        want: Collection[str] = (),
    ) -> Step:
        position, said = state["position"][:, None], state["said"]
        places = torch.arange(said[0][0].shape[2], device=words.device)
        heard = torch.cat((places < position, torch.ones_like(position, dtype=torch.bool)), 1)
        logits, after = self._decode(words[:, None], position, heard, state["regions"], memory["mask"], said)
        here = (places == position)[:, None, :, None]
        kept = tuple(  # of each layer: the new keys and values stand last
            tuple(torch.where(here, new[:, :, -1:], old) for new, old in zip(pair, before, strict=True))
            for pair, before in zip(after, said, strict=True)
        )
        return Step(logits[:, 0], {"said": kept, "regions": state["regions"], "position": position[:, 0] + 1})

    def score(
        self,
        memory: Memory,
        words: Tensor,
        *,
        choices: Tensor | None = None,
        uniforms: Tensor | None = None,
        want: Collection[str] = (),
    ) -> Scores:
        """All words of a caption at once, each from those before it."""
        _, n, length = words.shape
        before = F.pad(words[..., :-1], (1, 0), value=self.codec.start).flatten(0, 1)  # (rows, T)
        position = torch.arange(length, device=words.device).expand_as(before)
        self._check(length)
        regions = self.start(memory, n, 0)["regions"]
        said, _ = self._decode(before, position, torch.ones_like(before), regions, memory["mask"])
        return Scores.of_logits(said, words, want)

    def select(self, state: State, rows: Tensor) -> State:
        """Rows stay within their image: as long as each keeps its number of rows, regions need not move."""
        moving = dict(state)
        still = {"regions": moving.pop("regions")} if len(rows) == len(state["position"]) else {}
        return {**super().select(moving, rows), **still}

    def _check(self, length: int) -> None:
        places = self.decoder.config.max_position_embeddings - self.first
        if length > places:
            raise ConfigError(
                f"policy.model={self.name}: has positions for {places} tokens, and captions of {length} were asked "
                f"for; set decoding.length, trainer.rollout.length or data.max_words to {places} or less"
            )

    def _decode(
        self, words: Tensor, position: Tensor, heard: Tensor, regions: Any, mask: Tensor, said: Any = ()
    ) -> tuple[Tensor, Any]:
        """words and position (rows, T), heard (rows, places before + T) -> logits, and keys and values of all words."""
        rows, caches = len(words), _library("cache_utils")
        found = self.decoder(
            input_ids=words,
            attention_mask=heard.long(),
            position_ids=position + self.first,
            encoder_hidden_states=regions[0][0].new_zeros(1).expand(rows, mask.shape[1], 1),  # only its shape is read
            encoder_attention_mask=mask.repeat_interleave(rows // len(mask), 0).long(),
            past_key_values=caches.EncoderDecoderCache(_cache(said), _cache(regions)),
            use_cache=True,
        )
        return found.logits, _pairs(found.past_key_values.self_attention_cache)


class HuggingFaceEncoder(Encoder):
    """The encoder of such a model: its last hidden states, all of them (a ViT's first one is no place in the image)."""

    def __init__(self, *, model: str) -> None:
        super().__init__()
        found = _load(model)
        self.vision = found.vision_model if found.config.model_type == "blip" else found.encoder
        processor = _read("AutoImageProcessor", model, "encoder")
        size = self.vision.config.image_size
        if not isinstance(size, int):
            raise ConfigError(f"encoder.model={model}: sees pictures of {size} pixels; rlcap's are squares")
        self.size, self.resize = size, "crop" if getattr(processor, "do_center_crop", False) else "squash"
        self.mean: Tensor
        self.spread: Tensor
        for name, values in (("mean", processor.image_mean), ("spread", processor.image_std)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)
        self.shape = shape_by_trial(self)

    def forward(self, images: Tensor) -> Features:
        values = self.vision(pixel_values=(images - self.mean) / self.spread).last_hidden_state
        return Features(values, torch.ones(values.shape[:2], dtype=torch.bool, device=values.device))


class Subwords:
    """The model's tokeniser as a Codec. Words are what coco-caption would make of its text."""

    def __init__(self, name: str, model: Any) -> None:
        self.tokeniser = _read("AutoTokenizer", name, "policy")
        told = model.generation_config
        if model.config.model_type == "blip":
            text = model.config.text_config
            ids = {"start": text.bos_token_id, "end": text.sep_token_id, "pad": text.pad_token_id}
            self.size = int(text.vocab_size)
        else:
            start = told.decoder_start_token_id
            ids = {"start": told.bos_token_id if start is None else start, "end": told.eos_token_id}
            ids["pad"] = told.pad_token_id
            self.size = int(model.config.decoder.vocab_size)
        for what, value in ids.items():
            if not isinstance(value, int):
                raise ConfigError(
                    f"policy.model={name}: its {what} token is {value}; set it in the model's generation_config.json"
                )
        self.start, self.end, self.pad = ids["start"], ids["end"], ids["pad"]
        beyond = range(len(self.tokeniser), self.size)  # ids that only fill the embedding up
        self.banned = tuple(sorted({self.start, self.pad, *self.tokeniser.all_special_ids, *beyond} - {self.end}))
        vocabulary = json.dumps(sorted(self.tokeniser.get_vocab().items()))
        self.fingerprint = fingerprint_of(vocabulary, *map(str, (self.size, self.start, self.end, self.pad)))

    def encode(self, words: Sequence[str]) -> list[int]:
        ids: list[int] = self.tokeniser(" ".join(words), add_special_tokens=False)["input_ids"]
        return ids

    def words(self, tokens: Sequence[int]) -> list[str]:
        ids = [int(token) for token in tokens]
        ids = ids[: ids.index(self.end)] if self.end in ids else ids
        said = [token for token in ids if token not in self.banned]
        return tokenise(self.tokeniser.decode(said))


def _pairs(cache: Any) -> tuple[tuple[Tensor, Tensor], ...]:
    return tuple((layer.keys, layer.values) for layer in cache.layers)


def _cache(pairs: Sequence[tuple[Tensor, Tensor]]) -> Any:
    """Keys and values in the library's clothes; its own way in would copy them."""
    caches = _library("cache_utils")
    cache = caches.DynamicCache()
    for keys, values in pairs:
        layer = caches.DynamicLayer()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        cache.layers.append(layer)
    return cache


def _load(name: str) -> Any:
    """The whole model in float32: each half takes its part."""
    kind = _read("AutoConfig", name, "policy").model_type
    if kind not in CLASSES:
        raise ConfigError(f"policy.model={name}: is a {kind}; this adapter takes {', '.join(CLASSES)}")
    found, told = _read(CLASSES[kind], name, "policy", dtype=torch.float32, output_loading_info=True)
    missing = sorted(key for key in told["missing_keys"] if "pooler." not in key)  # nothing here asks a pooler
    if missing:
        more = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise ConfigError(
            f"policy.model={name}: its weights lack {missing[0]}{more}, which would be random; give the checkpoint of "
            "a whole captioner, eyes and speech"
        )
    return found


def _read(kind: str, name: str, section: str, **settings: Any) -> Any:
    try:
        return getattr(_library(), kind).from_pretrained(name, **settings)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ConfigError(
            f"{section}.model={name}: cannot be read ({one_line(error)}); give a folder to which model, tokeniser and "
            "image processor were saved with save_pretrained, or a name on the Hub"
        ) from error


def _library(part: str = "") -> Any:
    try:
        return importlib.import_module(f"transformers.{part}".rstrip("."))
    except ImportError as error:
        raise ComponentError(
            f"hugging_face needs the package transformers ({error}): pip install 'rlcap[hf]'"
        ) from error
