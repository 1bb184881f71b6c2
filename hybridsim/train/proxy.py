"""What a proxy is: the sizes of the small model, its tasks, and how it is trained. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hybridsim.components import (
    require_at_least,
    require_choice,
    require_multiple,
    require_positive,
)
from hybridsim.errors import SpecError, bad_value, unknown
from hybridsim.fields import parse_dataclass, settings_dict
from hybridsim.hydra_errors import explain
from hybridsim.options import option_names
from hybridsim.paths import CONF_DIR
from hybridsim.spec.load import fresh_hydra

if TYPE_CHECKING:
    from hybridsim.train.tasks import Task

OPTIMIZERS = ("adamw", "muon")
DEVICES = ("cpu", "cuda")
PRECISIONS = ("fp32", "tf32", "bf16")
PRESSURES = (0.5, 1.0, 2.0, 4.0)  # associations for each that a state keeps: tasks/pressure.py
WORKLOAD = "workload"  # the pressure that a workload puts on the full model


@dataclass(frozen=True)
class ModelSize:
    """Sizes that every model of a proxy has, whatever its mixers.

    Attributes:
        hidden_size: width D.
        num_layers: layers, each a mixer and, with `ffn_ratio`, a feed-forward.
        num_heads: heads H of every mixer.
        head_dim: channels K of a key; value channels keep their ratio to it.
        ffn_ratio: width of the dense feed-forward over `hidden_size`; 0 for none.
        conv_size: taps of the short convolution that mixers without one get; 0 for none.
        chunk_size: tokens of a chunk of linear attention's parallel form, a multiple of 16.
        min_window: tokens that a window, or a selection, has at least.
    """

    hidden_size: int
    num_layers: int
    num_heads: int
    head_dim: int
    ffn_ratio: float = 0.0
    conv_size: int = 4
    chunk_size: int = 32
    min_window: int = 8

    def __post_init__(self) -> None:
        require_positive(
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            head_dim=self.head_dim,
            chunk_size=self.chunk_size,
            min_window=self.min_window,
        )
        require_at_least(0, conv_size=self.conv_size)
        if not self.ffn_ratio >= 0:
            raise bad_value("ffn_ratio", self.ffn_ratio, "must be at least 0")
        require_multiple("head_dim", self.head_dim, "a rotated pair and its half", 4)
        require_multiple("chunk_size", self.chunk_size, "the sub-block", 16)


@dataclass(frozen=True)
class Training:
    """How every model of a proxy is trained.

    Attributes:
        optimizer: "muon" (matrices between hidden layers; AdamW for the rest) or "adamw".
        learning_rate: peak rate of a mixer kind without a measured one.
        learning_rates: the grid that measures a kind's rate.
        output_rate_share: of a layer's rate, what the projections out of its sublayers get. Below
            1 what layers add to each other's inputs moves slowly: else a full layer above others
            learns recall late, for what they add changes before they have learnt anything.
        weight_decay: of both optimizers.
        steps: optimizer steps at most.
        warmup_steps: steps of linear warm-up.
        decay_share: share of the steps, at the end, over which the rate falls to zero.
        batch_size: sequences of a step.
        curriculum_steps: steps until a task has its full difficulty; 0 for none.
        curriculum_stages: sizes on the way there: each is one shape of tensors.
        evaluate_every: steps between looks at the validation sequences.
        validation_size: held-out sequences of such a look.
        test_size: other held-out sequences, of the score.
        stop_at: validation score at which a model has learnt the task and stops.
        clip: largest norm of a model's gradient.
    """

    optimizer: str = "adamw"
    learning_rate: float = 1e-2
    learning_rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2)
    output_rate_share: float = 1.0
    weight_decay: float = 0.1
    steps: int = 300
    warmup_steps: int = 10
    decay_share: float = 0.0
    batch_size: int = 32
    curriculum_steps: int = 100
    curriculum_stages: int = 5
    evaluate_every: int = 20
    validation_size: int = 64
    test_size: int = 256
    stop_at: float = 0.99
    clip: float = 1.0

    def __post_init__(self) -> None:
        require_choice("optimizer", self.optimizer, OPTIMIZERS)
        require_positive(
            learning_rate=self.learning_rate,
            output_rate_share=self.output_rate_share,
            steps=self.steps,
            batch_size=self.batch_size,
            curriculum_stages=self.curriculum_stages,
            evaluate_every=self.evaluate_every,
            validation_size=self.validation_size,
            test_size=self.test_size,
            stop_at=self.stop_at,
            clip=self.clip,
        )
        require_at_least(0, warmup_steps=self.warmup_steps, curriculum_steps=self.curriculum_steps)
        for rate in self.learning_rates:
            require_positive(learning_rates=rate)
        if not 0 <= self.weight_decay < 1:
            raise bad_value("weight_decay", self.weight_decay, "must be in [0, 1)")
        if not 0 <= self.decay_share <= 1:
            raise bad_value("decay_share", self.decay_share, "must be in [0, 1]")


@dataclass(frozen=True)
class ProxySettings:
    """A proxy: small models, tasks, seeds.

    Attributes:
        name: how commands call it.
        title: how tables call it.
        model: sizes of its models.
        training: how they are trained.
        tasks: settings of each task by its name in results, each with its `kind`; a task may
            override fields of `training` under that key, and `ffn_ratio` under `model`: what is
            learnt by heart, as a language's words are, needs feed-forwards, and recall costs
            less without.
        speed_tasks: names of tasks that the budget is too short for, as a validation has found:
            their scores say how soon a model learns, not what it can do. They are trained and
            shown, but count neither in a summary nor in an order of models.
        seeds: trainings of a candidate; each has weights and data of its own.
        precision: of matrix products by kind of device: "fp32", "tf32" or "bf16".
        models_at_once: models trained together at most, by kind of device.
        workers: processes that train on a CPU, at most; None for as many as there are cores, where
            that is worth their start.
        grid: whether learning rates that are not kept are measured first, see rates.py.
    """

    name: str
    model: ModelSize
    tasks: dict[str, Any]
    title: str = ""
    training: Training = field(default_factory=Training)
    speed_tasks: tuple[str, ...] = ()
    seeds: int = 3
    precision: dict[str, Any] = field(default_factory=lambda: {"cpu": "fp32", "cuda": "tf32"})
    models_at_once: dict[str, Any] = field(default_factory=lambda: {"cpu": 1, "cuda": 128})
    workers: int | None = None
    grid: bool = False

    def __post_init__(self) -> None:
        require_positive(seeds=self.seeds)
        if not self.tasks:
            raise bad_value("tasks", self.tasks, "a proxy needs one task or more")
        if self.workers is not None:
            require_at_least(1, workers=self.workers)
        for device in DEVICES:
            precision = str(self.precision.get(device))
            require_choice(f"precision.{device}", precision, PRECISIONS)
            models = self.models_at_once.get(device)
            if type(models) is not int or models < 1:
                raise bad_value(f"models_at_once.{device}", models, "must be at least 1")

    def task(self, name: str) -> Task:
        """Return a task; SpecError where its settings are wrong."""
        from hybridsim.train.tasks import parse_task

        fields = {k: v for k, v in self._fields(name).items() if k not in ("training", "model")}
        return parse_task(fields, f"proxy.tasks.{name}")

    def task_training(self, name: str) -> Training:
        """Return how a task is trained: the proxy's training with the task's own fields."""
        merged = {**settings_dict(self.training), **self._own(name, "training")}
        training: Training = parse_dataclass(Training, merged, f"proxy.tasks.{name}.training")
        return training

    def task_model(self, name: str) -> ModelSize:
        """Return the sizes of a task's models: the proxy's, with the task's own feed-forwards."""
        own = self._own(name, "model")
        for key in own:
            if key != "ffn_ratio":
                raise SpecError(
                    f"proxy.tasks.{name}.model.{key}: a task may only have its own ffn_ratio; all"
                    " else is the same in all tasks of a proxy"
                )
        merged = {**settings_dict(self.model), **own}
        size: ModelSize = parse_dataclass(ModelSize, merged, f"proxy.tasks.{name}.model")
        return size

    def _own(self, name: str, part: str) -> Mapping[str, Any]:
        """Return the fields of a part of the proxy that a task overrides."""
        own = self._fields(name).get(part) or {}
        if not isinstance(own, Mapping):
            raise bad_value(f"proxy.tasks.{name}.{part}", own, "must be a mapping of its fields")
        return own

    def _fields(self, name: str) -> Mapping[str, Any]:
        if name not in self.tasks or not isinstance(self.tasks[name], Mapping):
            raise SpecError(f"proxy.tasks.{name}={self.tasks.get(name)}: expected a task's fields")
        fields: Mapping[str, Any] = self.tasks[name]
        return fields

    def only(self, names: tuple[str, ...]) -> ProxySettings:
        """Return the proxy with some of its tasks."""
        return replace(
            self,
            tasks={name: dict(self._fields(name)) for name in names},
            speed_tasks=tuple(name for name in self.speed_tasks if name in names),
        )

    def counted_tasks(self) -> tuple[str, ...]:
        """Return the tasks whose scores say what a model can do; all where it has no such ones."""
        return tuple(name for name in self.tasks if name not in self.speed_tasks) or tuple(
            self.tasks
        )


