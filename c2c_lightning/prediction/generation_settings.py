"""Settings of `generate` from a configuration, checked before the first answer."""

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteriaList

from c2c_lightning.errors import GenerationError, problem_origin
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.generation import pad_id, refuse_arguments


def checked_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings, with `temperature: 0` as greedy decoding.

    Raises:
        GenerationError: an unknown setting, or sampling at temperature 0.
    """
    known = sorted(name for name in vars(GenerationConfig()) if not name.startswith("_"))
    for name in settings:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f" Did you mean `{close[0]}`?" if close else ""
            raise GenerationError(f"`generate` has no setting `{name}`.{hint}")
    if settings.get("temperature") != 0:
        return settings
    if settings.get("do_sample"):
        raise GenerationError("`temperature: 0` is greedy decoding: set `do_sample: false`, or a temperature above 0.")
    return {name: value for name, value in settings.items() if name != "temperature"}


def try_settings(receiver: FrozenLM, settings: dict[str, Any]) -> None:
    """Generate one token with the receiver alone: transformers checks combinations of settings only in `generate`.

    Raises:
        GenerationError: with transformers' reason.
    """
    refuse_arguments(settings)
    prompt = torch.full((1, 1), pad_id(receiver), device=receiver.device)
    stop = StoppingCriteriaList([_stop_at_once])
    try:
        receiver.model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            stopping_criteria=stop,
            tokenizer=receiver.tokenizer,
            **{"pad_token_id": pad_id(receiver), **settings},
        )
    except Exception as problem:  # transformers refuses with errors of many classes
        raise GenerationError(f"transformers refuses the settings of `generate`: {problem}") from problem


@contextmanager
def named_refusals() -> Iterator[None]:
    """Within it, what transformers refuses for some prompts only, such as a `max_length` below theirs, is an error.

    Raises:
        GenerationError: with transformers' reason.
    """
    try:
        yield
    except ValueError as problem:
        if not problem_origin(problem).startswith("transformers."):
            raise
        raise GenerationError(f"transformers refuses the settings of `generate`: {problem}") from problem


def _stop_at_once(input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
    return torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)
