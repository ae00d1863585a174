"""Loads the questions of a benchmark from local files, the package or the hub."""

import logging
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets

from c2c_lightning import embedded
from c2c_lightning.data.readers.data_files import is_local
from c2c_lightning.data.readers.files import read_rows
from c2c_lightning.errors import BenchmarkError, DataError, ModelLoadError
from c2c_lightning.evaluation.tasks.benchmark_question import Question
from c2c_lightning.evaluation.tasks.known_tasks import resolve
from c2c_lightning.evaluation.tasks.task import Task

logger = logging.getLogger(__name__)

_EMBEDDED = "embedded:facts/"
# Above the longest line of LongBench, whose contexts are long.
_MAX_ROW_BYTES = 2**26


def load_questions(given: Task, data_folder: str | Path | None = None) -> list[Question]:
    """The questions of a benchmark, in the order of its rows, or with a limit in that of a seeded shuffle.

    `data_folder` is the base of relative paths of local files. BenchmarkError for rows that cannot be found or parsed.
    """
    benchmark = _in_folder(resolve(given), data_folder)
    parse = benchmark.parser()
    questions: list[Question] = []
    excluded: Counter[str] = Counter()
    for index, (origin, row) in enumerate(_rows(benchmark)):
        try:
            fields = parse(row)
        except (BenchmarkError, DataError, KeyError, TypeError, ValueError, IndexError) as problem:
            # The text of a KeyError is the bare key.
            cause = f"there is no {problem}" if isinstance(problem, KeyError) else str(problem)
            raise BenchmarkError(f"benchmark {benchmark.name}, {origin}: {cause}") from problem
        if isinstance(fields, str):
            excluded[fields] += 1
            continue
        questions.append(Question(index=index, id=str(row.get("id") or row.get("_id") or index), **fields))
    for reason, count in excluded.items():
        logger.info("%s: %d rows excluded (%s)", benchmark.name, count, reason)
    if not questions:
        reasons = f" (excluded: {dict(excluded)})" if excluded else ""
        raise BenchmarkError(f"benchmark {benchmark.name} has no questions at {benchmark.path}{reasons}.")
    _check_mode(benchmark, questions)
    return _limited(questions, benchmark)


def _in_folder(benchmark: Task, data_folder: str | Path | None) -> Task:
    """The benchmark with its paths in the folder, if they are paths of local files."""
    folder = None if data_folder is None else Path(data_folder).expanduser()
    return replace(benchmark, path=_local(benchmark.path, folder), examples=_local(benchmark.examples, folder))


def _local(path: str | None, folder: Path | None) -> str | None:
    # Hub ids contain a slash as well, so only these endings are local.
    if path is None or folder is None or not path.endswith((".jsonl", ".json", ".parquet", ".gz", "/")):
        return path
    return str(folder / path)


def _limited(questions: list[Question], benchmark: Task) -> list[Question]:
    """A seeded sample of questions: the first rows of a benchmark are often all of one subject."""
    if benchmark.limit is None or benchmark.limit >= len(questions):
        return questions
    return random.Random(benchmark.seed).sample(questions, benchmark.limit)


def _check_mode(benchmark: Task, questions: list[Question]) -> None:
    """Check that the rows allow the answer mode and the scoring."""
    needs_choices = benchmark.mode != "generate" or benchmark.scoring not in ("maths", "longbench", "squad")
    without = next((q for q in questions if needs_choices and q.answer is None), None)
    if without is not None:
        raise BenchmarkError(
            f"benchmark {benchmark.name}: row {without.index} has no choices, but mode {benchmark.mode} with scoring "
            f"{benchmark.scoring} needs them. Use `mode: generate` with `scoring: maths` or `squad`, or add choices."
        )
    if benchmark.mode == "letter" and not benchmark.worded().shows_choices:
        raise BenchmarkError(
            f"benchmark {benchmark.name}: mode letter needs a wording that shows the choices, unlike "
            f"{benchmark.wording!r}. Use `wording: paper`, or `mode: cloze`."
        )


def _rows(benchmark: Task) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Origin of each row, and the row."""
    try:
        path = benchmark.path or ""
        if path.startswith(_EMBEDDED):
            path = str(embedded.facts(f"{path.removeprefix(_EMBEDDED).removesuffix('.jsonl')}.jsonl"))
        is_local_path = is_local(path)
        subsets = [None] if is_local_path else _subsets(path, benchmark.subset, benchmark.revision)
        for name in subsets:
            # Local files are streamed: as a table they would first be copied to the cache of datasets.
            rows = read_rows(
                path,
                split=benchmark.split or "test",
                subset=name,
                revision=benchmark.revision,
                streaming=is_local_path,
                max_row_bytes=_MAX_ROW_BYTES,
            )
            for origin, row in rows:
                # Hub subsets are the subjects of MMLU-Redux and C-Eval, whose rows have no such column.
                yield origin, row if name is None or len(subsets) == 1 else {"subject": name, **row}
    except (DataError, ModelLoadError) as problem:
        raise BenchmarkError(f"benchmark {benchmark.name}: {problem}") from problem


def _subsets(path: str, subset: str | None, revision: str | None) -> list[str | None]:
    if subset != "*":
        return [subset]
    try:
        return list(datasets.get_dataset_config_names(path, revision=revision))
    except (OSError, ValueError, datasets.exceptions.DatasetNotFoundError) as problem:
        raise DataError(f"the subsets of `{path}` cannot be listed: {problem}") from problem
