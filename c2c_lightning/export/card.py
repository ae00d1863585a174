"""The model card of a fuser directory: models, settings, training and results."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from c2c_lightning.export.description import FuserDescription, ModelReference, TrainingRecord
from c2c_lightning.fuser.kind import kind_name
from c2c_lightning.kv.geometry import LayerGeometry

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

_BODY = """# Fuser: {sharers} to {receiver}

A Cache-to-Cache fuser ([arXiv 2510.03215](https://arxiv.org/abs/2510.03215)). It projects the KV-cache of {sharers}
into that of {receiver}, which answers on the fused cache; the models exchange no text. This directory holds the fuser
alone; the language models are loaded by name.

```python
from c2c_lightning import C2CModel

model = C2CModel.from_pretrained("DIRECTORY_OR_HUB_ID")
print(model.chat([[{{"role": "user", "content": "What is the capital of France?"}}]], max_new_tokens=64)[0])
```

## Models

{models}

## Fuser

{fuser}

## Training

{training}

## Results

{results}
"""

_NO_RESULTS = "Not recorded. `lightning export --fuser DIRECTORY --report REPORT` adds those of `lightning test`."


def model_card(
    description: FuserDescription,
    num_parameters: int,
    results: str = _NO_RESULTS,
    accuracies: Mapping[str, float] | None = None,
) -> str:
    """The text of `README.md`, with the metadata that the hub reads.

    Args:
        description: the fuser.
        num_parameters: its number of parameters.
        results: text of the section on results.
        accuracies: accuracy of C2C by benchmark, between 0 and 1, for the hub's list of results.
    """
    models = [description.receiver, *description.sharers]
    training = description.training
    metadata = ModelCardData(
        library_name="c2c_lightning",
        tags=["cache-to-cache", "kv-cache", "multi-agent"],
        # The hub refuses names that are local paths.
        base_model=sorted({model.name for model in models if _is_hub_id(model.name)}) or None,
        datasets=[training.data] if training and training.data and _is_hub_id(training.data) else None,
        # The hub lists results under a name.
        model_name=f"Fuser for {_short(description.receiver)}" if accuracies else None,
        eval_results=[_eval_result(name, value) for name, value in (accuracies or {}).items()] or None,
    )
    body = _BODY.format(
        receiver=_short(description.receiver),
        sharers=" and ".join(_short(sharer) for sharer in description.sharers),
        models=_model_table(models),
        fuser=_fuser_table(description, num_parameters),
        training=_training_text(training),
        results=results,
    )
    return str(ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{body}"))


def _eval_result(benchmark: str, accuracy: float) -> EvalResult:
    return EvalResult(
        task_type="text-generation",
        dataset_type=benchmark,
        dataset_name=benchmark,
        metric_type="accuracy",
        metric_value=round(accuracy, 4),
    )


def _is_hub_id(name: str) -> bool:
    return _HUB_ID.fullmatch(name) is not None and not Path(name).exists()


def _short(model: ModelReference) -> str:
    return model.name.rstrip("/").rsplit("/", 1)[-1]


def card_table(header: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    """A table in Markdown."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _model_table(models: list[ModelReference]) -> str:
    roles = ["receiver", *("sharer" for _ in models[1:])]
    rows: list[tuple[object, ...]] = []
    for role, model in zip(roles, models, strict=True):
        layers = model.geometry.layers
        heads, widths = _all_of(layer.kv_heads for layer in layers), _all_of(_width(layer) for layer in layers)
        rows.append((role, _short(model), model.revision or "", len(layers), heads, widths))
    return card_table(("role", "model", "revision", "layers", "KV heads", "head width"), rows)


def _all_of(values: Iterable[object]) -> str:
    return " or ".join(dict.fromkeys(map(str, values)))


def _width(layer: LayerGeometry) -> str:
    return str(layer.key_dim) if layer.key_dim == layer.value_dim else f"{layer.key_dim} and {layer.value_dim}"


def _fuser_table(description: FuserDescription, num_parameters: int) -> str:
    config, sharers = description.config, description.sharers
    rows: list[tuple[object, ...]] = [
        ("parameters", f"{num_parameters:,}"),
        ("token alignment", f"`{config.token_alignment}`"),
        ("fused tokens", f"`{config.fusion_mode}`"),
    ]
    for sharer, layer_map, (kind, settings) in zip(
        sharers, description.layer_maps, config.kinds(len(sharers)), strict=True
    ):
        values = ", ".join(f"{name} {value}" for name, value in asdict(settings).items())
        rows.append((f"kind of the fuser of {_short(sharer)}", f"`{kind_name(kind)}` ({values})"))
        shown = " ".join("-" if source is None else str(source) for source in layer_map)
        rows.append((f"layers of {_short(sharer)} for receiver layers 0, 1, ...", shown))
    return card_table(("setting", "value"), rows)


def _training_text(training: TrainingRecord | None) -> str:
    if training is None:
        return "No record."
    known = {
        "data": training.data,
        "optimizer steps": training.steps,
        "examples": training.examples,
        **training.settings,
    }
    rows: list[tuple[object, ...]] = [(name, value) for name, value in known.items() if value is not None]
    rows += [(name, f"{value:.4g}" if isinstance(value, float) else value) for name, value in training.results.items()]
    return card_table(("training", "value"), rows)
