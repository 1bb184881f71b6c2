"""The closed forms of models as data: what a page needs to cost any pattern at any context.

Every figure of an op is traced (see trace.py) as a form of the context, the batch size and the
model's sizes. How ops add up to a model is not part of it: see model.py and roofline.py.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from hybridsim.conventions import SERVED
from hybridsim.cost.op import Deployment, OpCost, op_cost
from hybridsim.cost.trace import Forms
from hybridsim.dtypes import BYTES_PER_ELEMENT, Dtypes
from hybridsim.ffn import FfnSettings
from hybridsim.graph import MIXER, Op, layer_ops, outer_ops
from hybridsim.mixers import MixerSettings, mixer_cost
from hybridsim.spec.pattern import NOTHING
from hybridsim.spec.schema import ModelSpec
from hybridsim.steps import Step, decode, prefill

CONTEXT, BATCH = "context", "batch"
PHASES: dict[str, Callable[[int], Step]] = {"prefill": prefill, "decode": decode}
# What an implementation chooses, or where 1 is not a size: kept as the spec has it.
FIXED_FIELDS = ("chunk_size", "num_groups", "topk_groups", "norm_groups", "seed")
OUTER_SIZES = ("hidden_size", "vocab_size")

Settings = MixerSettings | FfnSettings
Figure = Callable[[OpCost, Any, Any], Any]  # costs, context, batch -> number


@dataclass(frozen=True)
class _Sized:
    """An op whose sizes are inputs: field -> name of the input.

    Attributes:
        op: with the spec's own numbers.
        outer: sizes of the op itself.
        inner: sizes of its settings.
    """

    op: Op
    outer: Mapping[str, str]
    inner: Mapping[str, str]

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs, each once."""
        return list(dict.fromkeys([*self.outer.values(), *self.inner.values()]))

    def with_sizes(self, sizes: Mapping[str, Any]) -> Op:
        """Return the op with other numbers; what is no number yet cannot be checked."""
        changed = {field: sizes[name] for field, name in self.outer.items()}
        settings = self.op.settings
        if settings is not None:
            settings = copy.copy(settings)
            for field, name in self.inner.items():
                object.__setattr__(settings, field, sizes[name])
        return replace(self.op, settings=settings, **changed)


def model_forms(spec: ModelSpec, forms: Forms, deployment: Deployment) -> dict[str, Any]:
    """Return the closed forms of a spec, for every layer that its letters can make.

    Args:
        spec: the model; a letter of its all-full twin's attention is added where it needs one.
        forms: takes the nodes.
        deployment: how it is served; weights, kv, state and activations are left open.

    Returns:
        Plain data. `ops` has the positions of nodes; `layers` and `outer` say how often each op
        occurs in a layer with two letters and outside of the layers.
    """
    twin = spec.all_full_twin()
    wide = spec
    if twin is not None:
        wide = replace(spec, mixers=twin.mixers, norm_placement=twin.norm_placement)
    sizes = _Sizes(wide)
    ops: dict[Op, int] = {}

    def counted(counts: Mapping[Op, int]) -> list[list[int]]:
        return [[ops.setdefault(op, len(ops)), n] for op, n in counts.items()]

    layers = {
        letter: {ffn: counted(layer_ops(wide, letter, ffn)) for ffn in _partners(wide, letter)}
        for letter in (*wide.mixers, *wide.parallel, *wide.ffns)
    }
    outer = counted(outer_ops(wide))
    exporter = _Exporter(forms, replace(deployment, conventions=SERVED))
    return {
        "layer_pattern": spec.layer_letters,
        "ffn_pattern": spec.ffn_letters,
        "twin_pattern": None if twin is None else twin.layer_letters,
        "chunk_size": max((getattr(s, "chunk_size", 0) for s in spec.mixers.values()), default=0),
        "sizes": sizes.values,
        "layers": layers,
        "outer": outer,
        "ops": [exporter.op(sizes.sized(op)) for op in ops],
    }


def _partners(spec: ModelSpec, letter: str) -> list[str]:
    """Return the letters of the feed-forward pattern that may stand beside a layer's letter."""
    return [NOTHING] if letter in spec.ffns else [*spec.ffns, NOTHING]


