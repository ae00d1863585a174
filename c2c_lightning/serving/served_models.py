"""The models that a server offers by name: single models, text-to-text, fused pairs."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from c2c_lightning.data.encode import EncodedPrompt, Encoder, TokenizerSpec
from c2c_lightning.data.messages import Conversation
from c2c_lightning.data.prompt_template import PromptTemplate
from c2c_lightning.errors import PromptError
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.serving.answer_row import AnswerRow
from c2c_lightning.serving.batch_answers import answer_rows
from c2c_lightning.serving.donor_questions import DonorQuestions
from c2c_lightning.serving.gate_choices import GateChoices
from c2c_lightning.serving.prefix_cache import PrefixCache
from c2c_lightning.serving.prepared_prompt import C2CChoices, PreparedPrompt, answer_room, check_length


class ServedModel(ABC):
    """A model that requests name.

    Attributes:
        kind: `receiver`, `sharer`, `t2t` or `fused`.
        name: its name.
    """

    kind: ClassVar[str]
    name: str

    @property
    @abstractmethod
    def receiver(self) -> FrozenLM:
        """The language model that writes the answer."""

    @property
    @abstractmethod
    def sharers(self) -> tuple[FrozenLM, ...]:
        """The language models that communicate with it."""

    @abstractmethod
    def prepare(self, conversation: Conversation, choices: C2CChoices) -> PreparedPrompt:
        """Encode a conversation.

        Raises:
            PromptError: it cannot be encoded, or a choice is not possible.
            TooLongError: it is longer than a model's context.
        """

    @abstractmethod
    def prepare_text(self, text: str, choices: C2CChoices) -> PreparedPrompt:
        """Encode a text that the answer continues, without a chat template."""

    @abstractmethod
    def answer(self, rows: Sequence[AnswerRow]) -> None:
        """Answer rows whose prompts have one group, in one batch where their lengths allow it."""


class SingleServed(ServedModel):
    """One language model alone: the receiver, or a sharer, which reads the sharers' messages."""

    def __init__(self, name: str, kind: str, lm: FrozenLM, prefixes: PrefixCache, number: int = 0) -> None:
        """Take the model, and its number among the sharers."""
        self.name, self.kind, self.number, self.prefixes = name, kind, number, prefixes  # type: ignore[misc]
        self.model = C2CModel(lm, (), FuserConfig()).eval()
        self.encoder = self.model.encoder
        self.text_encoder = text_encoder(self.model)

    @property
    def receiver(self) -> FrozenLM:
        """The model."""
        return self.model.receiver

    @property
    def sharers(self) -> tuple[FrozenLM, ...]:
        """None."""
        return ()

    def prepare(self, conversation: Conversation, choices: C2CChoices) -> PreparedPrompt:
        """See `ServedModel.prepare`; a sharer reads its private conversation."""
        if self.kind == "sharer":
            conversation = choices.conversation_of(self.number, conversation)
        return self.prepared(self.encoder.encode(conversation), choices)

    def prepare_text(self, text: str, choices: C2CChoices) -> PreparedPrompt:
        """See `ServedModel.prepare_text`."""
        return self.prepared(self.text_encoder.encode(as_message(text)), choices)

    def prepared(self, encoded: EncodedPrompt, choices: C2CChoices) -> PreparedPrompt:
        """The prompt of encoded tokens."""
        return PreparedPrompt(encoded, self.name, answer_room(self.receiver, encoded), choices)

    def answer(self, rows: Sequence[AnswerRow]) -> None:
        """See `ServedModel.answer`."""
        self.answer_prompts(rows, [row.prompt for row in rows])

    def answer_prompts(self, rows: Sequence[AnswerRow], prompts: Sequence[PreparedPrompt]) -> None:
        """Answer rows, each with a prompt of this model."""
        # Choices concern the sharers, of which there are none.
        alone = [replace(prompt, choices=C2CChoices()) for prompt in prompts]
        answer_rows(self.model, self.encoder, rows, alone, self.prefixes)


class FusedServed(ServedModel):
    """A fused pair."""

    kind = "fused"

    def __init__(self, name: str, model: C2CModel, prefixes: PrefixCache) -> None:
        """Take the model."""
        self.name, self.model, self.prefixes = name, model, prefixes
        self.gates = GateChoices(model)
        self.encoder, self.text_encoder = model.encoder, text_encoder(model)
        self.donors = DonorQuestions.for_sharer(model.sharers[0].spec.path)

    @property
    def receiver(self) -> FrozenLM:
        """The model that answers."""
        return self.model.receiver

    @property
    def sharers(self) -> tuple[FrozenLM, ...]:
        """The models whose caches are fused."""
        return self.model.sharers

    def prepare(self, conversation: Conversation, choices: C2CChoices) -> PreparedPrompt:
        """See `ServedModel.prepare`."""
        encoded = self.encoder.encode(conversation, choices.sharer_messages)
        prompt = self._prepared(encoded, choices)
        if not choices.is_mismatched:
            return prompt
        donor = choices.donor_messages or self.donors.of(conversation)
        facts = (("donor", donor[-1]["content"]),)
        return replace(prompt, donor=self.encoder.encode(donor), facts=facts)

    def prepare_text(self, text: str, choices: C2CChoices) -> PreparedPrompt:
        """See `ServedModel.prepare_text`."""
        if choices.is_mismatched or choices.sharer_messages is not None:
            raise PromptError("Private messages and controls need a conversation: use /v1/chat/completions.")
        return self._prepared(self.text_encoder.encode(as_message(text)), choices)

    def _prepared(self, encoded: EncodedPrompt, choices: C2CChoices) -> PreparedPrompt:
        active = range(len(self.sharers)) if choices.active_sharers is None else choices.active_sharers
        if not set(active) <= set(range(len(self.sharers))):
            raise PromptError(f"active_sharers is {list(active)}, but the sharers are 0 to {len(self.sharers) - 1}.")
        self.gates.model(choices.gates)
        for number in active:
            check_length(len(encoded.sharers[number].input_ids), self.sharers[number])
        group = (self.name, choices.gates, choices.active_sharers, choices.is_mismatched)
        return PreparedPrompt(encoded, group, answer_room(self.receiver, encoded), choices)

    def answer(self, rows: Sequence[AnswerRow]) -> None:
        """See `ServedModel.answer`."""
        prompts: list[Any] = [row.prompt for row in rows]
        answer_rows(self.gates.model(prompts[0].choices.gates), self.encoder, rows, prompts, self.prefixes)


def text_encoder(model: C2CModel) -> Encoder:
    """Encodes bare texts, with the begin token where a tokenizer adds one by itself."""
    template = PromptTemplate.from_name_or_file("text")
    receiver, *sharers = [TokenizerSpec(lm.tokenizer, template) for lm in (model.receiver, *model.sharers)]
    return Encoder(receiver, sharers, model.fuser.config.token_alignment)


def as_message(text: str) -> Conversation:
    """A text as the only message of a conversation."""
    return [{"role": "user", "content": text}]
