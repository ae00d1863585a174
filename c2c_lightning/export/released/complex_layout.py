"""How the authors' `AllInOneProjector` (C2C-C) is laid out: constructor arguments and tensor names, and ours."""

from collections.abc import Mapping
from typing import Any

from c2c_lightning.errors import FuserFormatError
from c2c_lightning.fuser.c2c_complex_config import ComplexKindConfig
from c2c_lightning.fuser.config import FuserConfig

CLASS_NAME = "AllInOneProjector"

# Defaults of the constructor. Some have no effect: every gate starts at 0 there, one logit needs no
# `gate_input_features`, one weight per layer no `max_sequence_length`, and `pos_emb` is never used.
_DEFAULTS: dict[str, Any] = {
    "hidden_dim": 512,
    "num_layers": 2,
    "dropout": 0.1,
    "activation": "gelu",
    "use_layer_norm": True,
    "use_residual": True,
    "use_swiglu": False,
    "use_concat": False,
    "gate_granularity": "scalar",
    "gate_depends_on_input": False,
    "gate_input_features": "target_key",
    "gate_init_value": 0.0,
    "weight_granularity": "scalar",
    "weight_depends_on_input": False,
    "weight_input_features": "target_key",
    "weight_init_value": 0.0,
    "weight_hidden_dim": 1024,
    "preserve_target_weight": True,
    "add_self": True,
    "use_gumbel": True,
    "initial_temperature": 1.0,
    "final_temperature": 0.01,
    "anneal_steps": 1360,
    "scalar_temperature": 0.005,
    "max_sequence_length": 8192,
    "pos_emb": False,
}
# Settings that have the same values in both: our name and theirs.
_NAMES = {name: name for name in ("hidden_dim", "num_layers", "dropout", "weight_granularity", "weight_hidden_dim")}
_NAMES |= {name: f"use_{name}" for name in ("layer_norm", "residual", "swiglu", "concat")}
_INERT = ("gate_granularity", "gate_depends_on_input", "gate_input_features", "max_sequence_length")
_FEATURES = {f"target_{name}": name for name in ("key", "value", "projected_key", "projected_value", "projected_both")}
_FEATURES["both"] = "both"
# (add_self, preserve_target_weight); the latter is without effect where nothing of the receiver is kept.
_SHARES = {(True, False): "whole", (True, True): "rest", (False, True): "none", (False, False): "none"}


def complex_config(init_args: Mapping[str, Any], where: str) -> ComplexKindConfig:
    """The settings of an `AllInOneProjector`, from its constructor arguments without shapes and dtype."""
    if unknown := sorted(init_args.keys() - _DEFAULTS.keys()):
        raise FuserFormatError(f"{where}: {CLASS_NAME} with unknown arguments {unknown} cannot be converted.")
    args = {**_DEFAULTS, **init_args}
    _check_convertible(args, where)
    renamed = {ours: args[theirs] for ours, theirs in _NAMES.items()}
    return ComplexKindConfig(
        **renamed,
        activation=args["activation"].lower(),
        weight_features=_FEATURES[args["weight_input_features"]],  # type: ignore[arg-type]
        weight_init=float(args["weight_init_value"]),
        weight_temperature=float(args["scalar_temperature"]),
        receiver_share=_SHARES[args["add_self"], args["preserve_target_weight"]],  # type: ignore[arg-type]
    )


def complex_schedule(init_args: Mapping[str, Any]) -> dict[str, Any]:
    """The gate settings of an `AllInOneProjector`, as fields of `FuserConfig`."""
    args = {**_DEFAULTS, **init_args}
    return {
        "gate_noise": "gumbel" if args["use_gumbel"] else "none",
        "gate_init": float(args["gate_init_value"]),
        **{name: args[name] for name in ("initial_temperature", "final_temperature", "anneal_steps")},
    }


