"""Registry of benchmarks, and the default protocol (the paper's)."""

from dataclasses import replace
from typing import Any

from c2c_lightning.errors import BenchmarkError
from c2c_lightning.evaluation.tasks.task import ROW_KINDS, Task

#: Values that neither the user nor the registry sets: the paper's protocol with anchored extraction.
DEFAULTS = Task(
    "",
    split="test",
    rows="choice",
    wording="paper",
    mode="generate",
    scoring="anchored",
    normalise="characters",
    seed=0,
)

#: The same for multiple-choice rows of one's own, whose protocol is not known. Few fusers are trained on the paper's
#: prompt: the quickstart's answers to it are unreadable, though by likelihood it knows the facts.
OWN_ROWS = replace(DEFAULTS, wording="question", mode="cloze")

_MATHS: dict[str, Any] = {"wording": "maths", "scoring": "maths", "rows": "free", "max_new_tokens": 1024}

_ENTRIES = [
    # The paper's four (table 4); `scoring: released` scores as the released code does.
    Task("mmlu_redux", "edinburgh-dawg/mmlu-redux-2.0", "*", rows="mmlu_redux"),
    Task("openbookqa", "allenai/openbookqa", "main"),
    Task("arc_challenge", "allenai/ai2_arc", "ARC-Challenge"),
    Task("ceval", "ceval/ceval-exam", "*", split="val", rows="ceval"),
    # ARC-Challenge with the released code's exclusions: 1,150 of 1,172 questions.
    Task("arc_challenge_released", "allenai/ai2_arc", "ARC-Challenge", rows="letter_key"),
    # Multiple choice.
    Task("mmlu", "cais/mmlu", "all"),
    Task("mmlu_pro", "TIGER-Lab/MMLU-Pro"),
    # MMLU in 14 languages; `subset: SW_KE`, for example, selects one.
    Task("mmmlu", "openai/MMMLU", "default", rows="mmmlu"),
    Task("arc_easy", "allenai/ai2_arc", "ARC-Easy"),
    Task("gpqa", "Idavidrein/gpqa", "gpqa_diamond", split="train", rows="gpqa"),
    Task("commonsenseqa", "tau/commonsense_qa", split="validation"),
    Task("boolq", "google/boolq", split="validation", rows="boolq"),
    Task("piqa", "ybisk/piqa", split="validation", revision="refs/convert/parquet", rows="piqa"),
    Task("winogrande", "allenai/winogrande", "winogrande_xl", split="validation", rows="winogrande"),
    # Maths.
    Task("gsm8k", "openai/gsm8k", "main", **_MATHS),
    Task("math_500", "HuggingFaceH4/MATH-500", **_MATHS),
    # The hub repository is a script, which datasets no longer runs: set `path: DIR/*_e.jsonl` (its data.zip, unpacked).
    Task("longbench_e", wording="question", rows="longbench", scoring="longbench", max_new_tokens=2048),
    # The synthetic facts of the package that neither receiver nor fuser was trained on.
    Task("quickstart", "embedded:facts/heldout", wording="question", scoring="choice_text"),
    Task("private_context", "embedded:facts/private_context_heldout", wording="question", scoring="choice_text"),
]

BENCHMARKS = {entry.name: entry for entry in _ENTRIES}


def resolve(given: Task) -> Task:
    """A benchmark as in YAML with all values set: the given ones, else the registry's, else the defaults."""
    known = BENCHMARKS.get(given.name)
    if known is None and given.path is None:
        raise BenchmarkError(
            f"unknown benchmark {given.name!r}. Known are {', '.join(sorted(BENCHMARKS))}; for other rows set "
            "`path` (JSON lines with question, choices, answer)."
        )
    is_open = known is None and given.rows in (None, "choice") and not (given.wording or given.mode or given.scoring)
    values: dict[str, Any] = {}
    for source in filter(None, (OWN_ROWS if is_open else DEFAULTS, known, given)):
        values |= {name: value for name, value in vars(source).items() if value is not None}
    merged = Task(**values)
    if merged.path is None:
        raise BenchmarkError(f"the hub repository of {merged.name} cannot be loaded; set `path` to local files.")
    if merged.rows not in ROW_KINDS:
        raise BenchmarkError(f"{merged.name}: unknown rows {merged.rows!r}. Known are {', '.join(ROW_KINDS)}.")
    if merged.limit is not None and merged.limit < 1:
        raise BenchmarkError(f"{merged.name}: limit is {merged.limit}, but must be at least 1.")
    # An unknown wording is an error here, before rows and models are loaded.
    merged.worded()
    return merged
