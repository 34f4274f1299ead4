"""Captioners of Hugging Face's transformers: tiny random ones, made here, against the library's own loops."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import rlcap
from rlcap.cli import main
from rlcap.contracts import Features, FeatureShape, Policy
from rlcap.data.vocabulary import Vocabulary
from rlcap.decoding.beam import beam_search
from rlcap.decoding.constraints import Constraints
from rlcap.decoding.loop import write
from rlcap.errors import ComponentError, ConfigError
from rlcap.models.encoders import load_encoder
from rlcap.models.hugging_face import HuggingFace
from rlcap.models.seeing import Seeing
from rlcap.policy_check import check_policy

WORDS = ["a", "red", "ball", "and", "blue", "box"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PIECES = [*LETTERS, *[f"##{letter}" for letter in LETTERS], "red", "ba", "##ll", "and", "blue", "bo", "on", "the"]
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "bos_token": "[DEC]"}
SIZE, SEEN = 64, 8  # pixels, and the width of what the encoder sees
KINDS = ("bert", "roberta", "gpt2", "blip")
RECIPE = """
name: adapted
data: {path: scenes, max_words: 12}
encoder: {name: hugging_face, model: MODEL}
policy: {name: hugging_face, model: MODEL}
training: {images: 8, captions: 2, evaluate_every: 4 updates}
decoding: {length: 12}
stages:
  cross_entropy:
    trainer: {name: cross_entropy, optimiser: {lr: 1e-3}}
    training: {updates: 8}
  scst:
    trainer: {name: scst, baseline: leave_one_out, rollout: {samples: 3, length: 12}, optimiser: {lr: 1e-3}}
    rewards: {cider_d: 1.0, length: 0.1}
    training: {updates: 4}
"""


def test_says_what_is_missing(codec, shape, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ComponentError, match=r"pip install 'rlcap\[hf\]'"):
        HuggingFace(codec, shape, model="anything")


def save_tokeniser(folder, bytewise: bool) -> None:
    """Word pieces; or bytes, which have one special token for all purposes, as GPT-2's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    if bytewise:
        entries = ["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġb", "re"]
        made = Tokenizer(models.BPE({piece: i for i, piece in enumerate(entries)}, [("Ġ", "b"), ("r", "e")]))
        made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        special = dict.fromkeys(("bos_token", "eos_token", "unk_token"), entries[0])
    else:
        entries, special = [*SPECIAL.values(), *PIECES], SPECIAL
        made = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(entries)}, unk_token="[UNK]"))
        made.pre_tokenizer, made.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    PreTrainedTokenizerFast(tokenizer_object=made, **special).save_pretrained(folder)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of random models, by the kind of their decoder."""
    pytest.importorskip("transformers")
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in KINDS}
    for kind, folder in folders.items():
        save_model(kind, folder)
    return {kind: str(folder) for kind, folder in folders.items()}


def save_model(kind: str, folder) -> None:
    import transformers as hf

    torch.manual_seed(3)
    save_tokeniser(folder, bytewise=kind == "gpt2")
    eyes = {"image_size": SIZE, "patch_size": 16, "hidden_size": SEEN, "num_hidden_layers": 1}
    eyes |= {"num_attention_heads": 2, "intermediate_size": 12}
    lists = {"vocab_size": 70, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3}
    lists |= {"intermediate_size": 16, "max_position_embeddings": 40, "pad_token_id": 0, "type_vocab_size": 1}
    if kind == "blip":
        ids = {"bos_token_id": 4, "sep_token_id": 3, "eos_token_id": 3}
        text = hf.BlipTextConfig(**lists, **ids, encoder_hidden_size=SEEN, projection_dim=8)
        model = hf.BlipForConditionalGeneration(
            hf.BlipConfig(text_config=text.to_dict(), vision_config=hf.BlipVisionConfig(**eyes).to_dict())
        )
        processor = hf.BlipImageProcessor(size={"height": SIZE, "width": SIZE})
    else:
        decoder = {"bert": hf.BertConfig, "roberta": hf.RobertaConfig}.get(kind)
        if decoder:
            speech, ids = decoder(**lists, is_decoder=True, add_cross_attention=True), (2, 3, 0)
        else:
            sizes = {"n_embd": 12, "n_layer": 2, "n_head": 3, "n_positions": 40}
            speech, ids = hf.GPT2Config(vocab_size=260, **sizes, add_cross_attention=True), (0, 0, 0)
        config = hf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(hf.ViTConfig(**eyes), speech)
        model = hf.VisionEncoderDecoderModel(config)
        names = ("decoder_start_token_id", "eos_token_id", "pad_token_id")
        model.generation_config.update(**dict(zip(names, ids, strict=True)))
        processor = hf.ViTImageProcessor(size={"height": SIZE, "width": SIZE})
    for each in model.parameters():
        if each.dim() > 1:  # the library's tiny weights would make all captions alike
            torch.nn.init.normal_(each, std=0.5)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def made(folder: str) -> Seeing:
    """Eyes and speech together, as a recipe makes them."""
    eyes = load_encoder("hugging_face", {"model": folder})
    return Seeing(HuggingFace(Vocabulary(WORDS), eyes.shape, model=folder), eyes).eval()


def whole(folder: str):
    """The library's own model."""
    import transformers as hf

    kind = hf.AutoConfig.from_pretrained(folder).model_type
    name = "BlipForConditionalGeneration" if kind == "blip" else "VisionEncoderDecoderModel"
    return getattr(hf, name).from_pretrained(folder).eval()


