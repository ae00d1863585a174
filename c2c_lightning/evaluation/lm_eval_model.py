"""Responders as a model of lm-evaluation-harness, registered as `c2c`.

`lightning lm-eval --model c2c --model_args fuser=DIR --tasks ...` is the harness's command with this model. Without a
chat template each model reads the task's plain text in its own tokens; with `--apply_chat_template` each reads the
messages in its own template, which one rendered string could not provide.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from c2c_lightning.errors import BenchmarkError, MissingExtraError
from c2c_lightning.evaluation.lm_eval_contexts import (
    adds_bos,
    answer_fitting,
    chat_context,
    conversation_of,
    cut,
    is_chat,
    truncated,
)
from c2c_lightning.evaluation.load_models import load_bundle
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.responders.base import OptionScores, Responder
from c2c_lightning.responders.c2c_responder import C2CResponder
from c2c_lightning.responders.registry import T2T, factory_of
from c2c_lightning.responders.responder_factory import ModelBundle
from c2c_lightning.responders.single_model import SingleModel

try:
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.models.utils import Collator
except ImportError as error:
    raise MissingExtraError("the harness needs lm-eval: pip install 'c2c-lightning[eval]'") from error


def as_text_models(models: ModelBundle) -> ModelBundle:
    """The same models (weights are shared) without chat template: a prompt is plain text that they continue."""

    def plain(lm: FrozenLM) -> FrozenLM:
        return FrozenLM(lm.model, lm.tokenizer, replace(lm.spec, prompt_template="text"))

    receiver, sharers = plain(models.receiver), tuple(map(plain, models.sharers))
    c2c = None if models.c2c is None else C2CModel(receiver, sharers, models.c2c.fuser).eval()
    return ModelBundle(receiver, sharers, c2c)


@register_model("c2c")
class ResponderLM(TemplateLM):  # type: ignore[misc]
    """Log-likelihoods and texts of a responder.

    As in the harness's own HFLM, a context that is too long loses its beginning, with a warning, and an empty context
    is replaced by the prefix token.

    Args:
        fuser: fuser directory, fuser on the hub or Lightning checkpoint.
        responder: receiver, sharer, t2t, routing or c2c.
        receiver: the receiver; default the one in the fuser's configuration.
        sharer: likewise the sharer.
        batch_size: prompts of a batch.
        dtype: type of the language models' weights.
        device: device of the models.
        max_gen_toks: limit of a text for tasks without one, in tokens.
        message_max_new_tokens: limit of a message (text-to-text), in tokens.
        models: loaded models instead of names.
    """

    def __init__(
        self,
        fuser: str | None = None,
        responder: str = "c2c",
        receiver: str | None = None,
        sharer: str | None = None,
        batch_size: int | str = 8,
        dtype: Any = None,
        device: str | None = None,
        max_gen_toks: int = 256,
        message_max_new_tokens: int = 256,
        models: ModelBundle | None = None,
        **_: Any,
    ) -> None:
        super().__init__()
        if models is None:
            specs = None if receiver is None else LMSpec(receiver), None if sharer is None else [LMSpec(sharer)]
            models = load_bundle(fuser, *specs, dtype=dtype, device=available(device))
        factory = factory_of(responder)
        if isinstance(factory, T2T):
            factory = replace(factory, message_max_new_tokens=int(message_max_new_tokens))
        self.chat: Responder = factory.build(models)
        self.text: Responder = factory.build(as_text_models(models))
        self.lm = self.text.lm if isinstance(self.text, SingleModel) else models.receiver
        # Each of these reads the plain context, so it must fit the shortest of their contexts.
        self.readers = [self.lm] if isinstance(self.text, SingleModel) else [models.receiver, *models.sharers]
        self.tokenizer: Any = self.lm.tokenizer
        self.batch_size, self.max_gen_toks = int(batch_size) if str(batch_size).isdecimal() else 8, int(max_gen_toks)

    @property
    def eot_token_id(self) -> int:
        """The answering model's end token."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """The token in front of an empty context: the beginning of a text, or the end token without one."""
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else int(bos)

    @property
    def tokenizer_name(self) -> str:
        """Part of the harness's cache keys."""
        return str(self.lm.spec.path).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """The answering model's tokens of a text."""
        ids: list[int] = self.tokenizer.encode(string, add_special_tokens=bool(add_special_tokens))
        return ids

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The messages as JSON; each model renders them in its own template later."""
        if not add_generation_prompt:
            raise NotImplementedError("tasks that begin the assistant's turn (gen_prefix) need a single chat template.")
        return chat_context(chat_history)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-likelihood of continuations; requests with the same context share its prefill."""
        pairs = [self._split(*request.args) for request in requests]
        options: dict[str, list[str]] = {}
        for context, continuation in dict.fromkeys(pairs):
            options.setdefault(context, []).append(continuation)
        scores: dict[tuple[str, str], tuple[float, bool]] = {}
        # The longest first, so that a lack of memory shows at once.
        for batch in Collator(list(options.items()), lambda item: -len(item[0])).get_batched(self.batch_size):
            for (context, texts), score in zip(batch, answer_fitting(batch, self._score), strict=True):
                values = zip(texts, score.log_probabilities, score.is_greedy, strict=True)
                scores |= {(context, text): (value, greedy) for text, value, greedy in values}
        return [scores[pair] for pair in pairs]

    def _score(self, requests: Sequence[tuple[str, list[str]]]) -> list[OptionScores]:
        contexts, options = zip(*requests, strict=True)
        return self._responder(contexts).score([conversation_of(context) for context in contexts], options)

    def _split(self, context: str, continuation: str) -> tuple[str, str]:
        """A context that fits, and its continuation, which begins with the spaces at the context's end (as in HFLM)."""
        if is_chat(context):
            return context, continuation
        plain = context.rstrip()
        continuation = context[len(plain) :] + continuation
        if not plain:
            return self._prefix, continuation.removeprefix(self._prefix) if self._prefix else continuation
        # The last token of a continuation is no input.
        return self._truncated(plain, len(self.tok_encode(continuation)) - 1), continuation

    @property
    def _prefix(self) -> str:
        """The text of an empty context, unless the prompt begins with the BOS token anyway."""
        return "" if adds_bos(self.tokenizer) else str(self.tokenizer.decode([self.prefix_token_id]))

    def _truncated(self, context: str, reserved: int) -> str:
        """A plain context without a beginning that is too long for a model."""
        for lm in self.readers:
            taken = (reserved if lm is self.readers[0] else 0) + adds_bos(lm.tokenizer)
            if lm.max_tokens is not None:
                context = truncated(context, lm.tokenizer, lm.max_tokens - taken)
        return context

    def _loglikelihood_tokens(self, requests: list[Any], **kwargs: Any) -> list[tuple[float, bool]]:
        """Not supported: token ids of one model have no meaning for a sharer with another tokenizer."""
        raise NotImplementedError

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Not supported: text without a prompt has no cache to fuse."""
        raise NotImplementedError("perplexity of plain text has no prompt, so there is no cache to fuse.")

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Texts up to the first stop string of the task."""
        order = Collator([request.args for request in requests], lambda args: -len(args[0]), group_by="gen_kwargs")
        texts: list[str] = []
        for batch in order.get_batched(self.batch_size):
            contexts, kwargs = zip(*batch, strict=True)
            texts += self._generate(contexts, dict(kwargs[0]))
        return list(order.get_original(texts))

    def _generate(self, contexts: Sequence[str], kwargs: dict[str, Any]) -> list[str]:
        until = kwargs.pop("until", None) or []
        until = [until] if isinstance(until, str) else list(until)
        limit = int(kwargs.pop("max_gen_toks", None) or kwargs.pop("max_new_tokens", None) or self.max_gen_toks)
        if not kwargs.setdefault("do_sample", bool(kwargs.get("temperature"))):
            # Greedy tasks often set `temperature: 0`, which transformers refuses.
            kwargs.pop("temperature", None)
        if until and isinstance(self.text, SingleModel | C2CResponder):
            # Generation ends at the stop string; a message (text-to-text) must not.
            kwargs |= {"stop_strings": until, "tokenizer": self.tokenizer}

        def answer(requests: Sequence[tuple[str, None]]) -> list[str]:
            contexts = [context for context, _ in requests]
            conversations = [conversation_of(context) for context in contexts]
            replies = self._responder(contexts).respond(conversations, max_new_tokens=limit, **kwargs)
            return [cut(reply.text, until) for reply in replies]

        fitting = [c if is_chat(c) else self._truncated(c, limit) or self._prefix for c in contexts]
        return answer_fitting([(context, None) for context in fitting], answer)

    def _responder(self, contexts: Sequence[str]) -> Responder:
        """The responder for a batch of contexts, which all are chats or all plain texts."""
        return self.chat if is_chat(contexts[0]) else self.text


def available(device: str | None) -> str | None:
    """The device that the harness requests (by default a GPU), or the CPU where it is a missing GPU, as in HFLM."""
    is_missing = device is not None and device.startswith("cuda") and not torch.cuda.is_available()
    return "cpu" if is_missing else device


def main(args: Sequence[str] | None = None) -> None:
    """Run the harness's command with the model `c2c` registered, on the given or the process's arguments."""
    from lm_eval.__main__ import cli_evaluate

    # The harness parses the process's arguments in all versions; only some take them as a parameter.
    argv, sys.argv = sys.argv, ["lightning lm-eval", *(sys.argv[1:] if args is None else args)]
    try:
        cli_evaluate()
    except ValueError as error:
        # Its word for an unknown task; other mistakes end in messages of its own.
        if "Tasks not found" not in str(error):
            raise
        first_line = str(error).splitlines()[0]
        raise BenchmarkError(f"lm-evaluation-harness: {first_line} See `lightning lm-eval ls tasks`.") from error
    finally:
        sys.argv = argv
