"""Log-probabilities of given answers (options): one prefill per prompt, shared by all its options."""

from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from c2c_lightning.data.batch import PromptBatch, TokenBatch
from c2c_lightning.data.encode import Encoder
from c2c_lightning.data.messages import Conversation
from c2c_lightning.kv.layer import LayerStack, SharerKV, select_rows
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.response_prefix import ResponsePrefix
from c2c_lightning.responders.base import OptionScores
from c2c_lightning.responders.phase_timer import PhaseTimer


class OptionEncoder:
    """The tokens of an option after the prompt, without the tokens that close the turn.

    The chat template decides them (a leading space after `Answer:`, none in ChatML), so the option is encoded as the
    assistant's message with the answering model's encoder, whose sharers are ignored.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        # Templates do not say where the message ends: two messages differ last in front of the closing tokens.
        one, other = (self._response_ids([{"role": "user", "content": "?"}], [text])[0] for text in ("0", "1"))
        self._closing = next(n for n, (a, b) in enumerate(zip(one[::-1], other[::-1], strict=False)) if a != b)

    def _response_ids(self, conversation: Conversation, options: Sequence[str]) -> list[list[int]]:
        examples = [[*conversation, {"role": "assistant", "content": option}] for option in options]
        return [list(example.response_ids) for example in self.encoder.encode_examples(examples)]

    def encode(self, conversation: Conversation, options: Sequence[str]) -> list[list[int]]:
        """Token ids of each option."""
        return [ids[: len(ids) - self._closing] for ids in self._response_ids(conversation, options)]


@torch.no_grad()
def score_options(
    lm: FrozenLM, tokens: TokenBatch, kv: LayerStack, options: Sequence[Sequence[Sequence[int]]]
) -> list[OptionScores]:
    """Log-probabilities of options (token ids) after prompts whose tokens but the last are in the cache `kv`."""
    rows, ids, mask = _flattened(options)
    text = tokens.rows(rows).append(TokenBatch(ids[:, :-1], mask[:, :-1]).to(lm.device))
    return _scored(lm, options, text, ResponsePrefix(kv).rows(rows.to(lm.device)), ids, mask)


@torch.no_grad()
def score_fused_options(
    model: C2CModel,
    prompt: PromptBatch,
    sharer_kv: SharerKV,
    options: Sequence[Sequence[Sequence[int]]],
    timer: PhaseTimer,
) -> list[OptionScores]:
    """Log-probabilities of options (token ids) on the fused cache.

    Each prompt is fused once for all its options, unless their own tokens are fused too (`fusion_mode: decode`).
    """
    rows, ids, mask = _flattened(options)
    # The last token of an option is predicted, but is no input.
    prompts, run = prompt.select(rows), TokenBatch(ids[:, :-1], mask[:, :-1]).to(model.receiver.device)
    with timer.phase("prefill_receiver"):
        if model.mode.fuses_response:
            kv = [None if stack is None else select_rows(stack, rows) for stack in sharer_kv]
            prefix = model.mode.response_prefix(model, prompts, kv, run)
        else:
            prefix = model.mode.response_prefix(model, prompt, sharer_kv, run)
            prefix = prefix.rows(rows.to(model.receiver.device))
    with timer.phase("decode"):
        return _scored(model.receiver, options, prompts.receiver.append(run), prefix, ids, mask)


def _scored(
    lm: FrozenLM,
    options: Sequence[Sequence[Sequence[int]]],
    text: TokenBatch,
    prefix: ResponsePrefix,
    ids: Tensor,
    mask: Tensor,
) -> list[OptionScores]:
    """Scores of options (all options, tokens) that follow their prompts in `text`."""
    states = lm.hidden_states(text, prefix)[:, -ids.shape[1] :]
    # Real tokens only: logits of padding would need (options, tokens, vocabulary) for nothing.
    logits, chosen = lm.head.logits(states[mask.to(lm.device)]).float(), ids[mask].to(lm.device)
    log_probabilities = logits.log_softmax(-1).gather(1, chosen[:, None])[:, 0]
    greedy = logits.argmax(-1) == chosen
    # Double precision: long options sum hundreds of terms.
    return _by_prompt(options, log_probabilities.double().cpu(), greedy.cpu())


def _flattened(options: Sequence[Sequence[Sequence[int]]]) -> tuple[Tensor, Tensor, Tensor]:
    """The prompt of each option (all options,), its ids and their mask (all options, tokens), padded on the right."""
    flat = [(row, torch.tensor(ids)) for row, of_row in enumerate(options) for ids in of_row]
    ids = pad_sequence([tokens for _, tokens in flat], batch_first=True)
    mask = pad_sequence([torch.ones_like(tokens, dtype=torch.bool) for _, tokens in flat], batch_first=True)
    return torch.tensor([row for row, _ in flat]), ids, mask


def _by_prompt(options: Sequence[Sequence[Sequence[int]]], values: Tensor, greedy: Tensor) -> list[OptionScores]:
    """Sums over each option's tokens, grouped by prompt."""
    lengths = [len(ids) for of_row in options for ids in of_row]
    sums = [float(of_option.sum()) for of_option in values.split(lengths)]
    hits = [bool(of_option.all()) for of_option in greedy.split(lengths)]
    flat = zip(sums, lengths, hits, strict=True)
    return [OptionScores(*zip(*islice(flat, len(of_row)), strict=True)) for of_row in options]
