"""The fuser: Eq. 3 for every receiver layer and sharer, over the packed fused tokens of a batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from c2c_lightning.alignment.fusion_plan import FusedTokens, FusionStep, TokenPositions
from c2c_lightning.alignment.layer_alignment import ALIGNMENTS, LayerMap, checked_map
from c2c_lightning.errors import FuserConfigError
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.gate import NOISES, Gate
from c2c_lightning.fuser.kind import FuserKind, GateNoise, NewGate
from c2c_lightning.fuser.packing import add_packed
from c2c_lightning.fuser.parameter_roles import ParameterRoles
from c2c_lightning.kv.geometry import HiddenGeometry, KVGeometry, LayerGeometry
from c2c_lightning.kv.latent import SharerView
from c2c_lightning.kv.layer import LayerKV, LayerStack, SharerKV
from c2c_lightning.kv.rotary import LayerRotary

LayerTensors = list[list[list[dict[str, Tensor]]]]
"""By sharer, group and index in the group: the parameters and buffers of one layer."""


class SharerFuser(nn.Module):
    """The part of the fuser that belongs to one sharer.

    Attributes:
        layer_map: for each receiver layer the sharer layer that it is fused with, or None.
        kind_config: settings of its fuser kind.
        reads_hidden: whether it reads the sharer's hidden states.
        groups: one stack per combination of layer shapes (one, unless the layers of a model differ).
        views: for each of them the keys and values that it reads of a sharer layer.
    """

    def __init__(
        self,
        receiver: KVGeometry,
        sharer: KVGeometry,
        layer_map: LayerMap,
        kind: tuple[type[FuserKind], Any],
        new_gate: NewGate,
    ) -> None:
        """Build it.

        Args:
            receiver: shapes of the receiver's cache.
            sharer: shapes of what is read of the sharer, see `input_geometries`.
            layer_map: the sharer layer of each receiver layer.
            kind: class and configuration of the fuser kind.
            new_gate: makes gates.
        """
        super().__init__()
        self.layer_map, (kind_class, self.kind_config) = layer_map, kind
        by_shape: dict[tuple[LayerGeometry, LayerGeometry], list[tuple[int, int]]] = {}
        for n, m in enumerate(layer_map):
            if m is not None:
                by_shape.setdefault((receiver.layers[n], sharer.layers[m]), []).append((n, m))
        self.views = [SharerView(*shapes) for shapes in by_shape]
        if kind_class.needs_rotary and any(view.has_latent for view in self.views):
            raise FuserConfigError(
                "a kind that works on keys without rotary position needs models without latent attention (MLA), whose "
                "cache holds no complete keys. Choose another `kind`."
            )
        groups = [
            kind_class(pairs, view.receiver, view.geometry, self.kind_config, new_gate)  # type: ignore[call-arg]
            for view, pairs in zip(self.views, by_shape.values(), strict=True)
        ]
        self.groups: Sequence[FuserKind] = nn.ModuleList(groups)  # type: ignore[assignment]
        self.reads_hidden = any(isinstance(layer, HiddenGeometry) for layer in sharer.layers)
        for group in self.groups:
            group.reads_hidden = self.reads_hidden

    def place_of(self, layer: int) -> tuple[int, int]:
        """The group of a receiver layer that is fused, and the index of the layer in it."""
        number = next(n for n, group in enumerate(self.groups) if layer in group.receiver_layers)
        return number, self.groups[number].receiver_layers.index(layer)

    @property
    def read_layers(self) -> set[int]:
        """The sharer layers that are read: those of the layer map, and further ones where a kind reads several."""
        return {m for group in self.groups for m in group.sharer_layers}

    @property
    def num_sharer_layers(self) -> int:
        """Number of sharer layers that are needed, counted from the first."""
        return max((m + 1 for m in self.read_layers), default=0)


class Fuser(nn.Module):
    """The trained part of C2C.

    Attributes:
        config: the configuration; settings of use may be replaced (`dataclasses.replace`) at any time.
        sharers: one `SharerFuser` per sharer.
    """

    _config: FuserConfig

    def __init__(self, receiver: KVGeometry, sharers: Sequence[KVGeometry], config: FuserConfig) -> None:
        """Build the fuser of a receiver and its sharers.

        Raises:
            FuserConfigError: a configuration for another number of sharers.
            LayerMapError: an explicit layer map that does not fit the models.
        """
        super().__init__()
        self.receiver_geometry, self.sharer_geometries = receiver, tuple(sharers)
        self.config = config
        new_gate = partial(Gate, init=config.gate_init, temperature=config.initial_temperature)
        inputs, maps = input_geometries(sharers, config), layer_maps(receiver, sharers, config)
        parts = zip(inputs, maps, config.kinds(len(sharers)), strict=True)
        fusers = [SharerFuser(receiver, sharer, layer_map, kind, new_gate) for sharer, layer_map, kind in parts]
        self.sharers: Sequence[SharerFuser] = nn.ModuleList(fusers)  # type: ignore[assignment]

    @property
    def config(self) -> FuserConfig:
        """The configuration."""
        return self._config

    @config.setter
    def config(self, config: FuserConfig) -> None:
        """Replace settings of use; the weights stay.

        Raises:
            FuserConfigError: another kind, size or layer map than that of the weights.
        """
        if not isinstance(config, FuserConfig):
            raise FuserConfigError(f"The configuration of a fuser is a FuserConfig, not {type(config).__name__}.")
        if hasattr(self, "sharers") and self._structure(config) != self._structure(self._config):
            raise FuserConfigError(
                "Kinds, sizes and layer maps of a fuser are those of its weights and cannot be replaced. Build another "
                "fuser with this configuration."
            )
        self._config = config

    def _structure(self, config: FuserConfig) -> Any:
        """What the weights depend on."""
        sharers = self.sharer_geometries
        maps = layer_maps(self.receiver_geometry, sharers, config)
        return config.kinds(len(sharers)), config.reads_hidden(len(sharers)), maps

    def forward(self, receiver_kv: LayerStack, sharer_kv: SharerKV, step: FusionStep) -> LayerStack:
        """The receiver's cache with the entries of one step fused (Eq. 3).

        Args:
            receiver_kv: the receiver's cache up to the end of the step's spans.
            sharer_kv: each sharer's cache over all its prompt tokens; None for a sharer that is left out.
            step: the tokens that are fused.
        """
        result = list(receiver_kv)
        for sharer, kv, fused in zip(self.sharers, sharer_kv, step.fused_tokens, strict=True):
            if kv is None or not len(fused):
                continue
            # As released: in parallel order every sharer reads the clean entries, and residuals are summed.
            base = receiver_kv if self.config.sharer_order == "parallel" else result
            for group, view in zip(sharer.groups, sharer.views, strict=True):
                noise = self.gate_noise(group, len(group.receiver_layers), len(receiver_kv[0].keys), step, fused)
                sent = [view(self._transmit(kv[m])) for m in group.sharer_layers]
                residual = group([base[n] for n in group.receiver_layers], sent, fused, noise)
                layers = add_packed([result[n] for n in group.receiver_layers], fused.row, fused.token, residual)
                for n, layer in zip(group.receiver_layers, layers, strict=True):
                    result[n] = layer
        return result

    def fuse_new(
        self,
        layer: int,
        new: LayerKV,
        sharer_kv: SharerKV,
        positions: TokenPositions | None = None,
        layer_tensors: LayerTensors | None = None,
    ) -> LayerKV:
        """Fuse the entries of new tokens in one layer, each with the sharers' token of the same column.

        For fusion inside the receiver's forward pass, which computes the entries layer by layer.

        Args:
            layer: the receiver layer.
            new: its new entries.
            sharer_kv: each sharer's entries of as many tokens, all layers; None for a sharer that is left out.
            positions: position ids of these tokens, for kinds that need them.
            layer_tensors: the weights by layer, where several layers are fused in one pass: use `split`.
        """
        batch, tokens, result = new.keys.shape[0], new.num_tokens, new
        for number, (sharer, kv) in enumerate(zip(self.sharers, sharer_kv, strict=True)):
            if kv is None or sharer.layer_map[layer] is None:
                continue
            group_number, index = sharer.place_of(layer)
            group = sharer.groups[group_number]
            tensors = (
                group.layer_tensors(index) if layer_tensors is None else layer_tensors[number][group_number][index]
            )
            ids = None if positions is None else (positions.receiver, positions.sharers[number])
            fused = FusedTokens.all_tokens(batch, tokens, new.keys.device, ids)
            noise = self.gate_noise(group, 1, batch, FusionStep(0, tokens, (fused,)), fused)
            base = new if self.config.sharer_order == "parallel" else result
            view = sharer.views[group_number]
            sent = [view(self._transmit(kv[source])) for source in group.sources_of(index)]
            residual = group.one_layer(tensors, base, sent, fused, noise)
            result = add_packed([result], fused.row, fused.token, residual)[0]
        return result

    def _transmit(self, layer: LayerKV) -> LayerKV:
        """Entries of a sharer in the precision of the configured channel."""
        return self.config.channel.channel.transmit(layer, self.training)

    @property
    def is_pointwise(self) -> bool:
        """Whether each token is fused by itself, see `FuserKind.is_pointwise`."""
        kinds = self.config.kinds(len(self.sharers))
        return all(used.is_pointwise for kind, settings in kinds for used in kind.used_kinds(settings))

    def needs_rotary(self, number: int) -> bool:
        """Whether `bind_rotary` must be called for a sharer."""
        return any(group.needs_rotary for group in self.sharers[number].groups)

    def bind_rotary(self, number: int, receiver: Sequence[LayerRotary], sharer: Sequence[LayerRotary]) -> None:
        """Give the kind of one sharer's fuser the rotary tables of both models, one for each of their layers."""
        for group in self.sharers[number].groups:
            group.bind_rotary(receiver, sharer)

    def split(self) -> "SplitFuser":
        """The fuser with its stacked weights split into layers, for one pass that calls `fuse_new` for each layer."""
        return SplitFuser(self, [[group.split() for group in sharer.groups] for sharer in self.sharers])

    def gate_noise(
        self, group: FuserKind, num_layers: int, batch: int, step: FusionStep, fused: FusedTokens
    ) -> GateNoise:
        """Gate noise for keys and for values; None outside training."""
        kind = self.config.gate_noise
        if not (self.training and group.gates and kind != "none"):
            return None, None
        draws, offset = group.draw_uniform(num_layers, batch, step.end - step.begin), fused.offset_in_row(batch)
        # (layers, batch, kv_heads, tokens, width) to (layers, fused, kv_heads, width)
        keys, values = (NOISES[kind](draw.transpose(2, 3)[:, fused.row, offset]) for draw in draws)
        return keys, values

    def parameter_roles(self) -> ParameterRoles:
        """The parameters by their role for the optimizer."""
        groups = [group for sharer in self.sharers for group in sharer.groups]
        gates = (p for group in groups for gate in group.gates for p in gate.parameters())
        norms = (p for group in groups for p in group.norm_parameters())
        return ParameterRoles.of(self.parameters(), norms, gates)

    def gates(self) -> Iterator[tuple[int, FuserKind, Gate, Gate]]:
        """Sharer number, group, gates of its keys, gates of its values."""
        for number, sharer in enumerate(self.sharers):
            for group in sharer.groups:
                if group.gates:
                    keys, values = group.gates
                    yield number, group, keys, values

    @property
    def gate_names(self) -> list[str]:
        """Names of the first dimension of `gate_logits`."""
        return [f"sharer_{number}" for number in range(len(self.sharers))]

    @torch.no_grad()
    def gate_logits(self) -> Float[Tensor, "sharers 2 receiver_layers"]:
        """All gate logits of keys and values; NaN where a layer has no gate.

        Where the fuser is sharded all processes call this together.
        """
        shape = (len(self.sharers), 2, self.receiver_geometry.num_layers)
        table = torch.full(shape, torch.nan)
        for number, group, keys, values in self.gates():
            table[number, 0, group.receiver_layers] = _unsharded(keys.logit).float().cpu()
            table[number, 1, group.receiver_layers] = _unsharded(values.logit).float().cpu()
        return table

    def set_temperature(self, temperature: float) -> None:
        """Set the temperature of all gates."""
        for _, _, keys, values in self.gates():
            keys.temperature.fill_(temperature)
            values.temperature.fill_(temperature)

    @torch.no_grad()
    def force_gates(self, is_open: bool) -> None:
        """Open or close all gates by overwriting their logits."""
        for _, _, keys, values in self.gates():
            keys.logit.fill_(1.0 if is_open else -1.0)
            values.logit.fill_(1.0 if is_open else -1.0)