def _check_convertible(args: Mapping[str, Any], where: str) -> None:
    """Refuse settings that the stacked, packed form cannot compute, or that the authors' class cannot either."""
    weights = (args["weight_granularity"], args["weight_depends_on_input"])
    reasons = {
        "gate_depends_on_input": (
            args["gate_depends_on_input"],
            "here a gate is one logit for each layer, which the input does not change",
        ),
        "gate_granularity": (
            args["gate_granularity"] != "scalar",
            "here a gate is one logit for each layer (`scalar`), not one for each position",
        ),
        "weight_granularity": (
            weights not in (("scalar", False), *((name, True) for name in ("token", "head", "head_merged", "value"))),
            f"with weight_depends_on_input {weights[1]} it must be "
            + ("`token`, `head`, `head_merged` or `value`" if weights[1] else "`scalar`")
            + ": weights here depend on the token alone, not on its position or on the other tokens",
        ),
        "weight_input_features": (args["weight_input_features"] not in _FEATURES, f"known are {', '.join(_FEATURES)}"),
        "activation": (str(args["activation"]).lower() not in ("gelu", "relu", "silu"), "known are gelu, relu, silu"),
    }
    faults = [f"{name} {args[name]!r} ({why})" for name, (is_so, why) in reasons.items() if is_so]
    if faults:
        raise FuserFormatError(f"{where}: {CLASS_NAME} cannot be converted with {'; '.join(faults)}.")


def complex_init_args(settings: ComplexKindConfig, config: FuserConfig) -> dict[str, Any]:
    """The constructor arguments of a fuser of kind `c2c_c`, without shapes, temperatures and dtype; the way back."""
    add_self, preserve = next(key for key, share in _SHARES.items() if share == settings.receiver_share)
    return {
        **{theirs: getattr(settings, ours) for ours, theirs in _NAMES.items()},
        **{name: _DEFAULTS[name] for name in _INERT},
        "activation": settings.activation,
        "gate_init_value": config.gate_init,
        "weight_depends_on_input": settings.weight_granularity != "scalar",
        "weight_input_features": next(theirs for theirs, ours in _FEATURES.items() if ours == settings.weight_features),
        "weight_init_value": settings.weight_init,
        "use_gumbel": config.gate_noise != "none",
        "preserve_target_weight": preserve,
        "add_self": add_self,
        "scalar_temperature": settings.weight_temperature,
    }


# Names within keys or values of a `ComplexKind`, and theirs after `key_` or `value_`.
_SIDES = {"keys": "key_", "values": "value_"}
_HALVES = {"gate": "gate_proj", "up": "up_proj"}


def complex_name(name: str, settings: ComplexKindConfig) -> str:
    """The authors' name of a tensor of a `ComplexKind`, such as `keys.mlp.hidden.0.gate.weight`."""
    parts = name.split(".")
    if parts[0] == "gate":
        return f"gate_{parts[1]}"
    if parts[0] in _SIDES:
        side = _SIDES[parts[0]]
        if parts[1] == "combine":
            return f"{side}combiner.{parts[2]}"
        places = _places(settings.num_layers, settings.layer_norm, not settings.swiglu, settings.dropout > 0)
        return f"{side}projection.{_mlp_name(parts[2:], places)}"
    # The weighting: `keys` and `values` are heads, or learned weights; its MLP is always of one form.
    if parts[1] in _SIDES:
        return ".".join([f"{_SIDES[parts[1]]}weight" + ("_head" if parts[2:] else ""), *parts[2:]])
    return f"weight_hidden.{_mlp_name(parts[2:], _places(2, True, True, True))}"


def _places(num_layers: int, has_norm: bool, has_activation: bool, has_dropout: bool) -> tuple[int, int]:
    """In their flat list of modules: the number of modules of a hidden layer, and the index of the output map."""
    stride = 1 + has_norm + has_activation + has_dropout
    return stride, stride * (num_layers - 1)


def _mlp_name(parts: list[str], places: tuple[int, int]) -> str:
    """The name of a tensor of an `MLP`, such as `hidden.0.norm.weight`, in their flat list."""
    stride, last = places
    if parts[0] == "output":
        return f"layers.{last}.{parts[1]}"
    first, part, kind = stride * int(parts[1]), parts[2], parts[3]
    if part in _HALVES:
        return f"layers.{first}.{_HALVES[part]}.{kind}"
    return f"layers.{first + (part == 'norm')}.{kind}"