class _Sizes:
    """Names and numbers of a spec's sizes.

    Letters of one meaning share their sizes: an all-full twin's attention keeps the numbers of the
    mixer that it is made from.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self.values: dict[str, int] = {name: getattr(spec, name) for name in OUTER_SIZES}
        self._names: dict[str, dict[str, str]] = {}
        for group, table in (("mixers", spec.mixers), ("ffns", spec.ffns)):
            for letter, settings in table.items():
                self._names[letter] = self._letter(spec, group, letter, settings)

    def _letter(
        self, spec: ModelSpec, group: str, letter: str, settings: Settings
    ) -> dict[str, str]:
        names = {}
        for field in fields(settings):
            value = getattr(settings, field.name)
            if type(value) is not int or value < 2 or field.name in FIXED_FIELDS:
                continue
            owner = _origin(spec, letter, field.name) if group == "mixers" else letter
            names[field.name] = f"{group}.{owner}.{field.name}"
            self.values.setdefault(names[field.name], value)
        return names

    def sized(self, op: Op) -> _Sized:
        """Return an op with its sizes as inputs."""
        outer = {name: name for name in OUTER_SIZES if getattr(op, name)}
        return _Sized(op, outer, self._names.get(op.letter, {}))


def _origin(spec: ModelSpec, letter: str, field: str) -> str:
    """Return the first letter whose full form is this one's settings, with the same size."""
    mine = spec.mixers[letter]
    for other, settings in spec.mixers.items():
        if settings.full_twin() == mine and getattr(settings, field, None) == getattr(mine, field):
            return other
    return letter


class _Exporter:
    """Traces the figures of ops.

    Args:
        forms: takes the nodes.
        deployment: conventions and routing.
    """

    def __init__(self, forms: Forms, deployment: Deployment) -> None:
        self.forms = forms
        self.deployment = deployment

    def op(self, sized: _Sized) -> dict[str, Any]:
        """Return the positions of an op's figures."""

        def form(figure: Figure) -> int:
            return self._form(sized, figure)

        kept = {dtype: Dtypes(kv=dtype, state=dtype) for dtype in BYTES_PER_ELEMENT}
        return {
            "kind": sized.op.kind,
            "title": sized.op.title,
            "part": sized.op.part,
            "letter": sized.op.letter,
            "parameters": form(lambda cost, n, b: cost.parameters),
            "active_parameters": form(lambda cost, n, b: cost.active_parameters),
            "peak_elements_per_token": form(lambda cost, n, b: cost.peak_elements_per_token),
            "kv_bytes": {
                dtype: form(lambda cost, n, b, d=d: cost.cache(d).kv_bytes(n))  # type: ignore[misc]
                for dtype, d in kept.items()
            },
            "state_bytes": {
                dtype: form(lambda cost, n, b, d=d: cost.cache(d).state_bytes)  # type: ignore[misc]
                for dtype, d in kept.items()
            },
            "mixing_flops": self._mixing(sized),
            **{phase: self._phase(sized, step) for phase, step in PHASES.items()},
        }

    def _form(self, sized: _Sized, figure: Figure) -> int:
        def figure_of(context: Any, batch: Any, *sizes: Any) -> Any:
            op = sized.with_sizes(dict(zip(sized.inputs, sizes, strict=True)))
            return figure(op_cost(op), context, batch)

        return self.forms.trace(figure_of, CONTEXT, BATCH, *sized.inputs)

    def _mixing(self, sized: _Sized) -> int | None:
        """Return the FLOPs of a prefill between a mixer's projections; None for another op."""
        if sized.op.kind != MIXER:
            return None

        def core(context: Any, batch: Any, *sizes: Any) -> Any:
            op = sized.with_sizes(dict(zip(sized.inputs, sizes, strict=True)))
            cost = mixer_cost(op.settings, op.hidden_size)
            return cost.core_flops(prefill(context), self.deployment.conventions)

        return self.forms.trace(core, CONTEXT, BATCH, *sized.inputs)

    def _phase(self, sized: _Sized, step: Callable[[int], Step]) -> dict[str, Any]:
        """Return FLOPs and elements of one phase, and cache traffic by dtypes of kv and state."""
        deployment = self.deployment
        return {
            "flops": self._form(
                sized, lambda cost, n, b: cost.flops(step(n), deployment.conventions)
            ),
            "weight_elements": self._form(
                sized, lambda cost, n, b: cost.weight_elements(step(n), b, deployment)
            ),
            "activation_elements": self._form(
                sized, lambda cost, n, b: cost.activation_elements(step(n), deployment.conventions)
            ),
            "cache_bytes": self._traffic(sized, step) if sized.op.kind == MIXER else None,
        }

    def _traffic(self, sized: _Sized, step: Callable[[int], Step]) -> dict[str, dict[str, int]]:
        widths: dict[tuple[float, float], int] = {}

        def form(kv: str, state: str) -> int:
            # Formats of one width move the same bytes.
            width = BYTES_PER_ELEMENT[kv], BYTES_PER_ELEMENT[state]
            if width not in widths:
                dtypes = Dtypes(kv=kv, state=state)
                widths[width] = self._form(
                    sized, lambda cost, n, b: cost.cache_bytes(step(n), dtypes)
                )
            return widths[width]

        return {
            kv: {state: form(kv, state) for state in BYTES_PER_ELEMENT} for kv in BYTES_PER_ELEMENT
        }
