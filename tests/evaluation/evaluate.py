"""An evaluation in processes of its own: `python evaluate.py '{"output": DIR, "devices": 2, ...}'`."""

import json
import sys
from typing import Any

import torch
from lightning import Trainer

from c2c_lightning.evaluation.benchmark_datamodule import BenchmarkDataModule
from c2c_lightning.evaluation.evaluation_module import EvaluationModule
from c2c_lightning.evaluation.tasks import Task
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.responders.registry import T2T


def main(output: str, devices: int, limit: int, batch_size: int) -> None:
    """Three responders of the embedded pair on a few questions."""
    torch.set_num_threads(1)
    pair: dict[str, Any] = {"receiver": LMSpec("embedded:receiver"), "sharers": [LMSpec("embedded:sharer")]}
    responders = ["receiver", "sharer", T2T("In one sentence: {question}", 16)]
    module = EvaluationModule(output, responders=responders, max_new_tokens=4, plots=False, **pair)
    strategy = "ddp" if devices > 1 else "auto"
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", devices=devices, strategy=strategy, use_distributed_sampler=False, **quiet)
    data = BenchmarkDataModule([Task("quickstart", limit=limit)], batch_size)
    trainer.test(module, datamodule=data, verbose=False)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
