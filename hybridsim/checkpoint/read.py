"""Read the weights of a checkpoint folder into a model, one tensor at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from hybridsim.checkpoint import mxfp4
from hybridsim.errors import HybridsimError
from hybridsim.families.base import Arranged, Family, Names
from hybridsim.families.convert import import_config, read_config_file
from hybridsim.graph import MIXER
from hybridsim.model.build import empty_model
from hybridsim.model.model import HybridLM

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
SHOWN = 5  # names listed in a message before it is cut


class CheckpointError(HybridsimError):
    """A checkpoint that is not the model's: missing, unexpected or mis-shaped tensors, by name."""


class TensorFolder:
    """The tensors of a folder, in one file or several, read when asked for.

    Attributes:
        folder: where they lie.
        names: the published names of all; one stored in mxfp4 goes by its plain name.
    """

    def __init__(self, folder: str | Path, names: Family, files: ExitStack) -> None:
        self.folder = Path(folder)
        stored = self._find()
        self._stored_names = {names.published_name(name): name for name in stored}
        self._files = {name: stored[old] for name, old in self._stored_names.items()}
        self._packed = mxfp4.packed_names(self._files)
        self.names = (set(self._files) - set().union(*self._packed.values())) | set(self._packed)
        opened = {
            name: files.enter_context(safe_open(self.folder / name, framework="pt"))
            for name in sorted(set(stored.values()))
        }
        self._opened: dict[str, Any] = opened

    def _find(self) -> dict[str, str]:
        """Return the file of each tensor."""
        index, single = self.folder / INDEX, self.folder / SINGLE
        if index.is_file():
            found: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            return found
        if not single.is_file():
            raise CheckpointError(f"model={self.folder}: has neither {INDEX} nor {SINGLE}")
        with safe_open(single, framework="pt") as file:
            return dict.fromkeys(file.keys(), SINGLE)

    def read(self, name: str) -> Tensor:
        """Return one tensor, by its published name."""
        if name in self._packed:
            return mxfp4.dequantize(*map(self._read_stored, self._packed[name]))
        return self._read_stored(name)

    def _read_stored(self, name: str) -> Tensor:
        tensor: Tensor = self._opened[self._files[name]].get_tensor(self._stored_names[name])
        return tensor


def load_pretrained(
    folder: str | Path, device: str = "cpu", *, dtype: str | None = None
) -> HybridLM:
    """Return the model of a checkpoint folder: config.json and safetensors, sharded or not.

    Args:
        folder: what the reference implementation's `save_pretrained` writes, or a published one.
        device: "cpu" or "cuda".
        dtype: "fp64", "fp32", "bf16" or "fp16"; by default fp32 on a CPU, else bf16.

    Raises:
        SpecError: config.json does not read as a spec.
        CheckpointError: the weights are quantized, or tensors are missing, not expected or of
            another shape; all are named.
    """
    imported = import_config(folder)
    stored = read_config_file(folder).get("quantization_config")
    method = stored.get("quant_method", "unknown") if isinstance(stored, dict) else stored
    if stored and method != mxfp4.METHOD:
        raise CheckpointError(
            f"model={folder}: its weights are stored quantized (quantization_config.quant_method="
            f"{method}); only plain tensors and {mxfp4.METHOD} can be read"
        )
    return load_weights(empty_model(imported.spec, device, dtype=dtype), folder)


def parameter_sources(model: HybridLM, names: Family) -> dict[str, str | Arranged]:
    """Return, for each parameter and buffer of the model, its name or names in the checkpoint."""
    sources: dict[str, str | Arranged] = dict(names.model)
    if model.spec.tie_word_embeddings:
        del sources["head.weight"]
    for layer in range(model.spec.num_layers):
        sources |= _below(f"layers.{layer}", layer, names, names.layer)
    for node, op, place in model.graph.nodes():
        if place is None or op.settings is None:
            continue
        table = names.mixers if op.kind == MIXER else names.ffns
        if op.settings.kind not in table:
            raise CheckpointError(f"{node}: the family has no {op.settings.kind}")
        sources |= _below(node, place, names, table[op.settings.kind])
    return {name: sources[name] for name in model.state_dict() if name in sources}


def _below(ours: str, layer: int, family: Family, names: Names) -> dict[str, str | Arranged]:
    prefix = f"{family.layers}{layer}."

    def placed(source: str) -> str:
        forms = (form.split(" + ") for form in source.split(" | "))
        return " | ".join(" + ".join(prefix + part for part in parts) for parts in forms)

    return {
        f"{ours}.{name}": replace(source, source=placed(source.source))
        if isinstance(source, Arranged)
        else placed(source)
        for name, source in names.items()
    }


