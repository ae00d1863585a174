"""Replicas of the server behind Ray Serve.

serve run c2c_lightning.serving.ray_deployment:build fuser=runs/quickstart/fuser replicas=2
"""

from typing import Any

from fastapi import FastAPI
from ray import serve

from c2c_lightning.serving.app import create_app
from c2c_lightning.serving.model_catalogue import ModelCatalogue, load_fusers
from c2c_lightning.serving.prefix_cache import PrefixCache


def replica_app(fusers: list[str], dtype: Any, device: str | None, prefix_cache_mib: int) -> FastAPI:
    """The app of one replica, with models of its own."""
    fused = load_fusers(fusers, dtype=dtype, device=device)
    return create_app(ModelCatalogue(fused, PrefixCache(prefix_cache_mib * 2**20)))


def build(args: dict[str, Any]) -> Any:
    """The application for `serve run` and for Ray's configuration files.

    Args:
        args: `fuser` (several separated by commas), `replicas`, `dtype`, `device`, `gpus` of each replica, and
            `prefix_cache_mib` of each.
    """
    mib = int(args.get("prefix_cache_mib", 512))
    parts = str(args["fuser"]).split(","), args.get("dtype"), args.get("device"), mib
    make: Any = serve.deployment
    deployment = make(
        num_replicas=int(args.get("replicas", 2)),
        max_ongoing_requests=256,
        ray_actor_options={"num_gpus": float(args.get("gpus", 0))},
    )
    return deployment(serve.ingress(lambda: replica_app(*parts))()).bind()
