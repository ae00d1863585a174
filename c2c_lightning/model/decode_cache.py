"""Fusion of response tokens: clean passes beside the answering one."""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import Cache

from c2c_lightning.alignment.fingerprint import same_tokens
from c2c_lightning.alignment.retokenization import retokenize
from c2c_lightning.data.batch import PromptBatch, SharerTokens, TokenBatch
from c2c_lightning.errors import GenerationError
from c2c_lightning.kv.cache import EditedLayer
from c2c_lightning.kv.layer import LayerKV, LayerStack, SharerKV
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.fused_prompt import FusedPrompt

if TYPE_CHECKING:
    from c2c_lightning.model.c2c import C2CModel


def sharer_ids(receiver: FrozenLM, sharer: FrozenLM, ids: Tensor) -> Tensor:
    """The receiver's response tokens as the sharer reads them, one for one, (batch, n)."""
    if sharer.tokenizer is receiver.tokenizer or same_tokens(receiver.tokenizer, sharer.tokenizer):
        return ids
    flat = retokenize(receiver.tokenizer, sharer.tokenizer, ids.flatten().tolist(), "longest")
    return torch.tensor(flat, device=ids.device).view_as(ids)


def fuse_whole_text(
    model: "C2CModel", prompt: PromptBatch, sharer_kv: SharerKV, ids: Tensor, mask: Tensor
) -> LayerStack:
    """The receiver's entries of prompt and response, all fused from clean passes.

    Args:
        model: the fused model.
        prompt: the prompts.
        sharer_kv: the sharers' caches over their prompts, last token included.
        ids: (batch, n), response tokens.
        mask: (batch, n), which of them are real.
    """
    text = with_response(model, prompt, ids, mask)
    length = prompt.num_receiver_tokens + ids.shape[1]
    whole = [None if kv is None else _read_response(model, text, n, kv) for n, kv in enumerate(sharer_kv)]
    with torch.no_grad():
        clean = model.prefill_receiver(text, model.receiver.empty_kv(len(prompt)), length)
    for fusion in text.one_pass_plan:
        clean = model.fuser(clean, whole, fusion)
    return clean


@torch.no_grad()
def _read_response(model: "C2CModel", text: PromptBatch, number: int, kv: LayerStack) -> LayerStack:
    """A sharer's cache, gone on over the response."""
    tokens, sharer, begin, end = text.sharers[number], model.sharers[number], kv[0].num_tokens, -1
    ids, mask, positions = tokens.input_ids[:, begin:end], tokens.mask[:, :end], tokens.positions[:, begin:end]
    if not ids.shape[1]:
        return kv
    new = sharer.prefill(ids, mask, positions, kv, len(kv))
    return [old.append(layer) for old, layer in zip(kv, new, strict=True)]


