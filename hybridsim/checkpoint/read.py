"""Read the weights of a checkpoint folder into a model, one tensor at a time."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from hybridsim.checkpoint.names import LAYER, MODEL, Family, Names, family
from hybridsim.errors import HybridsimError
from hybridsim.graph import FFN, MIXER
from hybridsim.model.model import HybridLM

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
SHOWN = 5  # names listed in a message before it is cut


class CheckpointError(HybridsimError):
    """A checkpoint that is not the model's: missing, unexpected or mis-shaped tensors, by name."""


class TensorFolder:
    """The tensors of a folder, in one file or several, read when asked for."""

    def __init__(self, folder: str | Path, names: Family, files: ExitStack) -> None:
        self.folder = Path(folder)
        stored = self._find()
        self._stored_names = {names.published_name(name): name for name in stored}
        self.where = {name: stored[old] for name, old in self._stored_names.items()}
        opened = {
            name: files.enter_context(safe_open(self.folder / name, framework="pt"))
            for name in sorted(set(self.where.values()))
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
        tensor: Tensor = self._opened[self.where[name]].get_tensor(self._stored_names[name])
        return tensor


def model_type(folder: str | Path) -> str:
    """Return the family that a checkpoint folder's config.json names."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise CheckpointError(f"model={folder}: has no config.json")
    return str(json.loads(path.read_text(encoding="utf-8")).get("model_type"))


def parameter_sources(model: HybridLM, names: Family) -> dict[str, str]:
    """Return, for each parameter and buffer of the model, its name or names in the checkpoint."""
    sources = dict(MODEL)
    if model.spec.tie_word_embeddings:
        del sources["head.weight"]
    for node, op, layer in model.graph.nodes():
        if layer is None or op.settings is None:
            continue
        table = names.mixers if op.kind == MIXER else names.ffns
        if op.settings.kind not in table:
            raise CheckpointError(f"{node}: the family has no {op.settings.kind}")
        sources |= _below(node, layer, table[op.settings.kind])
        norm = "mixer_norm.weight" if op.kind == MIXER else "ffn_norm.weight"
        assert op.kind in (MIXER, FFN)
        sources |= _below(f"layers.{layer}", layer, {norm: LAYER[norm]})
    return {name: sources[name] for name in model.state_dict() if name in sources}


def _below(ours: str, layer: int, names: Names) -> dict[str, str]:
    prefix = f"model.layers.{layer}."
    return {
        f"{ours}.{name}": " + ".join(prefix + part for part in source.split(" + "))
        for name, source in names.items()
    }


@torch.no_grad()
def load_weights(model: HybridLM, folder: str | Path) -> HybridLM:
    """Copy a checkpoint's weights into a model, in the model's dtypes and on its device.

    Memory beyond the model: one of its parameters.

    Raises:
        CheckpointError: tensors are missing, not expected, or of another shape; all are named.
        SpecError: the family is not known.
    """
    names = family(model_type(folder))
    targets = dict(model.state_dict(keep_vars=True))
    if model.spec.tie_word_embeddings:
        targets.pop("head.weight")
    sources = parameter_sources(model, names)
    with ExitStack() as files:
        tensors = TensorFolder(folder, names, files)
        _check_names(targets, sources, tensors, names)
        for name, target in targets.items():
            target.copy_(_assembled(name, target, sources[name], tensors))
    return model


def _parts(source: str, target: Tensor) -> list[list[str]]:
    """Return the tensors of a source: for each expert, or once, those that are concatenated."""
    parts = source.split(" + ")
    if "{expert}" not in source:
        return [parts]
    return [[part.format(expert=e) for part in parts] for e in range(target.shape[0])]


def _check_names(
    targets: dict[str, Tensor], sources: dict[str, str], tensors: TensorFolder, names: Family
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
    missing = wanted - set(tensors.where)
    if missing:
        raise CheckpointError(f"model={tensors.folder}: missing {_listed(missing)}")
    extra = {name for name in set(tensors.where) - wanted if not name.endswith(names.derived)}
    if extra:
        raise CheckpointError(f"model={tensors.folder}: not expected {_listed(extra)}")


def _assembled(name: str, target: Tensor, source: str, tensors: TensorFolder) -> Tensor:
    groups = [torch.cat([tensors.read(part) for part in group]) for group in _parts(source, target)]
    found = torch.stack(groups) if "{expert}" in source else groups[0]
    if target.dim() == 3:  # stacked experts
        found = found.mT
    # Convolutions and decays carry axes of size one there.
    if [n for n in found.shape if n != 1] != [n for n in target.shape if n != 1]:
        raise CheckpointError(
            f"{name}: has shape {tuple(found.shape)} in the checkpoint ({source}),"
            f" {tuple(target.shape)} in the spec"
        )
    return found.reshape(target.shape)


def _listed(names: Any) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else ""
    return ", ".join(ordered[:SHOWN]) + more
