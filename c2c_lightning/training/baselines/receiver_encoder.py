"""Rows of a pair as rows of the receiver alone: its own conversation, or the sharers' with the private text."""

from collections.abc import Mapping, Sequence
from typing import Literal

from c2c_lightning.data.encode import EncodedExample, EncodedPrompt, Encoder, Kwargs, TokenizerSpec
from c2c_lightning.data.messages import Conversation, SharerConversations, check_example, per_sharer, without_response

Reads = Literal["question", "document"]


class ReceiverEncoder(Encoder):
    """Encodes prompts without sharers, as responders of single models do.

    Args:
        receiver: the receiver's tokenizer and templates.
        reads: the receiver's conversation (`question`), or the sharers' (`document`): of several, the first one's.
    """

    def __init__(self, receiver: TokenizerSpec, reads: Reads) -> None:
        super().__init__(receiver, [])
        self.reads = reads
        self.fingerprint += f"-{reads}"

    def encode_many(
        self,
        conversations: Sequence[Conversation],
        sharer_conversations: Sequence[SharerConversations] | None = None,
        chat_template_kwargs: Kwargs | None = None,
    ) -> list[EncodedPrompt]:
        """As `Encoder.encode_many`; the sharers' conversations are read as the receiver's, or left out."""
        private = sharer_conversations or [None] * len(conversations)
        read = [self._read(mine, theirs) for mine, theirs in zip(conversations, private, strict=True)]
        return super().encode_many(read, None, chat_template_kwargs)

    def encode_examples(
        self,
        conversations: Sequence[Conversation],
        sharer_conversations: Sequence[SharerConversations] | None = None,
        chat_template_kwargs: Kwargs | None = None,
    ) -> list[EncodedExample]:
        """As `Encoder.encode_examples`; the response is always the receiver's."""
        private = sharer_conversations or [None] * len(conversations)
        examples = [check_example(conversation) for conversation in conversations]
        read = [
            [*self._read(mine[:-1], without_response(theirs)), mine[-1]]
            for mine, theirs in zip(examples, private, strict=True)
        ]
        return super().encode_examples(read, None, chat_template_kwargs)

    def _read(self, mine: Conversation, theirs: SharerConversations) -> Conversation:
        if self.reads == "question" or not theirs:
            return mine
        is_one = isinstance(theirs[0], Mapping)
        return per_sharer(mine, theirs, 1 if is_one else len(theirs))[0]
