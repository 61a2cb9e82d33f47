"""Text encoders of others: tiny ones with random weights, written to a temporary folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffusionkit.errors import UserError
from diffusionkit.image.captions import CaptionedFolder
from diffusionkit.image.codec import PixelCodec
from diffusionkit.image.encoders import Encoders, widths
from diffusionkit.image.prompts import Prompt, parse

WIDTHS = {"clip": 16, "t5": 8}


def tokenizer() -> object:
    """One id for each byte, between a start and an end."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({word: i for i, word in enumerate(["<pad>", "<s>", "</s>", *letters])}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    transformers = pytest.importorskip("transformers")
    clip, t5 = tmp_path_factory.mktemp("clip"), tmp_path_factory.mktemp("t5")
    torch.manual_seed(0)
    sizes = {"intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 24}
    ids = {"vocab_size": 259, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    transformers.CLIPTextModel(transformers.CLIPTextConfig(hidden_size=16, **sizes, **ids)).save_pretrained(clip)
    tokenizer().save_pretrained(clip)
    config = transformers.T5Config(vocab_size=259, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    transformers.T5EncoderModel(config).save_pretrained(t5 / "text_encoder")
    tokenizer().save_pretrained(t5 / "tokenizer")
    return {"clip": str(clip), "t5": str(t5 / "text_encoder")}


@pytest.mark.slow
@pytest.mark.parametrize("names", [["clip"], ["t5"], ["clip", "t5"]])
def test_tokens_of_one_and_of_two(folders: dict[str, str], names: list[str], tmp_path: Path) -> None:
    chosen, width = [folders[name] for name in names], sum(WIDTHS[name] for name in names)
    encoders = Encoders.load(chosen, 20, ["held out"])
    cond = encoders.condition(["a cat", "a dog"])
    assert cond["tokens"].shape == (2, 20, width) and cond["pooled"].shape == (2, width)
    assert cond["tokens_mask"].sum(1).tolist() == [7, 7] and not cond["tokens"][0, 7:].any()
    assert encoders.arguments() == {"token_dim": width, "pooled_dim": width} == widths(chosen)
    if len(names) == 2:
        parts = [Encoders.load([folder], 20).condition(["a cat"])["tokens"] for folder in chosen]
        assert torch.equal(torch.cat(parts, 2), cond["tokens"][:1])
    PixelCodec((1, 8, 8), text=encoders).save(tmp_path)
    back = PixelCodec.load(tmp_path).text
    assert back.examples == ["held out"] and torch.equal(back.condition(["a cat"])["tokens"], cond["tokens"][:1])


@pytest.mark.slow
def test_weights_and_cuts(folders: dict[str, str]) -> None:
    encoders = Encoders.load([folders["clip"], folders["t5"]], 20)
    plain = encoders.condition(["a cat"])["tokens"][0]
    assert torch.equal(encoders.prompts([Prompt("a cat", [1.0] * 5)])["tokens"][0], plain)
    heavy = encoders.prompts([parse("a (cat:1.5)")])["tokens"][0]
    assert (heavy != plain).any(1).tolist() == [False] * 3 + [True] * 3 + [False] * 14
    with pytest.warns(UserWarning, match="longer than the 20 tokens that the model reads; this is cut: 'uvwxyz'"):
        encoders.prompts([parse("cdefghijklmnopqrst" + "uvwxyz")])


@pytest.mark.slow
def test_a_model_is_trained_on_tokens_of_others_and_sampled(folders: dict[str, str], tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image
    from rich.console import Console

    from diffusionkit.recipe import Recipe
    from diffusionkit.training import Run, fit
    from diffusionkit.training.sample import sample

    data = tmp_path / "data"
    data.mkdir()
    for i in range(8):
        Image.fromarray(np.full((8, 8, 3), 30 * i, np.uint8)).save(data / f"{i}.png")
        (data / f"{i}.txt").write_text(f"number {i}")
    encoder = [folders["clip"], folders["t5"]]
    sections = {
        "domain": "image",
        "data": {"name": "captioned", "path": str(data), "size": 8, "length": 20, "encoder": encoder},
        "backbone": {"name": "dit", "patch": 4, "width": 16, "depth": 1, "heads": 2},
        "objective": {"name": "simple", "drop": 0.1},
        "training": {"steps": 2, "batch_size": 4, "pictures": 0},
        "sampling": {"sampler": "ddim", "steps": 2, "guidance": 2},
    }
    run = fit(Recipe.of(sections), tmp_path / "run", console=Console(quiet=True))
    assert run.diffusion.network.token_dim == 24
    loaded = Run.load(tmp_path / "run")
    words = {"prompt": "number (3:1.5)", "negative": "number 4"}
    found = [
        sample(one, 2, tmp_path / f"{i}.png", guidance=2.0, condition=words) for i, one in enumerate((run, loaded))
    ]
    assert found[0].read_bytes() == found[1].read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [("{}", "is no text encoder"), ('{"model_type": "bert"}', "of the kind 'bert'; CLIP and T5 are known")],
)
def test_other_folders_are_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=message):
        Encoders.load([str(tmp_path)], 20)
    assert CaptionedFolder("x", encoder=str(tmp_path)).text_arguments() == {"token_dim": ..., "pooled_dim": ...}


@pytest.mark.slow
def test_lengths_and_pickles_are_refused(folders: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at most 24 tokens, not 32"):
        Encoders.load([folders["clip"]], 32)
    for path in Path(folders["clip"]).iterdir():
        if path.suffix == ".json":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be read"):
        Encoders.load([str(tmp_path)], 20)
