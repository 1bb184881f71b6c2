"""A spec, a device and a workload in; one record of costs out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hybridsim.cost.crossover import DEFINITIONS, crossover_tokens
from hybridsim.cost.model import ModelCosts
from hybridsim.cost.op import Deployment
from hybridsim.errors import SpecError
from hybridsim.fields import parse_dataclass
from hybridsim.graph import build_graph
from hybridsim.hardware import Hardware, parse_hardware
from hybridsim.options import read_option
from hybridsim.origin import git_revision, host, versions
from hybridsim.profiler.cpu import measure_cpu
from hybridsim.profiler.flops import flop_record
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


def profile(
    spec: ModelSpec | str | Path | Mapping[str, Any],
    *,
    hardware: Hardware | str | Mapping[str, Any] = "h200",
    workload: Workload | str | Mapping[str, Any] = "chat",
    overrides: Sequence[str] = (),
    **settings: Any,
) -> Profile:
    """Return the costs of a spec on a device and for a workload.

    Args:
        spec: a spec, or what `load_spec` takes.
        hardware: a device, its name in conf/hardware, or its fields.
        workload: a workload, its name in conf/workload, or its fields.
        overrides: changes to the spec, as in `load_spec`; recorded too.
        **settings: fields of ProfileSettings, e.g. `contexts=[4096], batch_sizes=[1, 8]`.

    Raises:
        SpecError: something given does not fit.
        UncountedOperatorError: the model uses an operator without a counting rule.
    """
    if isinstance(spec, ModelSpec) and overrides:
        raise SpecError(f"overrides={list(overrides)}: change the spec itself instead")
    chosen = spec if isinstance(spec, ModelSpec) else load_spec(spec, overrides)
    return profile_spec(chosen, hardware, workload, overrides, settings)


def profile_spec(
    spec: ModelSpec,
    hardware: Hardware | str | Mapping[str, Any],
    workload: Workload | str | Mapping[str, Any],
    overrides: Sequence[str],
    settings: Mapping[str, Any],
) -> Profile:
    """Return the costs of a spec to which the overrides were already applied: see `profile`."""
    parsed: ProfileSettings = parse_dataclass(ProfileSettings, settings, "")
    return _profile(spec, _hardware(hardware), _workload(workload), parsed, overrides)


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
    serving = Serving(costs, deployment, hardware, spec.native_context)
    twin = None
    if twin_spec is not None:
        twin = Serving(ModelCosts.of(build_graph(twin_spec)), deployment, hardware)
    points = [serving.point(n, b) for n in settings.contexts for b in settings.batch_sizes]
    document = {
        "schema": SCHEMA,
        "spec": _spec_record(spec, twin_spec),
        "parameters": {**asdict(costs.parameters), "by_part": dict(costs.parameters_by_part())},
        "cache": _cache_record(costs, deployment),
        "flops": flop_record(graph, settings.flops, deployment.conventions),
        "kinds": kind_rows(graph, workload, deployment, hardware),
        "points": points,
        "crossover_tokens": crossover_tokens(spec, deployment, hardware, settings.batch_sizes[0]),
        "crossover_definitions": DEFINITIONS,
        "workload": serving.workload(workload),
        "hardware": asdict(hardware),
        "settings": asdict(settings),
        "overrides": list(overrides),
        "versions": versions(),
        "git_revision": git_revision(),
        "host": host(),
    }
    return Profile(
        document=document,
        nodes=node_rows(graph, workload, deployment, hardware),
        sweep=point_rows(points, serving, twin),
    )


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
