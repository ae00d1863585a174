"""The fuser: for each sharer and receiver layer a layer fuser, run over the packed fused tokens of a batch."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from c2c_lightning.alignment.fusion_plan import FusedTokens, FusionStep
from c2c_lightning.alignment.layer_alignment import ALIGNMENTS, LayerMap, checked_map
from c2c_lightning.errors import FuserConfigError
from c2c_lightning.fuser.c2c_complex import ComplexGroup
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.gate import NOISES, Gate
from c2c_lightning.fuser.layer_group import C2CGroup, GateNoise, LayerGroup
from c2c_lightning.fuser.packing import add_packed
from c2c_lightning.kv.geometry import KVGeometry, LayerGeometry
from c2c_lightning.kv.layer import LayerKV, LayerStack


class SharerFuser(nn.Module):
    """Everything that one sharer gives to the receiver.

    Attributes:
        layer_map: for each receiver layer the sharer layer that it reads, or None.
    """

    def __init__(self, receiver: KVGeometry, sharer: KVGeometry, layer_map: LayerMap, config: FuserConfig) -> None:
        """Make a stack of fusers for each combination of layer shapes (one, unless a model's layers differ)."""
        super().__init__()
        self.layer_map = layer_map
        by_shape: dict[tuple[LayerGeometry, LayerGeometry], list[tuple[int, int]]] = {}
        for n, m in enumerate(layer_map):
            if m is not None:
                by_shape.setdefault((receiver.layers[n], sharer.layers[m]), []).append((n, m))
        group_type = ComplexGroup if config.kind == "c2c_c" else C2CGroup
        groups = [group_type(pairs, *shapes, config) for shapes, pairs in by_shape.items()]
        self.groups: Sequence[LayerGroup] = nn.ModuleList(groups)  # type: ignore[assignment]

    def place_of(self, layer: int) -> tuple[LayerGroup, int]:
        """The group that fuses a mapped receiver layer, and the layer's place in it."""
        group = next(g for g in self.groups if layer in g.receiver_layers)
        return group, group.receiver_layers.index(layer)

    @property
    def num_sharer_layers(self) -> int:
        """How many of the sharer's layers are read, counted from its first: deeper ones need not run."""
        return max((m + 1 for m in self.layer_map if m is not None), default=0)


class Fuser(nn.Module):
    """The trained whole: Eq. 3 for every receiver layer and sharer.

    Attributes:
        config: the choices; those that change no weight may be replaced (`dataclasses.replace`) at any time.
        sharers: one `SharerFuser` each.
    """

    def __init__(self, receiver: KVGeometry, sharers: Sequence[KVGeometry], config: FuserConfig) -> None:
        """Make a fuser for a receiver and its sharers."""
        super().__init__()
        self.config, self.receiver_geometry, self.sharer_geometries = config, receiver, tuple(sharers)
        pairs = zip(sharers, layer_maps(receiver, sharers, config), strict=True)
        fusers = [SharerFuser(receiver, sharer, layer_map, config) for sharer, layer_map in pairs]
        self.sharers: Sequence[SharerFuser] = nn.ModuleList(fusers)  # type: ignore[assignment]

    def forward(
        self, receiver_kv: LayerStack, sharer_kv: Sequence[LayerStack | None], fusion: FusionStep
    ) -> LayerStack:
        """Put the fused entries of one round in the receiver's place.

        Args:
            receiver_kv: the receiver's cache up to the end of the spans.
            sharer_kv: each sharer's cache over all its prompt tokens, None for a sharer that is left out.
            fusion: the tokens that are fused, and what each of them reads.

        Returns:
            The receiver's cache with the fused entries in it.
        """
        fused = list(receiver_kv)
        for sharer, kv, read in zip(self.sharers, sharer_kv, fusion.fused_tokens, strict=True):
            if kv is None or not len(read):
                continue
            base = receiver_kv if self.config.sharer_order == "parallel" else fused
            for group in sharer.groups:
                noise = self._noise(group, len(group.receiver_layers), len(receiver_kv[0].keys), fusion, read)
                mine, theirs = [base[n] for n in group.receiver_layers], [kv[m] for m in group.sharer_layers]
                residual = group(mine, theirs, read, noise)
                layers = add_packed([fused[n] for n in group.receiver_layers], read.row, read.token, residual)
                for n, layer in zip(group.receiver_layers, layers, strict=True):
                    fused[n] = layer
        return fused

    def fuse_new(self, layer: int, new: LayerKV, sharer_kv: Sequence[LayerStack | None]) -> LayerKV:
        """Fuse the entries of new tokens in one layer, each reading the sharers' token at the same place.

        For fusion in the pass that makes the entries, where layers come one after the other.

        Args:
            layer: the receiver's layer.
            new: its new entries.
            sharer_kv: each sharer's entries that they read, as many tokens, all layers; None for one that is left out.
        """
        batch, tokens, fused = new.keys.shape[0], new.num_tokens, new
        read = FusedTokens.all_tokens(batch, tokens, new.keys.device)
        for sharer, kv in zip(self.sharers, sharer_kv, strict=True):
            source = sharer.layer_map[layer]
            if kv is None or source is None:
                continue
            group, place = sharer.place_of(layer)
            noise = self._noise(group, 1, batch, FusionStep(0, tokens, (read,)), read)
            base = new if self.config.sharer_order == "parallel" else fused
            residual = group.one_layer(place, base, kv[source], read, noise)
            fused = add_packed([fused], read.row, read.token, residual)[0]
        return fused

    def _noise(
        self, group: LayerGroup, num_layers: int, batch: int, fusion: FusionStep, read: FusedTokens
    ) -> GateNoise:
        """Gate noise for keys and for values; None outside training."""
        kind = self.config.gate_noise
        if not (self.training and group.gates and kind != "none"):
            return None, None
        draws, place = group.draw_uniform(num_layers, batch, fusion.end - fusion.begin), read.offset_in_row(batch)
        # (layers, batch, kv_heads, tokens, width) to (layers, fused, kv_heads, width)
        keys, values = (NOISES[kind](draw.transpose(2, 3)[:, read.row, place]) for draw in draws)
        return keys, values

    def gates(self) -> Iterator[tuple[int, LayerGroup, Gate, Gate]]:
        """Sharer number, group, gate of its keys, gate of its values."""
        for number, sharer in enumerate(self.sharers):
            for group in sharer.groups:
                if group.gates:
                    keys, values = group.gates
                    yield number, group, keys, values

    @torch.no_grad()
    def gate_logits(self) -> Tensor:
        """All gate logits, (sharers, 2, receiver layers): keys, values; NaN where a layer has no gate.

        Where the fuser is sharded all processes call this together.
        """
        shape = (len(self.sharers), 2, self.receiver_geometry.num_layers)
        table = torch.full(shape, torch.nan)
        for number, group, keys, values in self.gates():
            table[number, 0, group.receiver_layers] = _whole(keys.logit).float().cpu()
            table[number, 1, group.receiver_layers] = _whole(values.logit).float().cpu()
        return table

    def set_temperature(self, temperature: float) -> None:
        """Set the temperature of all gates."""
        for _, _, keys, values in self.gates():
            keys.temperature.fill_(temperature)
            values.temperature.fill_(temperature)

    @torch.no_grad()
    def force_gates(self, is_open: bool) -> None:
        """Open or close all gates for good, by their logits."""
        for _, _, keys, values in self.gates():
            keys.logit.fill_(1.0 if is_open else -1.0)
            values.logit.fill_(1.0 if is_open else -1.0)


def _whole(tensor: Tensor) -> Tensor:
    """A tensor, put together from all processes where it is sharded."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def layer_maps(receiver: KVGeometry, sharers: Sequence[KVGeometry], config: FuserConfig) -> list[LayerMap]:
    """The layer map of each sharer: the explicit one, or by the configured alignment.

    Raises:
        FuserConfigError: not one explicit map per sharer.
        LayerMapError: an explicit map that does not fit the models.
    """
    if config.layer_map is None:
        return [ALIGNMENTS[config.layer_alignment](receiver.num_layers, s.num_layers) for s in sharers]
    if len(config.layer_map) != len(sharers):
        raise FuserConfigError(
            f"layer_map holds {len(config.layer_map)} maps for {len(sharers)} sharers. Give one map for each sharer."
        )
    pairs = zip(config.layer_map, sharers, strict=True)
    return [checked_map(layer_map, receiver.num_layers, sharer.num_layers) for layer_map, sharer in pairs]
