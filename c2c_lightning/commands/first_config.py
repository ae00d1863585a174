"""The configuration that `lightning init` writes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from c2c_lightning.alignment.strategy import TokenAlignment
from c2c_lightning.data.sources.detect import SourceChoice
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.lm_spec import LMSpec

FEWEST_STEPS, USUAL_STEPS, MOST_STEPS = 50, 300, 2000
"""Optimizer steps of a first run: at least, to repeat rows up to, and at most; the paper trains for 1,929."""
MOST_PASSES = 10
"""Passes over few rows; more of them raise the validation loss again."""
LARGEST_BATCH = 8
LARGEST_RANK = 128
"""Rank of the smaller published low-rank fuser, for keys of width 1,024."""
LEARNING_RATE = 0.001
"""The paper's 1e-4 is for a wider fuser and more than six times the steps."""
FUSER_CHOICE = "docs/fusers.md: 4.9 % of the parameters of kind: c2c had 99.2 % of answers right, c2c 99.7 %"


@dataclass(frozen=True)
class FirstConfig:
    """Choices of a first run; what is not among them are the defaults of `lightning fit`.

    Attributes:
        receiver: the model that answers.
        sharers: the models that share their caches.
        source: the training data.
        num_rows: its rows, None for a stream.
        kv_width: elements of one token's keys or values, whichever are fewer, in the receiver's narrowest layer.
        token_alignment: how the tokens of the models are aligned.
        run_folder: where the run writes.
    """

    receiver: LMSpec
    sharers: tuple[LMSpec, ...]
    source: SourceChoice
    num_rows: int | None
    kv_width: int
    token_alignment: TokenAlignment
    run_folder: str

    @property
    def batch_size(self) -> int:
        """Rows of a step: fewer where there are hardly any."""
        return LARGEST_BATCH if self.num_rows is None else max(1, min(LARGEST_BATCH, self.num_rows // 4))

    @property
    def validation_share(self) -> float:
        """Share of the rows that is held out; more of few rows, which are chosen by chance and may be fewer."""
        if self.num_rows is None or self.num_rows >= 5000:
            return 0.01
        return 0.1 if self.num_rows >= 100 else 0.2

    @property
    def max_steps(self) -> int:
        """Optimizer steps: all rows once, few rows several times, within limits."""
        epoch = MOST_STEPS if self.num_rows is None else math.ceil(self.num_rows / self.batch_size)
        return min(max(epoch, FEWEST_STEPS, min(USUAL_STEPS, MOST_PASSES * epoch)), MOST_STEPS)

    @property
    def fuser(self) -> FuserConfig:
        """A small fuser, the choice of docs/fusers.md; open gates at the start, since few steps hardly move a gate."""
        return FuserConfig(
            kind="low_rank",
            options={"rank": self.rank},
            token_alignment=self.token_alignment,
            gate_init=1.0,
            anneal_steps=self.max_steps,
        )

    @property
    def rank(self) -> int:
        """Keys and values have half of the rank each: at most a quarter of the receiver's dimensions."""
        return max(2, min(LARGEST_RANK, self.kv_width // 4 * 2))

    def render(self, file: str, expectation: str) -> str:
        """The YAML text, of at most 20 lines.

        Args:
            file: name of the file, for the command in its head.
            expectation: size and time to expect, for its head.
        """
        fuser = {
            name: getattr(self.fuser, name)
            for name in ("kind", "options", "token_alignment", "gate_init", "anneal_steps")
        }
        optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": LEARNING_RATE, "weight_decay": 0.01}}
        export = "c2c_lightning.training.callbacks.export_fuser.ExportFuser"
        return f"""\
# Written by `lightning init`. Run it: lightning fit --config {file}
# {expectation}
seed_everything: 42
model:
  receiver: {_flow(_spec(self.receiver))} # answers
  sharers: {_flow([_spec(spec) for spec in self.sharers])} # read the prompt and share their KV-caches
  fuser: # {FUSER_CHOICE}
    {_flow(fuser)}
  optimizer: {_flow(optimizer)}
data:
  train: {_flow(self.source.to_yaml())}
  validation_share: {self.validation_share} # of the rows; they are not trained on
  batch_size: {self.batch_size} # rows of a step
trainer:
  default_root_dir: {_flow(self.run_folder)} # checkpoints, fuser, metrics.csv
  max_steps: {self.max_steps}
  val_check_interval: {self.max_steps // 10} # steps between validations
  check_val_every_n_epoch: null
  enable_model_summary: false
  callbacks: {_flow([{"class_path": export}])}
"""


def _spec(spec: LMSpec) -> dict[str, Any]:
    template = {} if spec.prompt_template is None else {"prompt_template": spec.prompt_template}
    return {"path": spec.path, **template}


def _flow(value: dict[str, Any] | Sequence[Any] | str) -> str:
    """A value as YAML in one line."""
    (line,) = yaml.safe_dump([value], default_flow_style=True, sort_keys=False, width=math.inf).splitlines()
    return line[1:-1]
