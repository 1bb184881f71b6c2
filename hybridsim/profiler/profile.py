"""A spec, a device and a workload in; one record of costs out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from hybridsim.cost.crossover import DEFINITIONS, crossover_tokens
from hybridsim.cost.model import ModelCosts
from hybridsim.cost.op import Deployment
from hybridsim.cost.roofline import answer_weights
from hybridsim.errors import SpecError
from hybridsim.fields import parse_dataclass
from hybridsim.graph import build_graph
from hybridsim.hardware import Hardware, parse_hardware
from hybridsim.measure.estimate import BlockTimes
from hybridsim.measure.model_times import ModelTimes, device_times
from hybridsim.measure.point import DECODE, PHASES, PREFILL, Point
from hybridsim.options import read_option
from hybridsim.origin import git_revision, host, versions
from hybridsim.profiler.cpu import measure_cpu
from hybridsim.profiler.flops import flop_record
from hybridsim.profiler.payoff import payoff
from hybridsim.profiler.serving import Serving
from hybridsim.profiler.settings import ProfileSettings
from hybridsim.profiler.tables import kind_rows, node_rows, point_rows
from hybridsim.spec.load import load_spec
from hybridsim.spec.parse import spec_dict
from hybridsim.spec.schema import ModelSpec
from hybridsim.workload import Workload, parse_workload

SCHEMA = "hybridsim/profile/1"


@dataclass(frozen=True)
class Profile:
    """What one run found.

    Attributes:
        document: the JSON document, schema `hybridsim/profile/1`.
        nodes: one row per node of the graph.
        sweep: one row per context and batch size, the all-full twin's cache beside it.
    """

    document: dict[str, Any]
    nodes: list[dict[str, Any]]
    sweep: list[dict[str, Any]]

    def _repr_html_(self) -> str:
        """Return the tables and the picture of the cache, as Jupyter shows them."""
        # By name: what draws a record stands above what makes it.
        notebook = import_module("hybridsim.report.notebook")
        return str(notebook.profile_html(self.document, self.sweep))


def profile(
    spec: ModelSpec | str | Path | Mapping[str, Any],
    *,
    hardware: Hardware | str | Mapping[str, Any] = "h200",
    workload: Workload | str | Mapping[str, Any] = "chat",
    overrides: Sequence[str] = (),
    measure: bool = False,
    **settings: Any,
) -> Profile:
    """Return the costs of a spec on a device and for a workload.

    Args:
        spec: a spec, or what `load_spec` takes.
        hardware: a device, its name in conf/hardware, or its fields.
        workload: a workload, its name in conf/workload, or its fields.
        overrides: changes to the spec, as in `load_spec`; recorded too.
        measure: measure what the store lacks first; the device has to be this machine's.
        **settings: fields of ProfileSettings, e.g. `contexts=[4096], batch_sizes=[1, 8]`.

    Raises:
        SpecError: something given does not fit.
        HybridsimError: `measure` without that device.
        UncountedOperatorError: the model uses an operator without a counting rule.
    """
    if isinstance(spec, ModelSpec) and overrides:
        raise SpecError(f"overrides={list(overrides)}: change the spec itself instead")
    chosen = spec if isinstance(spec, ModelSpec) else load_spec(spec, overrides)
    return profile_spec(chosen, hardware, workload, overrides, settings, measure=measure)


def profile_spec(
    spec: ModelSpec,
    hardware: Hardware | str | Mapping[str, Any],
    workload: Workload | str | Mapping[str, Any],
    overrides: Sequence[str],
    settings: Mapping[str, Any],
    *,
    measure: bool = False,
) -> Profile:
    """Return the costs of a spec to which the overrides were already applied: see `profile`."""
    parsed: ProfileSettings = parse_dataclass(ProfileSettings, settings, "")
    device, load = _hardware(hardware), _workload(workload)
    if measure:
        from hybridsim.measure.missing import measure_missing  # torch

        measure_missing(spec, device, profiled_points(load, parsed), parsed.dtypes)
    return _profile(spec, device, load, parsed, overrides)


def profiled_points(workload: Workload, settings: ProfileSettings) -> list[Point]:
    """Return the points of a model that a profile takes the time of."""
    asked = [
        (phase, batch, context)
        for phase in PHASES
        for context in settings.contexts
        for batch in settings.batch_sizes
    ]
    prompt, together = workload.prompt_tokens, workload.concurrency
    asked += [(PREFILL, 1, prompt), (DECODE, together, prompt)]
    asked += [(DECODE, together, prompt + n) for _, n in answer_weights(workload.output_tokens)]
    return list(dict.fromkeys(Point(*point, settings.routing_skew) for point in asked))


def _hardware(given: Hardware | str | Mapping[str, Any]) -> Hardware:
    if isinstance(given, Hardware):
        return given
    fields = dict(read_option("hardware", given) if isinstance(given, str) else given)
    return parse_hardware(measure_cpu(fields) if fields.get("name") == "cpu" else fields)


def _workload(given: Workload | str | Mapping[str, Any]) -> Workload:
    if isinstance(given, Workload):
        return given
    return parse_workload(read_option("workload", given) if isinstance(given, str) else given)


def _profile(
    spec: ModelSpec,
    hardware: Hardware,
    workload: Workload,
    settings: ProfileSettings,
    overrides: Sequence[str],
) -> Profile:
    graph, deployment = build_graph(spec), settings.deployment()
    costs, twin_spec = ModelCosts.of(graph), spec.all_full_twin()
    blocks = device_times(hardware, deployment)
    times = ModelTimes(graph, deployment, hardware, blocks)
    serving = Serving(costs, deployment, hardware, spec.native_context, times)
    twin = None
    if twin_spec is not None:
        twin_graph = build_graph(twin_spec)
        twin_times = ModelTimes(twin_graph, deployment, hardware, blocks)
        twin = Serving(ModelCosts.of(twin_graph), deployment, hardware, times=twin_times)
    nodes = node_rows(graph, workload, times)
    points = [serving.point(n, b) for n in settings.contexts for b in settings.batch_sizes]
    document = {
        "schema": SCHEMA,
        "spec": _spec_record(spec, twin_spec),
        "parameters": {**asdict(costs.parameters), "by_part": dict(costs.parameters_by_part())},
        "cache": _cache_record(costs, deployment),
        "flops": flop_record(graph, settings.flops, deployment.conventions),
        "kinds": kind_rows(graph, nodes),
        "points": points,
        "crossover_tokens": crossover_tokens(spec, deployment, hardware, settings.batch_sizes[0]),
        "crossover_definitions": DEFINITIONS,
        "workload": serving.workload(workload),
        "payoff": payoff(serving, twin, workload, settings.utilisation),
        "hardware": asdict(hardware),
        "measurements": _measurements_record(blocks),
        "settings": asdict(settings),
        "overrides": list(overrides),
        "versions": versions(),
        "git_revision": git_revision(),
        "host": host(),
    }
    return Profile(
        document=document,
        nodes=nodes,
        sweep=point_rows(points, serving, twin),
    )


def _measurements_record(blocks: BlockTimes | None) -> dict[str, Any] | None:
    """Return what the times come from where not all are modelled."""
    if blocks is None:
        return None
    return {
        "rows": blocks.num_rows,
        "sessions": [asdict(session) for session in blocks.sessions],
        "held_out": blocks.coverage(),
    }


def _spec_record(spec: ModelSpec, twin: ModelSpec | None) -> dict[str, Any]:
    return {
        "name": spec.name,
        "description": spec.description,
        "layer_pattern": spec.layer_letters,
        "ffn_pattern": spec.ffn_letters,
        "num_layers": spec.num_layers,
        "native_context": spec.native_context,
        "hidden_size": spec.hidden_size,
        "vocab_size": spec.vocab_size,
        "published": spec.published,
        "all_full_twin": None if twin is None else twin.layer_letters,
        "fields": spec_dict(spec),
    }


def _cache_record(costs: ModelCosts, deployment: Deployment) -> dict[str, Any]:
    dtypes = deployment.dtypes
    used = [op.settings for op in costs.ops]
    return {
        "kv_bytes_per_token": costs.kv_bytes_per_token(dtypes),
        "window_bytes_per_sequence": costs.window_bytes(dtypes),
        "state_bytes_per_sequence": costs.state_bytes(dtypes),
        "kv_dtype": dtypes.kv,
        "index_key_dtypes": sorted(
            {str(dtype) for s in used if (dtype := getattr(s, "index_key_dtype", None))}
        ),
        "state_dtype": dtypes.state,
        "conv_state_dtype": dtypes.conv_state,
        "provenance": "closed form, exact",
    }
