"""`lightning predict`: a fuser answers a file of conversations."""

import json
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule, LightningModule
from torch import distributed
from torch.utils.data import DataLoader

from c2c_lightning.errors import C2CError, DataError, PromptError
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.model.pretrained import DType
from c2c_lightning.prediction.generation_settings import checked_settings, named_refusals, try_settings
from c2c_lightning.prediction.requests import Line, PredictionRequest, load_requests

logger = logging.getLogger(__name__)


class ConversationDataModule(LightningDataModule):
    """Conversations in batches of similar length, longest first; each process gets its own batches.

    Args:
        path: JSON lines or Parquet, a hub data set, or `embedded:facts/NAME`. A row has a conversation as in
            `lightning fit` (`messages`, `conversations` or `instruction`; optionally `sharer_messages`) or a
            `question`; a response at the end is kept as `reference` and not shown to any model.
        batch_size: rows per batch and process.
        max_rows: take the first rows only.
        split: which split, for data that has several.
    """

    def __init__(self, path: str, batch_size: int = 8, max_rows: int | None = None, split: str = "train") -> None:
        super().__init__()
        if batch_size < 1:
            raise DataError(f"`batch_size` must be at least 1, but is {batch_size}.")
        self.path, self.batch_size, self.max_rows, self.split = path, batch_size, max_rows, split
        self._requests: list[PredictionRequest] = []

    def setup(self, stage: str) -> None:
        """Read and check all rows, so that a malformed one is found before the first answer.

        Raises:
            DataError: naming file and line of a row that does not fit, or when there are no rows.
        """
        self._requests = load_requests(self.path, self.split, self.max_rows)

    def predict_dataloader(self) -> DataLoader[Any]:
        """Every n-th batch, for n processes."""
        requests = sorted(self._requests, key=lambda row: -row.length)
        batches = [requests[start : start + self.batch_size] for start in range(0, len(requests), self.batch_size)]
        rank, world = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        own: Any = batches[rank::world]
        return DataLoader(own, batch_size=None)

    def transfer_batch_to_device(
        self, batch: list[PredictionRequest], device: torch.device, dataloader_idx: int
    ) -> list[PredictionRequest]:
        """Text has no device."""
        return batch


class PredictionModule(LightningModule):
    """Answers conversations with a fuser and writes one line of JSON for each, in the order of the rows.

    Args:
        fuser: fuser directory, or fuser on the hub.
        output: JSON lines file to write, whole or not at all.
        receiver: another copy of the receiver; default the one that the fuser names.
        sharers: likewise, one for each sharer.
        dtype: type of the language models' weights, default as in their checkpoints.
        generate: settings of transformers' `generate`, such as `max_new_tokens` (tokens), `do_sample`, `stop_strings`
            or `num_return_sequences`.
    """

    model: C2CModel

    def __init__(
        self,
        fuser: str,
        output: str,
        receiver: str | LMSpec | None = None,
        sharers: list[str] | list[LMSpec] | None = None,
        dtype: DType | None = None,
        generate: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.fuser, self.output, self.dtype_name = fuser, Path(output), dtype
        self.receiver_name, self.sharer_names = receiver, sharers
        self.generate_kwargs = checked_settings({"max_new_tokens": 256, "do_sample": False, **(generate or {})})
        self._lines: dict[int, Line] = {}

    def configure_model(self) -> None:
        """Load the fuser and its language models; does nothing the second time."""
        if not hasattr(self, "model"):
            device = self.trainer.strategy.root_device
            self.model = C2CModel.from_pretrained(
                self.fuser, self.receiver_name, self.sharer_names, dtype=self.dtype_name, device=device
            )

    def on_predict_start(self) -> None:
        """Find settings that transformers refuses before the first answer.

        Raises:
            GenerationError: with the reason.
            DataError: the answers would replace the conversations.
        """
        data = getattr(getattr(self.trainer, "datamodule", None), "path", None)
        if data is not None and self.output.resolve() == Path(data).expanduser().resolve():
            raise DataError(f"`output` is {self.output}, the file of the conversations. Name another file.")
        try_settings(self.model.receiver, self.generate_kwargs)

    def predict_step(self, batch: list[PredictionRequest], batch_idx: int) -> list[str]:
        """Answers to a batch; several answers to a row are adjacent.

        Raises:
            PromptError: naming the rows of a batch that cannot be answered, for example because one is too long.
        """
        own = [row.sharer_messages for row in batch]
        try:
            with named_refusals():
                answers = self.model.chat(
                    [row.messages for row in batch],
                    own if any(own) else None,
                    [row.chat_template_kwargs for row in batch],
                    **self.generate_kwargs,
                )
        except C2CError as problem:
            raise PromptError(f"{self._blame(batch)} cannot be answered: {problem}") from problem
        count = len(answers) // len(batch)
        self._lines |= {row.index: row.to_line(answers[n * count : (n + 1) * count]) for n, row in enumerate(batch)}
        return answers

    def on_predict_epoch_end(self) -> None:
        """Write the file, from the first process."""
        lines = _gathered(self._lines)
        self._lines = {}
        if self.trainer.is_global_zero:
            write_lines(self.output, [lines[index] for index in sorted(lines)])
            logger.info("%d answers written to %s", len(lines), self.output)

    def _blame(self, batch: list[PredictionRequest]) -> str:
        """The row of a failed batch that fails alone, or all rows where none does."""
        for row in batch:
            try:
                self.model.receiver.limits.check_length(
                    self.model.encode([row.messages], None, [row.chat_template_kwargs]).num_receiver_tokens
                )
            except C2CError:
                return row.origin
        return batch[0].origin if len(batch) == 1 else f"one of the rows {', '.join(row.origin for row in batch)}"


def _gathered(lines: dict[int, Line]) -> dict[int, Line]:
    """The lines of all processes; all of them call this together."""
    if not distributed.is_available() or not distributed.is_initialized():
        return lines
    everyone: list[dict[int, Line] | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(everyone, lines)
    return {index: line for part in everyone if part is not None for index, line in part.items()}


def write_lines(path: Path, lines: list[Line]) -> None:
    """Write JSON lines, wholly or not at all.

    Raises:
        DataError: when the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
        partial.replace(path)
    except OSError as problem:
        with suppress(OSError):
            partial.unlink()
        raise DataError(f"The answers cannot be written to `{path}`: {problem}") from problem
