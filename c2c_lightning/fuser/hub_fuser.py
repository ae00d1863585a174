"""Fusers between all models of a hub, from one encoder and one decoder per model (paper, appendix A.5.2).

The encoder of a sharer maps its cache to a common latent, the decoder of a receiver fuses the latent into its cache,
and every direction has its own gates: N + N parts in place of N x (N - 1) fusers. The fuser of a direction is an
ordinary one of kind `hub`, whose tensors are rows of those parts.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from c2c_lightning.errors import FuserConfigError
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.direction import Direction, check_directions
from c2c_lightning.fuser.fuser import Fuser, input_geometries
from c2c_lightning.fuser.gate import Gate, OpenGate
from c2c_lightning.fuser.hub_kind import LatentEncoder, new_decoder
from c2c_lightning.fuser.hub_layout import HubLayout
from c2c_lightning.fuser.kind import FuserKind
from c2c_lightning.fuser.layer_stacks import LayerStacks, select_rows
from c2c_lightning.fuser.parameter_roles import ParameterRoles
from c2c_lightning.kv.geometry import KVGeometry


class HubFuser(nn.Module):
    """Encoders, decoders and gates of a hub.

    Attributes:
        layout: the models, the sizes and the layer maps.
        directions: the directions with gates of their own: those that are trained.
        encoders: by the name of the sharer, one row for each latent layer that is encoded.
        decoders: by the name of the receiver, one row for each of its layers that reads the latent.
        direction_gates: by the name of the direction, the gates of its keys and of its values.
    """

    def __init__(
        self, geometries: Mapping[str, KVGeometry], config: FuserConfig, directions: Sequence[Direction]
    ) -> None:
        """Build a hub.

        Args:
            geometries: shapes of each model's cache, by its name.
            config: configuration of the fuser of every direction, without layer maps.
            directions: the trained directions.

        Raises:
            FuserConfigError: another kind than `hub`, a model that cannot be part of one, or an impossible direction.
        """
        super().__init__()
        self.layout, self.directions = HubLayout(dict(geometries), config), tuple(directions)
        check_directions(directions, list(geometries))
        self._templates: dict[Direction, Fuser] = {}
        self.encoders = _parts(self._new_encoder, (direction.sharer for direction in directions))
        self.decoders = _parts(self._new_decoder, (direction.receiver for direction in directions))
        self.direction_gates = nn.ModuleDict({str(d): self._new_gates(d) for d in directions})

    @property
    def config(self) -> FuserConfig:
        """Configuration of the fuser of every direction, without layer maps."""
        return self.layout.config

    def template(self, direction: Direction) -> Fuser:
        """The fuser of a direction without weights, on the meta device; always the same object.

        Raises:
            FuserConfigError: an unknown model.
        """
        if direction not in self._templates:
            self._templates[direction] = self.layout.new_pair(direction)
        return self._templates[direction]

    def pair_tensors(self, direction: Direction) -> dict[str, Tensor]:
        """The tensors of the fuser of a direction, by their names in it; gradients flow back to the parts.

        A direction without gates of its own, which was not trained, has the mean of the receiver's other gates.

        Raises:
            FuserConfigError: an unknown model, a sharer without encoder, or a receiver without decoder.
        """
        template = self.template(direction)
        encoder, decoder = self._part(self.encoders, direction.sharer), self._part(self.decoders, direction.receiver)
        latent_layers, gates = self.layout.latent_layers(direction.receiver), self._gate_tensors(direction)
        tensors: dict[str, Tensor] = {}
        for number, group in enumerate(template.sharers[0].groups):
            layers = group.receiver_layers
            prefix, read = f"sharers.0.groups.{number}", [n for m in layers if (n := latent_layers[m]) is not None]
            tensors |= {f"{prefix}.encoder.{name}": rows for name, rows in encoder.rows(read).items()}
            tensors |= {f"{prefix}.inner.{name}": rows for name, rows in decoder.rows(layers).items()}
            for name, gate in zip(_gate_names(group), gates, strict=True):
                tensors |= {f"{prefix}.{name}.{part}": select_rows(tensor, layers) for part, tensor in gate.items()}
        return tensors

    @torch.no_grad()
    def pair(self, direction: Direction) -> Fuser:
        """The fuser of a direction as an ordinary one in evaluation mode, with its own copy of the weights.

        Raises:
            FuserConfigError: see `pair_tensors`.
        """
        tensors = {name: tensor.clone() for name, tensor in self.pair_tensors(direction).items()}
        fuser = self.layout.new_pair(direction)
        fuser.load_state_dict(tensors, assign=True)
        return fuser.eval()

    def freeze(self, names: Iterable[str]) -> None:
        """Exclude parameters from training: those of a hub that new models join."""
        frozen = set(names)
        for name, parameter in self.named_parameters():
            if name in frozen:
                parameter.requires_grad_(False)

    def parameter_roles(self) -> ParameterRoles:
        """The trained parameters by their role for the optimizer."""
        trained = (parameter for parameter in self.parameters() if parameter.requires_grad)
        parts: Any = (*self.encoders.values(), *self.decoders.values())
        norms = (parameter for part in parts for stack in part.stacks for parameter in stack.norm_parameters())
        return ParameterRoles.of(trained, norms, self.direction_gates.parameters())

    def gates(self) -> Iterator[tuple[int, Direction, Gate, Gate]]:
        """Number of the direction, direction, gates of its keys, gates of its values."""
        for number, direction in enumerate(self.directions):
            if gates := self._gates_of(direction):
                yield number, direction, gates[0], gates[-1]

    @property
    def gate_names(self) -> list[str]:
        """Names of the first dimension of `gate_logits`."""
        return [str(direction) for direction in self.directions]

    @torch.no_grad()
    def gate_logits(self) -> Float[Tensor, "directions 2 receiver_layers"]:
        """All gate logits of keys and values; NaN where a layer has no gate."""
        most = max(self.layout.geometries[direction.receiver].num_layers for direction in self.directions)
        table = torch.full((len(self.directions), 2, most), torch.nan)
        for number, direction, keys, values in self.gates():
            fused = [n for n, m in enumerate(self.template(direction).sharers[0].layer_map) if m is not None]
            table[number, 0, fused] = keys.logit[fused].float().cpu()
            table[number, 1, fused] = values.logit[fused].float().cpu()
        return table

    def set_temperature(self, temperature: float) -> None:
        """Set the temperature of all gates."""
        for _, _, keys, values in self.gates():
            keys.temperature.fill_(temperature)
            values.temperature.fill_(temperature)

    def num_parameters(self) -> dict[str, int]:
        """Number of parameters of the parts, by name: `encoder NAME`, `decoder NAME`, `gates DIRECTION`."""
        parts = {"encoder": self.encoders, "decoder": self.decoders, "gates": self.direction_gates}
        return {
            f"{kind} {name}": sum(parameter.numel() for parameter in part.parameters())
            for kind, of_kind in parts.items()
            for name, part in of_kind.items()
        }

    def _new_encoder(self, sharer: str) -> LayerStacks:
        (read,) = input_geometries([self.layout.geometries[sharer]], self.layout.config)
        latent = self.layout.kind_config.latent
        shapes = {n: read.layers[m] for n, m in enumerate(self.layout.sharer_layers(sharer)) if m is not None}
        return LayerStacks(shapes, lambda layers, shape: LatentEncoder(len(layers), shape, latent))

    def _new_decoder(self, receiver: str) -> LayerStacks:
        latent_layers, layers = self.layout.latent_layers(receiver), self.layout.geometries[receiver].layers
        pairs = [(n, latent) for n, latent in enumerate(latent_layers) if latent is not None]

        def build(chosen: Sequence[int], shape: Any) -> FuserKind:
            of_shape = [(n, latent) for n, latent in pairs if n in chosen]
            # Gates belong to a direction, not to the receiver.
            return new_decoder(of_shape, shape, self.layout.kind_config, lambda count: OpenGate())  # type: ignore[arg-type,return-value]

        return LayerStacks({n: layers[n] for n, _ in pairs}, build)

    def _new_gates(self, direction: Direction) -> nn.ModuleList:
        """The gates of all layers of the receiver, as many per layer as the kind of the decoders has."""
        config, groups = self.layout.config, self.template(direction).sharers[0].groups
        count = len(_gate_names(groups[0])) if len(groups) else 0
        num_layers = self.layout.geometries[direction.receiver].num_layers
        new_gate = partial(Gate, init=config.gate_init, temperature=config.initial_temperature)
        return nn.ModuleList([new_gate(num_layers) for _ in range(count)])

    def _gates_of(self, direction: Direction) -> list[Gate]:
        gates: Any = self.direction_gates[str(direction)]
        return list(gates)

    def _gate_tensors(self, direction: Direction) -> list[dict[str, Tensor]]:
        """Logit and temperature of each gate by receiver layer, or their means over the receiver's directions."""
        trained = [direction] if direction in self.directions else self._directions_to(direction.receiver)
        return [
            {"logit": torch.stack([gate.logit for gate in same]).mean(0), "temperature": same[0].temperature}
            for same in zip(*map(self._gates_of, trained), strict=True)
        ]

    def _directions_to(self, receiver: str) -> list[Direction]:
        return [direction for direction in self.directions if direction.receiver == receiver]

    def _part(self, parts: nn.ModuleDict, name: str) -> LayerStacks:
        if name not in parts:
            lack = "encoder: it is the sharer" if parts is self.encoders else "decoder: it is the receiver"
            raise FuserConfigError(
                f"the model {name!r} has no {lack} in none of the trained directions {', '.join(self.gate_names)}. "
                "Train one of them."
            )
        part: LayerStacks = parts[name]  # type: ignore[assignment]
        return part


def _parts(new_part: Any, names: Iterable[str]) -> nn.ModuleDict:
    return nn.ModuleDict({name: new_part(name) for name in dict.fromkeys(names)})


def _gate_names(group: FuserKind) -> list[str]:
    """The names of a kind's gates as modules; a gate of both keys and values once."""
    gates = {id(gate) for gate in group.gates}
    return [name for name, module in group.named_modules() if id(module) in gates]
