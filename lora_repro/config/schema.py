"""The typed configuration that Hydra composes: what a run is, and its settings. No torch."""

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from lora_repro import machine as workers
from lora_repro.config import presets
from lora_repro.config.catalogue import HOME, SCALES, group_names, preset, preset_names
from lora_repro.config.identity import RUN_ID
from lora_repro.config.settings import ScaleConfig, Settings
from lora_repro.costs import budget
from lora_repro.errors import InputError, no_such_choice
from lora_repro.methods import METHODS, MethodConfig
from lora_repro.models.arch import Arch, ModelConfig
from lora_repro.tasks import FAMILIES, TaskConfig
from lora_repro.tasks.own_data.base import OwnConfig

SHORTEST = 3
"""Tokens of the shortest input: the marks of its two ends, and one between them."""


class Dtype(str, Enum):
    """Precision of frozen weights and of matrix products. Trained weights are fp32 in both."""

    bf16 = "bf16"
    fp32 = "fp32"


class Schedule(str, Enum):
    """How the learning rate changes after the warm-up."""

    linear = "linear"
    constant = "constant"


class InitHead(str, Enum):
    """What becomes of the head that `train.init_from` holds. The paper takes over the LoRA modules and says no more."""

    fitting = "fitting"
    """It is taken over where it is of the same labels; the authors' code asks for as many alone."""
    anew = "anew"
    """It is left out: the head is that of a run without a start."""


@dataclass
class TrainConfig:
    """How a run is trained. What a table of the paper prints has no default here; its value is in YAML."""

    epochs: int = MISSING
    """0 scores without training."""
    batch_size: int = MISSING
    learning_rate: float = MISSING
    warmup_ratio: float = MISSING
    """Fraction of all steps during which the learning rate rises linearly from 0."""
    schedule: Schedule = MISSING
    weight_decay: float = MISSING
    """AdamW's decay of matrices; biases and LayerNorms are left out, as in transformers' Trainer."""
    max_grad_norm: float | None = MISSING
    """Clips the gradient's norm over all trained parameters (null: no clipping)."""
    max_length: int = MISSING
    """In tokens; longer inputs are cut."""
    dtype: Dtype = MISSING
    max_steps: int | None = None
    """Ends the training after so many steps; the schedule is shortened with it."""
    warmup_steps: int | None = None
    """Replaces warmup_ratio."""
    head_learning_rate: float | None = None
    """Learning rate of the head (null: learning_rate)."""
    init_from: str | None = None
    """Start from the adapter and head of a run (its id or directory) or of a PEFT folder."""
    label_smoothing: float = 0.0
    """Of the loss that trains a text to be written: this share of each target token's weight goes to all tokens alike
    (LoRA paper, Table 11). Losses of dev and test are without it."""
    packing: bool = False
    """Of texts to be written: a batch is drawn at random, and not of like length, and its texts share rows, in which
    none sees another. The loss is that of the same batch with padding."""
    score_merged: bool = False
    """Dev and test are scored with W + dW as one matrix, as a model is deployed (LoRA paper, Section 4.1). In bf16 the
    sum is rounded once more."""
    init_head: InitHead = InitHead.fitting
    """Which head a run has that starts from another one: the start's if it fits, or one that is drawn anew."""

    def steps(self, examples: int) -> int:
        """Returns the number of optimizer steps of a run that trains on so many examples."""
        steps = self.epochs * math.ceil(examples / self.batch_size)
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def warmup(self, steps: int) -> int:
        """Returns during how many of its steps a run warms up."""
        return math.ceil(self.warmup_ratio * steps) if self.warmup_steps is None else self.warmup_steps

    def unreached(self, steps: int) -> str | None:
        """Says that a run ends before its learning rate is what it should be; None if it does not."""
        if self.warmup_steps is None or not 0 < steps <= self.warmup_steps:
            return None
        peak = self.learning_rate * (steps - 1) / self.warmup_steps
        return (
            f"train.warmup_steps={self.warmup_steps}: a run of {steps} steps never reaches train.learning_rate="
            f"{self.learning_rate:g}; the highest rate is {peak:.3g}. For a share of the steps give "
            "train.warmup_steps=null and train.warmup_ratio."
        )

    def check(self, arch: Arch, added_tokens: int = 0) -> None:
        """Refuses impossible values.

        Args:
            arch: The model's shapes.
            added_tokens: How many tokens the method puts in front of or behind an input.

        Raises:
            InputError: Naming the key, the value and what is possible.
        """
        head_rate = self.head_learning_rate if self.head_learning_rate is not None else self.learning_rate
        longest = arch.max_length - added_tokens
        if longest < SHORTEST:
            raise InputError(
                f"method: adds {added_tokens} tokens to an input, and the model reads {arch.max_length}: that leaves "
                f"fewer than the {SHORTEST} of the shortest input.\nTrain fewer tokens."
            )
        beside = f", beside the {added_tokens} that the method adds" if added_tokens else ""
        clip = self.max_grad_norm if self.max_grad_norm is not None else 1.0
        rules = [
            ("epochs", self.epochs >= 0, "0 (score only) or more"),
            ("batch_size", self.batch_size >= 1, "at least 1"),
            ("learning_rate", 0 < self.learning_rate < math.inf, "a finite number above 0"),
            ("head_learning_rate", 0 < head_rate < math.inf, "a finite number above 0, or null"),
            ("warmup_ratio", 0 <= self.warmup_ratio <= 1, "in [0, 1]"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "a finite number, 0 or more"),
            ("max_grad_norm", 0 < clip < math.inf, "a finite number above 0, or null"),
            ("max_length", SHORTEST <= self.max_length <= longest, f"from {SHORTEST} to {longest} tokens{beside}"),
            ("max_steps", self.max_steps is None or self.max_steps >= 1, "at least 1, or null"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "in [0, 1)"),
            ("warmup_steps", self.warmup_steps is None or self.warmup_steps >= 0, "0 or more, or null"),
        ]
        for key, holds, legal in rules:
            if not holds:
                raise InputError(f"train.{key}: must be {legal} (given: {getattr(self, key)}).")
        if self.init_head is InitHead.anew and self.init_from is None:
            raise InputError(
                "train.init_head=anew: is for a run that starts from another one; without one every head is drawn.\n"
                "Give the start: train.init_from=RUN, or leave train.init_head out."
            )


