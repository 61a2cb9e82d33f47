"""Words as a condition: vocabularies, prompts, the text encoder, and what takes the place of no words."""

from __future__ import annotations

import json

import pytest
import torch

from diffusionkit.core import DDIM, ClassifierFree, Cosine, Diffusion, Gaussian, Simple
from diffusionkit.errors import UserError
from diffusionkit.image.backbones.dit import DiT
from diffusionkit.image.backbones.text import END, PAD, START, TextEncoder, read, without
from diffusionkit.image.backbones.unet import UNet
from diffusionkit.image.codec import PixelCodec
from diffusionkit.image.domain import ImageDomain
from diffusionkit.image.prompts import Prompt, parse
from diffusionkit.image.text import asked, said
from diffusionkit.image.vocabulary import LEAST, Vocabulary

CAPTIONS = ["red heart", "blue heart", "red apple", "green apple", "cat with a red heart"]


@pytest.fixture
def vocabulary() -> Vocabulary:
    return Vocabulary.learn(CAPTIONS, 280, 12, ["blue apple", "green heart"])


def networks(**more: object) -> list[torch.nn.Module]:
    """A U-Net and a DiT that read 280 ids, with weights that are nowhere zero."""
    text = {"vocabulary": 280, "text_length": 12, "text_width": 16, "text_depth": 1, **more}
    found = [
        UNet(shape=(1, 8, 8), channels=8, multipliers=(1, 2), blocks=1, attention=(4,), dropout=0.0, **text),
        DiT(shape=(1, 8, 8), patch=4, width=16, depth=2, heads=2, **text),
    ]
    for network in found:
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return [network.eval() for network in found]


# ---- vocabularies ----


@pytest.mark.parametrize(
    "text", ["red heart", "", " two  spaces ", "ünïcode 😀\u200d👩 漢字 \x00\n\t", "<pad><start>", "ĠĊ", "\ufeff￿"]
)
def test_no_text_is_lost(vocabulary: Vocabulary, text: str) -> None:
    assert vocabulary.text(vocabulary.ids(text)) == text
    assert not {PAD, START, END} & set(vocabulary.ids(text))


def test_a_vocabulary_is_of_its_captions_alone(vocabulary: Vocabulary) -> None:
    assert len(vocabulary.ids("red heart")) == 2
    assert len(vocabulary.ids("green")) < len(vocabulary.ids("giraffe")) == len("giraffe") + 1  # a space before it
    other = Vocabulary.learn(["giraffe giraffe"], 280, 12)
    assert len(other.ids("giraffe")) == 1 and len(other.ids("heart")) == len("heart") + 1
    assert LEAST < len(vocabulary) <= 280
    assert Vocabulary.learn(CAPTIONS, 280, 12).described()["tokenizer"] == vocabulary.described()["tokenizer"]


def test_ids_start_end_and_are_cut(vocabulary: Vocabulary) -> None:
    ids = vocabulary.condition(["red heart", "", "xyz " * 9])["text"]
    assert ids.shape == (3, 12) and ids.dtype == torch.long
    assert ids[0].tolist() == [START, *vocabulary.ids("red heart"), END] + [PAD] * 8
    assert ids[1].tolist() == [START, END] + [PAD] * 10
    assert ids[2, -1] == END and (ids[2] != PAD).all()
    assert Vocabulary.learn([*CAPTIONS, "xyz " * 9], 270, 12).cut == 1


def test_a_codec_keeps_its_vocabulary(vocabulary: Vocabulary, tmp_path) -> None:
    PixelCodec((1, 8, 8), text=vocabulary).save(tmp_path)
    back = PixelCodec.load(tmp_path)
    assert back.text.described() == vocabulary.described()
    assert back.arguments() == {"shape": (1, 8, 8), "classes": None, "vocabulary": len(vocabulary), "text_length": 12}
    assert torch.equal(back.text.condition(["a cat"])["text"], vocabulary.condition(["a cat"])["text"])


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "pickle"},
        {"examples": "red"},
        {"examples": [1]},
        {"length": 1},
        {"length": "5"},
        {"tokenizer": {"model": 3}},
    ],
)
def test_a_damaged_vocabulary_is_one_sentence(vocabulary: Vocabulary, tmp_path, change: dict) -> None:
    PixelCodec((1, 8, 8), text=vocabulary).save(tmp_path)
    path = tmp_path / "codec.json"
    content = json.loads(path.read_text())
    content["text"] |= change
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"codec\.json: is damaged"):
        PixelCodec.load(tmp_path)


# ---- prompts ----