@dataclass(frozen=True)
class SplitFuser:
    """A fuser whose stacked weights are split into layers; made by `Fuser.split` once per pass.

    Attributes:
        fuser: the fuser.
        layer_tensors: its parameters and buffers by layer.
    """

    fuser: Fuser
    layer_tensors: LayerTensors

    def fuse_new(
        self, layer: int, new: LayerKV, sharer_kv: SharerKV, positions: TokenPositions | None = None
    ) -> LayerKV:
        """See `Fuser.fuse_new`."""
        return self.fuser.fuse_new(layer, new, sharer_kv, positions, self.layer_tensors)


def _unsharded(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def input_geometries(sharers: Sequence[KVGeometry], config: FuserConfig) -> list[KVGeometry]:
    """Shapes of what the fuser reads of each sharer: of its cache, or of its hidden states.

    Raises:
        FuserConfigError: the width of its hidden states is not known.
    """
    hidden = config.reads_hidden(len(sharers))
    return [s.of_hidden_states if is_hidden else s for s, is_hidden in zip(sharers, hidden, strict=True)]


def layer_maps(receiver: KVGeometry, sharers: Sequence[KVGeometry], config: FuserConfig) -> list[LayerMap]:
    """The layer map of each sharer: the explicit one, or that of the configured alignment.

    Raises:
        FuserConfigError: another number of explicit maps than sharers.
        LayerMapError: an explicit map that does not fit the models.
    """
    if config.searches_layers:
        raise FuserConfigError(
            f"`layer_alignment: {config.layer_alignment}` is found from rows of training data, by `lightning fit` (in "
            "Python by `c2c_lightning.model.layer_probe.probe_layers`, or `probe_answers` of `answer_probe`). Give its "
            "result as `layer_map`, or use another alignment."
        )
    if config.layer_map is None:
        return [ALIGNMENTS[config.layer_alignment](receiver.num_layers, s.num_layers) for s in sharers]
    if len(config.layer_map) != len(sharers):
        raise FuserConfigError(
            f"layer_map holds {len(config.layer_map)} maps for {len(sharers)} sharers. Give one map for each sharer."
        )
    pairs = zip(config.layer_map, sharers, strict=True)
    return [checked_map(layer_map, receiver.num_layers, sharer.num_layers) for layer_map, sharer in pairs]
