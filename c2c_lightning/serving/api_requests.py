"""Bodies of requests, with OpenAI's names and the extra field `c2c`; every value is checked before it is used."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from c2c_lightning.data.messages import check_messages, with_context
from c2c_lightning.serving.answer_row import AnswerSettings
from c2c_lightning.serving.conversation_check import checked_conversation
from c2c_lightning.serving.prepared_prompt import C2CChoices

Text = Annotated[str, Field(max_length=1_000_000)]

#: Fields of OpenAI's API that would change the answer, and the values that leave it unchanged.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "audio": (None,),
    "best_of": (None, 1),
    "echo": (None, False),
    "frequency_penalty": (None, 0),
    "function_call": (None, "none"),
    "functions": (None, []),
    "logit_bias": (None, {}),
    "modalities": (None, ["text"]),
    "presence_penalty": (None, 0),
    "response_format": (None, {"type": "text"}),
    "suffix": (None, ""),
    "tool_choice": (None, "none", "auto"),
    "tools": (None, []),
}


class C2CField(BaseModel):
    """The extra field `c2c`: what the sharers read, and which of them take part."""

    model_config = ConfigDict(extra="forbid")

    sharer_messages: list[Any] | None = None
    sharer_context: Text | None = None
    active_sharers: list[int] | None = Field(None, max_length=64)
    gates: Literal["trained", "open", "closed"] = "trained"
    control: Literal["mismatched"] | None = None
    donor_messages: list[Any] | None = None
    detail: bool = False

    @model_validator(mode="after")
    def _one_private_text(self) -> "C2CField":
        if self.sharer_messages is not None and self.sharer_context is not None:
            raise ValueError("give `sharer_messages` or `sharer_context`, not both")
        if self.donor_messages is not None and self.control is None:
            raise ValueError("`donor_messages` needs `control: mismatched`")
        return self

    def choices(self, conversation: list[dict[str, Any]] | None) -> C2CChoices:
        """The choices for a conversation; None for a bare text."""
        return C2CChoices(
            self._sharer_messages(conversation),
            None if self.active_sharers is None else tuple(sorted(set(self.active_sharers))),
            self.gates,
            self.control == "mismatched",
            None if self.donor_messages is None else checked_conversation(self.donor_messages, "c2c.donor_messages"),
        )

    def _sharer_messages(self, conversation: list[dict[str, Any]] | None) -> Any:
        if self.sharer_context is not None:
            return with_context(self.sharer_context, conversation or [])
        given = self.sharer_messages
        if given is None:
            return None
        if given and all(part is None or isinstance(part, list) for part in given):
            return [None if part is None else check_messages(part) for part in given]
        return checked_conversation(given, "c2c.sharer_messages")


class StreamOptions(BaseModel):
    """OpenAI's `stream_options`."""

    include_usage: bool = False


class AnswerBody(BaseModel):
    """The fields that both endpoints have."""

    model_config = ConfigDict(extra="allow")

    model: Annotated[str, Field(max_length=200)]
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=16)] | None = 1
    stop: Annotated[str, Field(max_length=200)] | list[Annotated[str, Field(max_length=200)]] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    c2c: C2CField = Field(default_factory=lambda: C2CField.model_validate({}))

    @model_validator(mode="after")
    def _check(self) -> "AnswerBody":
        for name, neutral in UNSUPPORTED.items():
            value = (self.model_extra or {}).get(name)
            if value not in neutral:
                raise ValueError(f"`{name}` is not supported; leave it out")
        if len(self.stop_strings) > 16 or "" in self.stop_strings:
            raise ValueError("`stop` must be at most 16 texts, none of them empty")
        return self

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The stop strings."""
        return () if self.stop is None else (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def wants_usage_chunk(self) -> bool:
        """Whether usage comes in a chunk of its own."""
        return self.stream_options is not None and self.stream_options.include_usage

    def wanted_tokens(self) -> int | None:
        """The longest answer that the client wants."""
        return self.max_tokens

    def wanted_logprobs(self) -> int | None:
        """Number of alternatives to report, None without log-probabilities."""
        return None

    def settings(self, max_tokens: int) -> AnswerSettings:
        """How answers of at most `max_tokens` are generated."""
        return AnswerSettings(
            max_tokens,
            self.temperature or 0.0,
            1.0 if self.top_p is None else self.top_p,
            self.seed,
            self.stop_strings,
            self.wanted_logprobs(),
        )


class ChatBody(AnswerBody):
    """Body of `/v1/chat/completions`."""

    messages: Annotated[list[Any], Field(max_length=2000)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    def wanted_tokens(self) -> int | None:
        """`max_completion_tokens`, or its former name."""
        return self.max_completion_tokens or self.max_tokens

    def wanted_logprobs(self) -> int | None:
        """`top_logprobs`, where `logprobs` is set."""
        return (self.top_logprobs or 0) if self.logprobs else None


class TextBody(AnswerBody):
    """Body of `/v1/completions`."""

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=64)]
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @property
    def prompts(self) -> list[str]:
        """The prompts."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt

    def wanted_logprobs(self) -> int | None:
        """`logprobs`."""
        return self.logprobs
