"""Any responder as a model of lm-evaluation-harness.

`lightning lm-eval --model c2c --model_args fuser=DIR --tasks ...` is the harness with the model
`c2c` registered. Without a chat template every model reads the task's bare text in its own tokens; with
`--apply_chat_template` each reads the conversation in its own template, which a rendered string could not give to a
sharer with another one.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, cast

import torch

from c2c_lightning.data.messages import Conversation
from c2c_lightning.errors import MissingExtraError
from c2c_lightning.evaluation.load_models import load_bundle
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.frozen_lm import FrozenLM, LMSpec
from c2c_lightning.responders.base import Responder
from c2c_lightning.responders.c2c_responder import C2CResponder
from c2c_lightning.responders.option_scoring import Scorer
from c2c_lightning.responders.registry import T2T, ModelBundle, factory_of
from c2c_lightning.responders.single_model import SingleModel

try:
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
except ImportError as error:
    raise MissingExtraError("the harness needs lm-eval: pip install 'c2c-lightning[eval]'") from error

#: Marks a context that holds messages instead of bare text.
_CHAT = "\x02chat\x03"


def as_text_models(team: ModelBundle) -> ModelBundle:
    """The same models, reading what they are asked as the beginning of a bare text.

    Args:
        team: loaded models; weights are shared.
    """

    def bare(lm: FrozenLM) -> FrozenLM:
        return FrozenLM(lm.model, lm.tokenizer, replace(lm.spec, prompt_template="text"))

    receiver, sharers = bare(team.receiver), tuple(map(bare, team.sharers))
    c2c = None if team.c2c is None else C2CModel(receiver, sharers, team.c2c.fuser).eval()
    return ModelBundle(receiver, sharers, c2c)


@register_model("c2c")
class ResponderLM(TemplateLM):  # type: ignore[misc]
    """Log-likelihoods and texts of a responder, for lm-evaluation-harness.

    Args:
        fuser: fuser directory, fuser on the hub or Lightning checkpoint.
        responder: receiver, sharer, t2t, routing or c2c.
        receiver: the receiver; default the one that the fuser names.
        sharer: likewise the sharer.
        batch_size: prompts that are read together.
        dtype: type of the language models' weights.
        device: where they are.
        max_gen_toks: limit of a text where the task has none.
        message_max_new_tokens: limit of a message (text-to-text).
        team: loaded models instead of all these names.
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
        team: ModelBundle | None = None,
        **_: Any,
    ) -> None:
        super().__init__()
        if team is None:
            specs = None if receiver is None else LMSpec(receiver), None if sharer is None else [LMSpec(sharer)]
            team = load_bundle(fuser, *specs, dtype=dtype, device=available(device))
        factory = factory_of(responder)
        if isinstance(factory, T2T):
            factory = replace(factory, message_max_new_tokens=int(message_max_new_tokens))
        self.chat: Responder = factory.build(team)
        self.text: Responder = factory.build(as_text_models(team))
        self.lm = team.receiver
        self.tokenizer: Any = self.lm.tokenizer
        self.batch_size, self.max_gen_toks = int(batch_size) if str(batch_size).isdecimal() else 8, max_gen_toks

    @property
    def eot_token_id(self) -> int:
        """The receiver's end token."""
        return int(self.tokenizer.eos_token_id)

    @property
    def tokenizer_name(self) -> str:
        """Part of the harness's cache keys."""
        return str(self.lm.spec.path).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """The receiver's tokens of a text."""
        ids: list[int] = self.tokenizer.encode(string, add_special_tokens=bool(add_special_tokens))
        return ids

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The messages themselves: each model puts them into its own template later.

        Raises:
            NotImplementedError: a task that begins the assistant's answer.
        """
        if not add_generation_prompt:
            raise NotImplementedError("tasks that begin the assistant's turn (gen_prefix) need a single chat template.")
        return _CHAT + json.dumps(chat_history)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-likelihood of continuations; a context that several requests share is read once."""
        pairs = [self._split(*request.args) for request in requests]
        contexts = list(dict.fromkeys(context for context, _ in pairs))
        options = {context: list(dict.fromkeys(c for other, c in pairs if other == context)) for context in contexts}
        found: dict[tuple[str, str], tuple[float, bool]] = {}
        # The longest first: what does not fit in memory shows at once.
        for batch in batched(sorted(contexts, key=len, reverse=True), self.batch_size):
            responder, conversations = self._asked(batch)
            scores = cast(Scorer, responder).score(conversations, [options[context] for context in batch])
            for context, score in zip(batch, scores, strict=True):
                values = zip(options[context], score.log_probabilities, score.is_greedy, strict=True)
                found |= {(context, text): (value, greedy) for text, value, greedy in values}
        return [found[pair] for pair in pairs]

    def _split(self, context: str, continuation: str) -> tuple[str, str]:
        """Spaces at the end of a context belong to the continuation's first token, as in the harness itself."""
        if context.startswith(_CHAT):
            return context, continuation
        bare = context.rstrip()
        return bare, context[len(bare) :] + continuation

    def _loglikelihood_tokens(self, requests: list[Any], **kwargs: Any) -> list[tuple[float, bool]]:
        """Not used: tokens of one model say nothing to a sharer with another tokenizer."""
        raise NotImplementedError

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Not possible: text without a prompt gives a sharer nothing to read."""
        raise NotImplementedError("perplexity of bare text has no prompt, so there is no cache to fuse.")

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Texts up to the first of the task's stop strings."""
        found: dict[int, str] = {}
        by_kwargs: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            by_kwargs.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(number)
        for kwargs, numbers in by_kwargs.items():
            for batch in batched(sorted(numbers, key=lambda n: -len(requests[n].args[0])), self.batch_size):
                texts = self._generate([requests[number].args[0] for number in batch], json.loads(kwargs))
                found |= dict(zip(batch, texts, strict=True))
        return [found[number] for number in range(len(requests))]

    def _generate(self, contexts: Sequence[str], kwargs: dict[str, Any]) -> list[str]:
        until = kwargs.pop("until", None) or []
        until = [until] if isinstance(until, str) else list(until)
        limit = kwargs.pop("max_gen_toks", None) or kwargs.pop("max_new_tokens", None) or self.max_gen_toks
        if not kwargs.setdefault("do_sample", bool(kwargs.get("temperature"))):
            # Greedy tasks often say `temperature: 0`, which transformers takes for a mistake.
            kwargs.pop("temperature", None)
        responder, conversations = self._asked(contexts)
        if until and isinstance(responder, SingleModel | C2CResponder):
            # Saves the tokens after the stop; a message (text-to-text) must not stop there.
            kwargs |= {"stop_strings": until, "tokenizer": self.tokenizer}
        answers = responder.respond(conversations, max_new_tokens=int(limit), **kwargs)
        return [cut(answer.text, until) for answer in answers]

    def _asked(self, contexts: Sequence[str]) -> tuple[Responder, list[Conversation]]:
        """Who answers a batch of contexts (all with or all without chat template), and the conversations."""
        if contexts[0].startswith(_CHAT):
            return self.chat, [json.loads(context.removeprefix(_CHAT)) for context in contexts]
        return self.text, [[{"role": "user", "content": context}] for context in contexts]


def available(device: str | None) -> str | None:
    """The device that the harness asks for; the CPU where that is a GPU that is not there, as the harness's own models.

    Args:
        device: the command's `--device`, which is a GPU unless told otherwise.
    """
    if device is not None and device.startswith("cuda") and not torch.cuda.is_available():
        return "cpu"
    return device


def cut(text: str, until: Iterable[str]) -> str:
    """A text up to the first stop string."""
    for stop in until:
        text = text.split(stop)[0] if stop else text
    return text


def batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def main() -> None:
    """`lm_eval` with the model `c2c`."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
