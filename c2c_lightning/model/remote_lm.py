"""A sharer in another process: its tokenizer is here, its weights are there."""

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from c2c_lightning.alignment.fingerprint import tokenizer_fingerprint
from c2c_lightning.channel.sharer_cache import DTYPES, SharerCache
from c2c_lightning.channel.sharer_client import SharerClient
from c2c_lightning.channel.sharer_link import PrefillRequest, SharerInfo
from c2c_lightning.data.batch import SharerTokens, TokenBatch
from c2c_lightning.errors import ChannelError, PairMismatchError
from c2c_lightning.kv.layer import LayerKV, LayerStack
from c2c_lightning.kv.rotary import LayerRotary
from c2c_lightning.model.arriving_stack import ArrivingStack
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.limits import ModelLimits
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.model.turn_lock import TurnLock


class RemoteLimits(ModelLimits):
    """The limits that a sharer's process reports; it checks everything else itself."""

    rotary_switch = None
    drops_cache = False

    def __init__(self, info: SharerInfo) -> None:
        super().__init__(None, info.name)
        self._max_tokens, self._num_embeddings = info.max_tokens, info.num_embeddings

    @property
    def max_tokens(self) -> int | None:
        """Longest prompt, in tokens."""
        return self._max_tokens

    @property
    def num_embeddings(self) -> int:
        """Number of token ids that have an embedding."""
        return self._num_embeddings


class RemoteLM(FrozenLM):
    """A frozen model that only gives caches, which come over HTTP in the format of `SharerCache`.

    Requests run in threads, so that the receiver prefills meanwhile.

    Attributes:
        layers: the layers that are sent; None for all.
    """

    can_generate = False
    layers: frozenset[int] | None

    def __init__(self, tokenizer: PreTrainedTokenizerBase, spec: LMSpec, client: SharerClient | None = None) -> None:
        """Connect to `spec.url`.

        Raises:
            SharerMissingError: no sharer answers there.
            PairMismatchError: the sharer there has another tokenizer.
        """
        assert spec.url is not None
        self.client = client or SharerClient(spec.url)
        self.info = self.client.info()
        if self.info.tokenizer != tokenizer_fingerprint(tokenizer):
            raise PairMismatchError(
                f"the sharer at {spec.url} is {self.info.name!r}, whose tokenizer or chat template is not that of "
                f"{spec.path!r} here. Use the same checkpoint on both sides."
            )
        # Code that compares models by identity, or moves them, finds a model without weights.
        self.model = nn.Module()
        self.tokenizer, self.spec, self.geometry = tokenizer, spec, self.info.geometry
        self.limits = RemoteLimits(self.info)
        self.is_sharded, self.lock, self.layers = False, TurnLock(), None
        # How its process runs the model is that process's affair.
        self.layout, self.continues_by_token, self.runs_ragged = None, False, False
        self._device = torch.device("cpu")
        self._threads = ThreadPoolExecutor(4, "remote-sharer")

    def send_layers(self, layers: Collection[int]) -> None:
        """Ask from now on for the layers that a fuser reads, besides those of fusers before it."""
        self.layers = (self.layers or frozenset()) | set(layers)

    @property
    def device(self) -> torch.device:
        """Where its caches are put."""
        return self._device

    def to(self, device: torch.device) -> None:
        """Put caches on another device from now on."""
        self._device = device

    def prefill_tokens(
        self, tokens: TokenBatch, until: int, prefix: LayerStack | None = None, num_layers: int | None = None
    ) -> LayerStack:
        """Entries that a fuser reads between the end of `prefix` and column `until`; the other entries are 0."""
        if not isinstance(tokens, SharerTokens):
            raise ChannelError(f"the sharer at {self.spec.url} gives caches of prompts only.")
        begin = prefix[0].num_tokens if prefix else 0
        count = self.geometry.num_layers if num_layers is None else num_layers
        if until <= begin or not count:
            return [layer.tokens(0, 0) for layer in self.empty_kv(len(tokens.input_ids))[:count]]
        request = self._request(tokens, begin, until, count)
        return ArrivingStack(self._threads.submit(self._receive, request, begin, count))

    def _request(self, tokens: SharerTokens, begin: int, until: int, num_layers: int) -> PrefillRequest:
        layers = range(num_layers) if self.layers is None else [n for n in self.layers if n < num_layers]
        is_read = tokens.is_read(with_last=True)[:, :until].long()
        is_read[:, :begin] = 0
        columns = (tokens.input_ids, tokens.mask, tokens.positions)
        ids, mask, positions = (tensor[:, :until].tolist() for tensor in columns)
        return PrefillRequest(
            ids, mask, positions, is_read.tolist(), sorted(set(layers)), self.spec.bits, self.spec.group
        )

    def _receive(self, request: PrefillRequest, begin: int, num_layers: int) -> LayerStack:
        cache = SharerCache.from_bytes(self.client.prefill(request), self.client.max_bytes)
        if cache.fingerprint != self.info.fingerprint:
            raise ChannelError(
                f"the sharer at {self.spec.url} is another model than before: fingerprint {cache.fingerprint[:12]}, "
                f"not {self.info.fingerprint[:12]}. Connect again."
            )
        if (cache.batch, cache.columns) != (len(request.input_ids), len(request.input_ids[0])):
            raise ChannelError(f"the cache of the sharer at {self.spec.url} is of other prompts.")
        if set(cache.entries) != set(request.layers):
            raise ChannelError(f"the cache of the sharer at {self.spec.url} has other layers than were asked for.")
        return [layer.tokens(begin) for layer in cache.to_stack(self.geometry, num_layers, self._device)]

    def empty_kv(self, batch: int) -> LayerStack:
        """A cache of no tokens."""
        dtype, device = DTYPES.get(self.info.dtype, torch.float32), self._device
        return [
            LayerKV(
                torch.zeros(batch, layer.kv_heads, 0, layer.key_dim, dtype=dtype, device=device),
                torch.zeros(batch, layer.kv_heads, 0, layer.value_dim, dtype=dtype, device=device),
            )
            for layer in self.geometry.layers
        ]

    def prefill(self, *args: Any, **kwargs: Any) -> LayerStack:
        """Not possible: response tokens would each need a request.

        Raises:
            ChannelError: always.
        """
        raise ChannelError(
            f"in fusion mode `decode` the sharer runs along with the response, which the sharer at {self.spec.url} "
            "cannot do. Use `fusion_mode: prefill` or `prompt`, or load the sharer here."
        )

    @cached_property
    def rotary(self) -> list[LayerRotary]:
        """Not possible.

        Raises:
            ChannelError: always.
        """
        raise ChannelError(
            f"the fuser kind `rotary_free` needs the rotary table of the sharer at {self.spec.url}, which its process "
            "does not send. Load the sharer here."
        )

    def hidden_states(self, *args: Any, **kwargs: Any) -> Tensor:
        """Not possible.

        Raises:
            ChannelError: always.
        """
        raise ChannelError(f"the sharer at {self.spec.url} gives caches only. Load it here to let it answer.")