def with_response(model: "C2CModel", prompt: PromptBatch, ids: Tensor, mask: Tensor) -> PromptBatch:
    """Prompt and response as one prompt whose every further token is fused.

    One column that is never run is put at the end, since the last token of a prompt is never part of a span.
    """
    receiver = prompt.receiver
    columns = F.pad(mask.long(), (0, 1), value=1)
    steps = columns.cumsum(1)

    def longer(tokens: TokenBatch, new_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        all_ids = torch.cat([tokens.input_ids, F.pad(new_ids, (0, 1))], 1)
        positions = torch.cat([tokens.positions, tokens.positions[:, -1:] + steps], 1)
        return all_ids, torch.cat([tokens.mask, columns], 1), positions

    sharers = []
    for lm, tokens in zip(model.sharers, prompt.sharers, strict=True):
        width = tokens.input_ids.shape[1]
        own = torch.arange(width, width + columns.shape[1], device=ids.device).expand_as(columns)
        last = torch.full_like(ids[:, :1], width - 1) if ids.shape[1] else torch.full_like(columns[:, :1], width - 1)
        source = torch.cat([tokens.index[:, :-1], last, own.masked_fill(columns == 0, -1)], 1)
        sharers.append(SharerTokens(*longer(tokens, sharer_ids(model.receiver, lm, ids)), source))
    return PromptBatch(TokenBatch(*longer(receiver, ids)), tuple(sharers))


class DecodeCache(Cache):
    """A cache of fused entries that runs the clean models beside the answering pass.

    Before each pass of the receiver, `extend` must be told the pass's tokens; `C2CModel.generate` does so by a hook.

    Attributes:
        clean: the receiver's own entries, never fused.
        sharer_kv: the sharers' entries.
    """

    def __init__(self, model: "C2CModel", read: FusedPrompt) -> None:
        """Begin with all prompt tokens but the last; the sharers have read each its whole prompt."""
        self.model, self.clean, self.sharer_kv = model, read.plain, list(read.sharer_kv)
        self.masks = [tokens.mask for tokens in read.prompt.sharers]
        self.positions = [tokens.positions[:, -1:] for tokens in read.prompt.sharers]
        self.is_first = True
        self.pending: LayerStack | None = None
        super().__init__(layers=[EditedLayer(layer, n, self._replay) for n, layer in enumerate(read.fused)])

    @torch.no_grad()
    def extend(self, input_ids: Tensor, attention_mask: Tensor | None, position_ids: Tensor) -> None:
        """Run the clean models over the tokens of the next pass and fuse their entries.

        Args:
            input_ids: (batch, new), the receiver's tokens.
            attention_mask: (batch, all), None where nothing is padded.
            position_ids: (batch, new).
        """
        model, read = self.model, []
        if attention_mask is None:
            attention_mask = input_ids.new_ones(len(input_ids), self.clean[0].num_tokens + input_ids.shape[1])
        new = model.receiver.prefill(input_ids, attention_mask, position_ids, self.clean)
        self.clean = [old.append(layer) for old, layer in zip(self.clean, new, strict=True)]
        for number, kv in enumerate(self.sharer_kv):
            read.append(None if kv is None else self._sharer_entries(number, kv, input_ids))
        self.is_first = False
        self.pending = [model.fuser.fuse_new(layer, entries, read) for layer, entries in enumerate(new)]

    def _sharer_entries(self, number: int, kv: LayerStack, ids: Tensor) -> LayerStack:
        """What the new tokens read: the sharer's last prompt token first, then its copies of the response."""
        if self.is_first:
            last, rest = [layer.tokens(-1) for layer in kv], ids[:, 1:]
            new = self._read_on(number, kv, rest) if rest.shape[1] else []
            return [a.append(b) for a, b in zip(last, new, strict=True)] if new else last
        return self._read_on(number, kv, ids)

    def _read_on(self, number: int, kv: LayerStack, ids: Tensor) -> LayerStack:
        """A sharer's entries of its copies of response tokens, which its cache keeps."""
        sharer, ones = self.model.sharers[number], torch.ones_like(ids)
        self.masks[number] = torch.cat([self.masks[number], ones.to(self.masks[number])], 1)
        positions = self.positions[number] + ones.cumsum(1)
        self.positions[number] = positions[:, -1:]
        translated = sharer_ids(self.model.receiver, sharer, ids)
        new = sharer.prefill(translated, self.masks[number], positions, kv, len(kv))
        self.sharer_kv[number] = [old.append(layer) for old, layer in zip(kv, new, strict=True)]
        return new

    def _replay(self, layer: int, new: LayerKV) -> LayerKV:
        if self.pending is None:
            raise GenerationError("this cache fuses response tokens: use it through `C2CModel.generate`.")
        return self.pending[layer]

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row, for beams and several answers."""
        super().batch_repeat_interleave(repeats)
        rows = torch.arange(len(self.clean[0].keys), device=self.clean[0].keys.device).repeat_interleave(repeats)
        self._select_clean(rows)

    def crop(self, tokens_to_remove: int) -> None:
        """Take response tokens back, as assisted decoding does; `tokens_to_remove` is negative."""
        super().crop(tokens_to_remove)
        if tokens_to_remove == 0:
            return
        self.clean = [layer.tokens(0, tokens_to_remove) for layer in self.clean]
        self.sharer_kv = [
            None if kv is None else [layer.tokens(0, tokens_to_remove) for layer in kv] for kv in self.sharer_kv
        ]
        self.masks = [mask[:, :tokens_to_remove] for mask in self.masks]
        self.positions = [positions + tokens_to_remove for positions in self.positions]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Follow the beams, with the clean caches too."""
        super().reorder_cache(beam_idx.long())  # type: ignore[arg-type]
        self._select_clean(beam_idx.to(self.clean[0].keys.device))

    def _select_clean(self, rows: Tensor) -> None:
        self.clean = [layer.rows(rows) for layer in self.clean]
        self.sharer_kv = [None if kv is None else [layer.rows(rows) for layer in kv] for kv in self.sharer_kv]
        self.masks = [mask[rows.to(mask.device)] for mask in self.masks]
        self.positions = [positions[rows.to(positions.device)] for positions in self.positions]