def check_pressure(value: Any) -> float | str | None:
    """Return the option `pressure` of a command: None, "workload" or one of PRESSURES.

    Raises:
        SpecError: it is something else.
    """
    if value is None or value == WORKLOAD:
        found: str | None = value
        return found
    if isinstance(value, bool) or value not in PRESSURES:
        rungs = ", ".join(f"{rung:g}" for rung in PRESSURES)
        raise bad_value("pressure", value, f"must be one of {rungs}, {WORKLOAD}, or null")
    found_rung: float = value
    return found_rung


def parse_proxy(mapping: Any) -> ProxySettings:
    """Return the proxy that a mapping describes; SpecError for anything wrong in it."""
    proxy: ProxySettings = parse_dataclass(ProxySettings, mapping, "proxy")
    for name in proxy.speed_tasks:
        require_choice("proxy.speed_tasks", name, tuple(proxy.tasks))
    for name in proxy.tasks:
        proxy.task_training(name)
        proxy.task_model(name)
    return proxy


def load_proxy(name: str, overrides: Sequence[str] = ()) -> ProxySettings:
    """Return a shipped proxy.

    Args:
        name: an option of the config group.
        overrides: Hydra overrides without the leading `proxy.`, e.g. `["seeds=5"]`.

    Raises:
        SpecError: there is no such proxy, or an override does not fit.
    """
    if name not in option_names("proxy"):
        raise unknown("proxy", name, option_names("proxy"), "proxy")
    try:
        with fresh_hydra(), initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            found = compose("proxy_only", [f"proxy={name}", *(f"proxy.{o}" for o in overrides)])
        content = OmegaConf.to_container(found.proxy, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise SpecError(explain(error, {}) or str(error)) from None
    return parse_proxy(content)