def pictures(count: int) -> Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(5))


@pytest.mark.clients
@pytest.mark.parametrize("kind", KINDS)
def test_keeps_the_contract(saved, kind):
    problems = check_policy("hugging_face", {"model": saved[kind]}).problems
    if kind == "blip":  # the library forgets the mask; BLIP's own encoder leaves no region out
        problems = [each for each in problems if not each.startswith("regions that are not there")]
    assert problems == []


@pytest.mark.clients
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_score_is_the_loop_over_step(saved, kind):
    # float64 leaves only rounding
    policy = made(saved[kind]).double()
    memory = policy.remember(Features.of_pixels(pictures(2).double()))
    legal = [word for word in range(policy.codec.size) if word not in policy.codec.banned]
    words = torch.tensor(legal)[torch.randint(len(legal), (2, 3, 6))]
    fast, plain = policy.score(memory, words), Policy.score(policy, memory, words)
    assert torch.allclose(fast.log_prob, plain.log_prob, rtol=0, atol=1e-9)


@pytest.mark.clients
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_writes_what_the_library_writes(saved, kind):
    """Its own generation, greedy and by beam, from the same pixels."""
    policy, library, images = made(saved[kind]), whole(saved[kind]), pictures(4)
    seen = (images - 0.5) / 0.5 if kind != "blip" else (images - policy.encoder.mean) / policy.encoder.spread
    banned = [[word] for word in policy.codec.banned]
    memory = policy.remember(Features.of_pixels(images))
    ours = write(policy, memory, images=4, length=8)
    theirs = library.generate(pixel_values=seen, max_new_tokens=8, bad_words_ids=banned, do_sample=False)
    assert said(policy, ours.words[:, 0]) == said(policy, theirs[:, 1:])
    assert len({tuple(words) for words in said(policy, ours.words[:, 0])}) > 1
    beams = beam_search(policy, memory, images=4, beams=3, length=8, constraints=Constraints(), length_normalisation=0)
    best = library.generate(
        pixel_values=seen, max_new_tokens=8, bad_words_ids=banned, num_beams=3, length_penalty=0.0, early_stopping=False
    )
    assert said(policy, beams.words[:, 0]) == said(policy, best[:, 1:])


def said(policy: Policy, rows: Tensor) -> list[list[int]]:
    """Ids up to the end token."""
    end = policy.codec.end
    return [ids[: ids.index(end)] if end in ids else ids for ids in rows.tolist()]