@dataclass
class Run:
    """What is computed: everything that can change a number, and nothing else. A run's id is made of it."""

    model: ModelConfig = MISSING
    task: TaskConfig = MISSING
    method: MethodConfig = MISSING
    train: TrainConfig = MISSING
    seed: int = MISSING

    @property
    def arch(self) -> Arch:
        """Shapes of the model with this task's head."""
        return self.model.arch(self.task.head_width)

    @property
    def changes(self) -> list[str]:
        """Names the changes of the code that change the numbers of runs of this kind alone. They enter the id.

        Which labels a start has, its id does not tell: those of another task, or of one's own data, may be others.
        """
        start, task = self.train.init_from or "", self.task
        takes_head = self.train.init_head is InitHead.fitting and task.head_width is not None
        may_differ = isinstance(task, OwnConfig) or not start.startswith(f"{self.model.name}-{task.name}-")
        if RUN_ID.fullmatch(start) and takes_head and may_differ:
            return [*task.changes, "a start's head is matched by the names of its labels"]
        return task.changes

    @property
    def train_examples(self) -> int | None:
        """Number of training examples, as far as it is known without reading the data."""
        return self.task.known_sizes().get("train")

    @property
    def unreached(self) -> str | None:
        """Says that the run ends before its learning rate is reached, as far as its steps are known."""
        return self.train.unreached(self.train.steps(self.train_examples or 0))

    @property
    def trained_by_method(self) -> int:
        """Number of weights that the method trains, without the head."""
        return self.method.count(self.arch).method

    @property
    def utilisation(self) -> float | None:
        """Trained weights as a fraction of the method's budget; None without a budget."""
        return budget.utilisation(self.method, self.arch)


@dataclass
class Config(Settings, Run):
    """The Hydra root: a Run and its settings."""


def register() -> None:
    """Registers the dataclasses with Hydra, under the names that conf/ uses."""
    store = ConfigStore.instance()
    store.store(name="config_schema", node=Config)
    store.store(group="model", name="model_schema", node=ModelConfig)
    store.store(group="train", name="train_schema", node=TrainConfig)
    for scale in SCALES:
        store.store(group="scale", name=scale, node=ScaleConfig(name=scale))
    for name, family in FAMILIES.items():
        store.store(group="task", name=f"{name}_schema", node=family)
    for name, method in METHODS.items():
        store.store(group="method", name=f"{name}_schema", node=method)
    for name in preset_names():
        store.store(group="preset", name=name, package="_global_", node={})  # what it sets is chosen by `printed`
    workers.register()
    OmegaConf.register_new_resolver("lora_repro_home", lambda: str(HOME), replace=True)
    OmegaConf.register_new_resolver("lora_repro_preset", preset, replace=True)
    OmegaConf.register_new_resolver("lora_repro_printed", presets.choose, replace=True)


def load_group(group: str, name: str) -> Any:
    """Returns the typed configuration of conf/<group>/<name>.yaml, without composing a whole configuration.

    Raises:
        InputError: If there is no such file.
    """
    names = group_names(group)
    if name not in names:
        raise InputError(no_such_choice(group, name, names))
    raw = OmegaConf.load(HOME / "conf" / group / f"{name}.yaml")
    assert isinstance(raw, DictConfig)
    schema = str(raw.pop("defaults")[0])
    node = ConfigStore.instance().load(f"{group}/{schema}.yaml").node
    return OmegaConf.to_object(OmegaConf.merge(node, raw))


register()