@torch.no_grad()
def load_weights(model: HybridLM, folder: str | Path) -> HybridLM:
    """Copy a checkpoint's weights into a model, in the model's dtypes and on its device.

    Memory beyond the model: one tensor of the checkpoint, or those of one rearranged parameter.

    Raises:
        CheckpointError: tensors are missing, not expected, or of another shape; all are named.
        SpecError: the family is not known.
    """
    names = import_config(folder).family
    targets = dict(model.state_dict(keep_vars=True))
    if model.spec.tie_word_embeddings:
        targets.pop("head.weight")
    sources = parameter_sources(model, names)
    settings = _settings(model)
    with ExitStack() as files:
        tensors = TensorFolder(folder, names, files)
        sources = {n: _stored_form(s, targets[n], tensors) for n, s in sources.items()}
        _check_names(model, targets, sources, tensors, names)
        for name, target in targets.items():
            source = sources[name]
            if isinstance(source, Arranged):
                found = _joined(_parts(source, target), tensors)
                arranged = source.arrange(found, settings(name))
                _copy(name, target, arranged, source.source)
            else:
                _copy_parts(name, target, source, tensors)
    return model


def _settings(model: HybridLM) -> Callable[[str], Any]:
    """Return a function from a parameter's name to the settings of its mixer or feed-forward."""
    nodes = {name: op.settings for name, op, _ in model.graph.nodes() if op.settings is not None}
    return lambda name: next(s for node, s in nodes.items() if name.startswith(f"{node}."))


def _parts(source: str | Arranged, target: Tensor) -> list[list[str]]:
    """Return the tensors of a source: for each expert, or once, those that are concatenated."""
    text = source.source if isinstance(source, Arranged) else source
    parts = text.split(" + ")
    if "{expert}" not in text:
        return [parts]
    return [[part.format(expert=e) for part in parts] for e in range(target.shape[0])]


def _stored_form(source: str | Arranged, target: Tensor, tensors: TensorFolder) -> str | Arranged:
    """Return the first of a source's forms whose tensors are all there, else the first form."""
    if isinstance(source, Arranged):
        return source
    forms = source.split(" | ")
    there = (
        form
        for form in forms
        if all(part in tensors.names for group in _parts(form, target) for part in group)
    )
    return next(there, forms[0])


def _check_names(
    model: HybridLM,
    targets: dict[str, Tensor],
    sources: dict[str, str | Arranged],
    tensors: TensorFolder,
    names: Family,
) -> None:
    unmapped = [name for name in targets if name not in sources]
    if unmapped:
        raise CheckpointError(f"model={tensors.folder}: no name for {_listed(unmapped)}")
    wanted = {
        part
        for name, target in targets.items()
        for group in _parts(sources[name], target)
        for part in group
    }
    missing = wanted - tensors.names
    if missing:
        raise CheckpointError(f"model={tensors.folder}: missing {_listed(missing)}")
    left_out = tuple(p.format(num_layers=model.spec.num_layers) for p in names.left_out)
    # A tied head may be stored all the same.
    tied = {str(names.model["head.weight"])} if model.spec.tie_word_embeddings else set()
    extra = {
        name
        for name in tensors.names - wanted - tied
        if not (name.endswith(names.derived) or name.startswith(left_out or ("\0",)))
    }
    if extra:
        raise CheckpointError(f"model={tensors.folder}: not expected {_listed(extra)}")


def _joined(groups: list[list[str]], tensors: TensorFolder) -> Tensor:
    """Return tensors concatenated, and stacked where there are several groups of them."""
    found = [torch.cat([tensors.read(part) for part in group]) for group in groups]
    return found[0] if len(found) == 1 else torch.stack(found)


def _copy_parts(name: str, target: Tensor, source: str, tensors: TensorFolder) -> None:
    """Copy a parameter's tensors into it one by one."""
    groups = _parts(source, target)
    experts = target.dim() == 3  # stacked, and stored the other way round
    slots = list(target) if "{expert}" in source else [target]
    for slot, group in zip(slots, groups, strict=True):
        place = slot.mT if experts else slot
        axis = place.dim() - 2 if experts else 0
        start = 0
        for part in group:
            found = tensors.read(part)
            rows = found.shape[axis] if len(group) > 1 else place.shape[axis]
            if start + rows > place.shape[axis]:
                raise _mis_shaped(name, source, place, found)
            _copy(name, place.narrow(axis, start, rows), found, part)
            start += rows
        if start != place.shape[axis]:
            raise _mis_shaped(name, source, place, found)


def _copy(name: str, target: Tensor, found: Tensor, source: str) -> None:
    # Convolutions and decays carry axes of size one there.
    if [n for n in found.shape if n != 1] != [n for n in target.shape if n != 1]:
        raise _mis_shaped(name, source, target, found)
    target.copy_(found.reshape(target.shape))


def _mis_shaped(name: str, source: str, target: Tensor, found: Tensor) -> CheckpointError:
    return CheckpointError(
        f"{name}: has shape {tuple(found.shape)} in the checkpoint ({source}),"
        f" {tuple(target.shape)} in the spec"
    )


def _listed(names: Any) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else ""
    return ", ".join(ordered[:SHOWN]) + more