@pytest.mark.clients
@pytest.mark.parametrize("kind", KINDS)
def test_words_come_back_from_subwords(saved, kind):
    codec = HuggingFace(Vocabulary(WORDS), made(saved[kind]).encoder.shape, model=saved[kind]).codec
    ids = codec.encode(["a", "red", "ball", "and", "blue", "box"])
    assert codec.end not in ids
    assert len(ids) > 6  # "ball" is two pieces
    assert codec.words([codec.start] * (codec.start != codec.end) + [*ids, codec.end, *ids]) == WORDS
    assert codec.end not in codec.banned
    assert not set(ids) & set(codec.banned)
    assert codec.size - 1 in codec.banned  # it only fills the embedding up


@pytest.mark.clients
@pytest.mark.parametrize("kind", ["gpt2", "blip"])
def test_is_tuned_by_rewards_from_pixels(saved, kind, tmp_path, monkeypatch, capsys):
    """Cross-entropy, then SCST by rewards over words, which its subwords reach through text; then used as any run."""
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(RECIPE.replace("MODEL", saved[kind]))
    assert main(["prepare", "scenes", "--out", "scenes", "--count", "40", "--seed", "1"]) == 0
    assert main(["train", "recipe.yaml", "--out", "run"]) == 0
    run, before = rlcap.load("run"), made(saved[kind])
    changed = [name for name, now in run.policy.named_parameters() if not torch.equal(now, before.get_parameter(name))]
    assert any(name.startswith("encoder.vision") for name in changed)
    assert any(name.startswith("policy.decoder") for name in changed)
    assert main(["evaluate", "run", "--split", "test", "--beam", "2"]) == 0
    picture = np.full((80, 60, 3), 200, np.uint8)
    run.export("exported")
    assert rlcap.load("exported").caption(picture, n_best=2) == run.caption(picture, n_best=2)
    capsys.readouterr()


@pytest.mark.clients
@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_missing_are_named(saved, kind, tmp_path):
    shutil.copytree(saved[kind], folder := tmp_path / "cut")
    weights = load_file(folder / "model.safetensors")
    gone = sorted(key for key in weights if "decoder." in key and ".1." in key)[:2]
    poolers = [key for key in weights if "pooler" in key]  # which nothing asks
    save_file({key: value for key, value in weights.items() if key not in poolers}, folder / "model.safetensors")
    made(str(folder))
    save_file({key: value for key, value in weights.items() if key not in gone}, folder / "model.safetensors")
    for make in (made, lambda name: HuggingFace(Vocabulary(WORDS), FeatureShape(17, SEEN), model=name)):
        with pytest.raises(ConfigError, match=rf"{folder}: its weights lack {gone[0]} and 1 others, which would be"):
            make(str(folder))


@pytest.mark.clients
@pytest.mark.parametrize(("kind", "places"), [("bert", 40), ("roberta", 39), ("gpt2", 40), ("blip", 40)])
@torch.no_grad()
def test_captions_beyond_its_positions_are_refused(saved, kind, places):
    policy = made(saved[kind])
    memory, word = policy.remember(Features.of_pixels(pictures(1))), policy.codec.size - 2
    assert policy.score(memory, torch.full((1, 1, places), word)).log_prob.isfinite().all()
    said = f"has positions for {places} tokens, and captions of {places + 1} were asked for; set decoding.length"
    with pytest.raises(ConfigError, match=said):
        policy.score(memory, torch.full((1, 1, places + 1), word))
    write(policy, memory, images=1, length=places)
    with pytest.raises(ConfigError, match=said):
        write(policy, memory, images=1, length=places + 1)


@pytest.mark.clients
def test_what_does_not_fit_is_refused(saved, shape, codec, tmp_path):
    with pytest.raises(ConfigError, match="sees features of width 8, and is given 5"):
        HuggingFace(codec, shape, model=saved["bert"])
    with pytest.raises(ConfigError, match="cannot be read"):
        HuggingFace(codec, shape, model=str(tmp_path))
