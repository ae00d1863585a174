"""The receiver's tokens of a response, as they follow the tokens of its prompt."""

from c2c_lightning.alignment.chat_tokenizer import ChatTokenizer, TokenizedChat
from c2c_lightning.data.messages import Conversation
from c2c_lightning.errors import DataError


def response_ids(
    tokenizer: ChatTokenizer, opened: TokenizedChat, finished: TokenizedChat, messages: Conversation
) -> list[int]:
    """The tokens of the response and of the closing of its turn.

    The prompt is `opened`, with the opening of the assistant's turn; the whole conversation is `finished`.
    """
    start = _response_start(opened, finished, messages)
    if start == len(finished.text):
        raise DataError("The receiver's chat template does not show the response, so there is nothing to learn.")
    num_prompt_tokens = len(opened.ids)
    if start == len(opened.text) and finished.ids[:num_prompt_tokens] == opened.ids:
        return tokenizer.with_end_token(list(finished.ids[num_prompt_tokens:]))
    # In generation the prompt's tokens are fixed, so no token may cross the border.
    return tokenizer.with_end_token(tokenizer.token_ids(finished.text[start:]))


def _response_start(opened: TokenizedChat, finished: TokenizedChat, messages: Conversation) -> int:
    """The first character of the finished conversation that continues the prompt."""
    if finished.text.startswith(opened.text):
        return len(opened.text)
    # Some templates write earlier turns otherwise once they are answered (Mistral's system message), or write finished
    # turns otherwise than they open them. The prompt is then continued by the last turn after the opening, if it begins
    # with that, else by the content and the closing.
    response = len(messages) - 1
    opening, turn = opened.text[_prompt_end(opened, response) :], _prompt_end(finished, response)
    if finished.text.startswith(opening, turn):
        return turn + len(opening)
    extra = sorted(messages[-1].keys() - {"role", "content", "name", "weight"})
    if extra or "think" in opening.lower():
        raise DataError(
            f"The receiver's chat template opens the response with {opening[-60:]!r}, but writes the finished turn as "
            f"{finished.text[turn:][:60]!r}, so reasoning{''.join(f' or `{key}`' for key in extra)} would be lost. Set "
            "`chat_template_kwargs: {enable_thinking: true}` for the model or the row, leave the reasoning out, or "
            "give the model a `prompt_template`."
        )
    return min((span.start for span in finished.spans if span.message == response), default=len(finished.text))


def _prompt_end(chat: TokenizedChat, response: int) -> int:
    """One past the last character of the prompt's contents."""
    return max((span.end for span in chat.spans if span.message < response), default=0)
