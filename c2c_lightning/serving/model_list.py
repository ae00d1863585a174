"""`/v1/models`: the served models."""

from pathlib import Path
from typing import Any

from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.serving.model_catalogue import ModelCatalogue
from c2c_lightning.serving.served_models import ServedModel


def model_list(catalogue: ModelCatalogue, created: int) -> dict[str, Any]:
    """All models."""
    return {"object": "list", "data": [model_object(catalogue, name, created) for name in catalogue.models]}


def model_object(catalogue: ModelCatalogue, name: str, created: int) -> dict[str, Any]:
    """One model, with its kind and its language models in the field `c2c`."""
    served = catalogue.get(name)
    c2c: dict[str, Any] = {
        "kind": served.kind,
        "receiver": shown_name(served.receiver),
        "sharers": [shown_name(sharer) for sharer in served.sharers],
        "context": served.receiver.max_tokens,
    }
    if served.kind == "fused":
        c2c["baselines"] = _baselines(catalogue, served)
    return {"id": served.name, "object": "model", "created": created, "owned_by": "c2c_lightning", "c2c": c2c}


def _baselines(catalogue: ModelCatalogue, fused: ServedModel) -> dict[str, str]:
    """The served models of the same language models that a fused pair is compared with; by kind."""
    found = {}
    for name, served in catalogue.models.items():
        is_of_pair = served.receiver is fused.receiver and served.sharers == fused.sharers[: len(served.sharers)]
        if served.kind in ("receiver", "t2t") and is_of_pair:
            found[served.kind] = name
    return found


def shown_name(lm: FrozenLM) -> str:
    """The name of a language model; of a local folder its last part, since clients need not know the server's paths."""
    path = Path(lm.spec.path).expanduser()
    return path.name if path.exists() or path.is_absolute() else lm.spec.path