@pytest.mark.parametrize(
    ("typed", "text", "weights"),
    [
        ("a red heart", "a red heart", None),
        ("a (red:1.5) heart", "a red heart", [1] * 2 + [1.5] * 3 + [1] * 6),
        ("(ab)c", "abc", [1.1, 1.1, 1]),
        ("(a(b:2):0.5)", "ab", [0.5, 1.0]),
        ("((a))", "a", [1.1**2]),
        (r"\(a\:1\) \\", "(a\\:1) \\", None),
        ("(a:b:0)", "a:b", [0.0] * 3),
        ("(red:1)", "red", None),
        ("", "", None),
        ("10:30", "10:30", None),
    ],
)
def test_brackets_weigh(typed: str, text: str, weights: list[float] | None) -> None:
    found = parse(typed)
    assert found.text == text
    assert found.weights == (None if weights is None else pytest.approx(weights))


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("a (red", "does not close a bracket"),
        ("a red)", "closes a bracket that was not opened"),
        ("(red:much)", "has the weight 'much'"),
        ("(red:-1)", "must be a number from 0 to 100"),
        ("(red:nan)", "must be a number from 0 to 100"),
    ],
)
def test_impossible_brackets_are_refused(typed: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(typed)


def test_tokens_weigh_as_their_characters(vocabulary: Vocabulary) -> None:
    found = vocabulary.prompts([parse("red (heart:2)"), parse("")])
    assert torch.equal(found["text"], vocabulary.condition(["red heart", ""])["text"])
    assert found["text_weights"][0].tolist() == [1, 1, 2] + [1] * 9 and (found["text_weights"][1] == 1).all()
    assert list(vocabulary.prompts([parse("red (heart:1)")])) == ["text"]


def test_what_is_cut_is_named(vocabulary: Vocabulary) -> None:
    with pytest.warns(UserWarning, match="longer than the 12 tokens that the model reads; this is cut: ' zebra'"):
        vocabulary.prompts([Prompt("red " * 9 + "red zebra")])


def test_prompts_take_turns(vocabulary: Vocabulary, tmp_path) -> None:
    (tmp_path / "p.txt").write_text("red heart\n\n  (blue:2) cat \n")
    indices = torch.tensor([0, 3, 4])
    found = asked(vocabulary, indices, prompts=tmp_path / "p.txt")
    one = vocabulary.condition(["red heart", "blue cat"])["text"]
    assert torch.equal(found["text"], one[indices % 2]) and (found["text_weights"][1] == 2).any()
    assert said(vocabulary, 3, prompts=tmp_path / "p.txt") == ["red heart", "(blue:2) cat", "red heart"]
    held = asked(vocabulary, indices)["text"]
    assert torch.equal(held, vocabulary.condition(["blue apple", "green heart", "blue apple"])["text"])
    assert said(vocabulary, 3) == ["blue apple", "green heart", "blue apple"] and said(None, 3) is None


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"prompt": "a", "prompts": "b"}, "--prompt and --prompts: choose one"),
        ({"prompts": "nowhere.txt"}, r"nowhere\.txt cannot be read"),
    ],
)
def test_refusals(vocabulary: Vocabulary, wanted: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        asked(vocabulary, torch.arange(2), **wanted)


def test_a_model_without_text_refuses_prompts_and_a_file_needs_some(vocabulary: Vocabulary, tmp_path) -> None:
    for name in ("prompt", "negative", "prompts"):
        with pytest.raises(UserError, match=f"--{name}: 'x' was asked for, but this model was trained without text"):
            ImageDomain().condition(PixelCodec((1, 8, 8)), torch.arange(2), **{name: "x"})
    (tmp_path / "p.txt").write_text("\n \n")
    with pytest.raises(UserError, match="holds no prompt"):
        asked(vocabulary, torch.arange(2), prompts=tmp_path / "p.txt")


# ---- networks ----


def test_padding_changes_nothing() -> None:
    ids = torch.tensor([[START, 7, 8, 9, END], [START, 7, END, PAD, PAD]])
    x, t = torch.randn(2, 1, 8, 8, dtype=torch.float64), torch.rand(2, dtype=torch.float64)
    longer = torch.nn.functional.pad(ids, (0, 7))
    for network in networks():
        network.double()
        output = network(x, t, {"text": ids})
        assert (network(x, t, {"text": longer}) - output).abs().max() < 1e-6
        alone = network(x[1:], t[1:], {"text": ids[1:, :3]})
        assert (alone - output[1:]).abs().max() < 1e-6
        assert (network(x, t, {"text": ids.flip(0)}) - output).abs().amax((1, 2, 3)).min() > 1e-3


def test_a_mask_of_given_tokens_counts_in_both_networks() -> None:
    tokens, mask = torch.randn(2, 5, 6), torch.tensor([[True] * 3 + [False] * 2] * 2)
    x, t = torch.randn(2, 1, 8, 8), torch.rand(2)
    for network in networks(vocabulary=None, token_dim=6, pooled_dim=4):
        cond = {"tokens": tokens, "tokens_mask": mask, "pooled": torch.randn(2, 4)}
        output = network(x, t, cond)
        others = cond | {"tokens": torch.where(mask[..., None], tokens, 99.0)}
        assert (network(x, t, others) - output).abs().max() < 1e-6
        assert (network(x, t, cond | {"tokens_mask": ~mask}) - output).abs().max() > 1e-3
        assert (network(x, t, cond | {"pooled": torch.zeros(2, 4)}) - output).abs().max() > 1e-3


def test_word_order_counts_and_weights_of_one_do_not() -> None:
    encoder = TextEncoder(20, 8, 8, 1, 2)
    torch.nn.init.normal_(encoder.places)
    ids = torch.tensor([[START, 5, 6, END]])
    (tokens, _), pooled = encoder(ids)
    assert torch.equal(encoder(ids, torch.ones(1, 4))[0].values, tokens)
    assert (encoder(ids[:, [0, 2, 1, 3]])[1] - pooled).abs().max() > 1e-3
    nothing = encoder(torch.tensor([[START, END]]))[1]
    halved = encoder(ids, torch.full((1, 4), 0.5))[0].values
    assert torch.allclose(halved, (tokens + nothing[:, None]) / 2, atol=1e-6)
    assert torch.allclose(encoder(ids, torch.zeros(1, 4))[1], nothing, atol=1e-6)


def test_no_text_is_the_empty_text() -> None:
    x, t = torch.randn(3, 1, 8, 8), torch.rand(3)
    ids = torch.tensor([[START, 7, 8, END]] * 3)
    drop = torch.tensor([True, False, True])
    for network in networks():
        dropped = network.null({"text": ids}, drop)["text"]
        assert dropped.tolist() == [[START, END, PAD, PAD], [START, 7, 8, END], [START, END, PAD, PAD]]
        all_dropped = network(x, t, network.null({"text": ids}, torch.ones(3, dtype=torch.bool)))
        assert (all_dropped - network(x, t)).abs().max() < 1e-6


def test_captions_are_dropped_as_often_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    network = networks()[1]
    seen = []
    original = network.forward
    monkeypatch.setattr(network, "forward", lambda x, t, cond: seen.append(cond["text"]) or original(x, t, cond))
    diffusion = Diffusion(network, Gaussian(Cosine()), Simple(drop=0.25))
    ids = torch.tensor([[START, 7, 8, END]]).expand(2000, -1)
    diffusion.loss(torch.zeros(2000, 1, 8, 8), {"text": ids})
    assert float((seen[0][:, 1] == END).float().mean()) == pytest.approx(0.25, abs=0.04)


def test_a_negative_prompt_takes_the_place_of_no_text(vocabulary: Vocabulary) -> None:
    indices, x, t = torch.arange(2), torch.randn(2, 1, 8, 8), torch.tensor([0.3, 0.8])
    for network in networks():
        diffusion = Diffusion(network, Gaussian(Cosine()))
        plain = {name: asked(vocabulary, indices, name) for name in ("red heart", "blue cat")}
        against = asked(vocabulary, indices, "red heart", negative="blue cat")
        wanted, other = (diffusion(x, t, cond) for cond in plain.values())
        assert torch.equal(diffusion(x, t, against), wanted)
        guided = ClassifierFree(diffusion, 3.0)(x, t, against)
        assert torch.allclose(guided, other + 3 * (wanted - other), atol=1e-4)
        same = ClassifierFree(diffusion, 3.0)(x, t, asked(vocabulary, indices, "red heart", negative="red heart"))
        assert torch.allclose(same, wanted, atol=1e-4)
        empty = ClassifierFree(diffusion, 3.0)(x, t, asked(vocabulary, indices, "red heart", negative=""))
        assert torch.allclose(empty, ClassifierFree(diffusion, 3.0)(x, t, plain["red heart"]), atol=1e-5)


def test_weights_on_one_side_alone_fit_the_other(vocabulary: Vocabulary) -> None:
    for prompt, negative in (("(red:2) heart", "blue"), ("red heart", "(blue:2)")):
        cond = asked(vocabulary, torch.arange(2), prompt, negative=negative)
        assert cond.keys() - {"negative"} == cond["negative"].keys() == {"text", "text_weights"}
        bare = without(cond, torch.tensor([True, False]))
        assert torch.equal(bare["text_weights"][0], cond["negative"]["text_weights"][0])
        assert torch.equal(bare["text"][1], cond["text"][1])


def test_a_guided_sampler_takes_prompts(vocabulary: Vocabulary) -> None:
    diffusion = ClassifierFree(Diffusion(networks()[0], Gaussian(Cosine(), predict="v")), 2.0)
    cond = asked(vocabulary, torch.arange(3), "a (red:1.5) heart", negative="cat")
    assert DDIM(3)(diffusion, like=(3, 1, 8, 8), cond=cond).isfinite().all()


def test_impossible_encoders_are_refused() -> None:
    with pytest.raises(ValueError, match="text_heads must divide text_width"):
        UNet(vocabulary=300, text_width=10)
    with pytest.raises(ValueError, match="vocabulary must be at least 4"):
        DiT(vocabulary=2)


def test_read_gives_nothing_to_a_network_without_words() -> None:
    assert read(None, None, {"tokens": torch.ones(1, 2, 3)}, torch.zeros(1)) == (None, None)
