from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hybridsim.errors import HybridsimError, SpecError
from hybridsim.mixers.kda.ops import log_decay
from hybridsim.spec.load import load_spec, spec_names
from hybridsim.train.arena import arena_spec
from hybridsim.train.curriculum import rate_factor, stages
from hybridsim.train.data import Examples
from hybridsim.train.decoder import LAYERS
from hybridsim.train.depth import apportion, resample_layers
from hybridsim.train.flat import ALIGNMENT, DECAYED, MATRICES, REST, Layout, part_of
from hybridsim.train.optim import StackedOptimizer
from hybridsim.train.population import LAST, LOOP, VMAP, Member, Population
from hybridsim.train.proxy import ModelSize, ProxySettings, Training, load_proxy
from hybridsim.train.quality import (
    A_BETTER,
    UNRESOLVED,
    QualityProfile,
    difference,
    score_of,
    student_quantile,
)
from hybridsim.train.ranks import kendall_tau, spearman
from hybridsim.train.rates import Rate, best_rate, find_rates, model_rate
from hybridsim.train.reliability import REPRODUCED, summary_line
from hybridsim.train.run import ProxyRun, Trained
from hybridsim.train.scale import full_pattern, scale_spec
from hybridsim.train.tasks import Task
from hybridsim.train.tasks.compression import Compression
from hybridsim.train.trainer import (
    DIVERGED,
    LEARNT,
    OUT_OF_MEMORY,
    TRAINED,
    Look,
    Outcome,
    Trainer,
)
from hybridsim.train.twin import SILU_GATES, SILU_ONE, build_twin
from hybridsim.train.validate import CHECKS, ZOOLOGY, Validation

TINY = ProxySettings(
    "tiny",
    ModelSize(hidden_size=16, num_layers=2, num_heads=2, head_dim=8, chunk_size=16),
    {"recall": {"kind": "mqar", "vocab_size": 32, "length": 32, "num_pairs": 8}},
    training=Training(
        steps=6, batch_size=4, curriculum_steps=0, evaluate_every=2, validation_size=4, test_size=8
    ),
    seeds=2,
)
VARIED = ["kimi_linear_tiny", "qwen3_next_tiny", "jamba_tiny", "minimax_m1_tiny", "gla_tiny",
          "deltanet_tiny", "linear_attention_tiny", "nemotron_h_8b", "deepseek_v32_tiny",
          "minimax_m3_tiny", "gpt_oss_120b", "falcon_h1_34b"]  # fmt: skip


def members(name: str = "kimi_linear_tiny", seeds: int = 2, rate: float = 0.01) -> list[Member]:
    twin = scale_spec(load_spec(name), TINY)
    return [Member(twin, seed, rate) for seed in range(seeds)]


def of_kinds(*patterns: str) -> list[Member]:
    twins = [scale_spec(arena_spec(letters), TINY) for letters in patterns]
    return [Member(twin, seed, 0.01 * (1 + seed)) for seed, twin in enumerate(twins)]


@torch.no_grad()
def trained_a_little(population: Population) -> Population:
    """Return the population with outputs of layers that are no longer zero."""
    for parameter in population.parameters.values():
        own = parameter[0]
        parameter += 0.1 * torch.arange(own.numel(), device=own.device).cos().view_as(own)
    return population


COMPRESSION = Compression(vocab_size=17, length=11)
TASKS = {"each": TINY.task("recall"), "last": COMPRESSION}  # by where their answers are read


def trainer(
    given: list[Member], path: Path | None = None, task: Task = TASKS["each"], **training: Any
) -> Trainer:
    return Trainer(
        given, task, name=task.kind, training=replace(TINY.training, **training),
        conv_size=4, device="cpu", checkpoint=path,
    )  # fmt: skip


def losses_of(outcome: Outcome) -> list[float]:
    return [row["loss"] for row in outcome.curve]


# The scaling rule


@pytest.mark.parametrize("name", spec_names())
def test_every_spec_has_a_twin_of_the_proxys_size(name: str) -> None:
    proxy = load_proxy("quick")
    twin = scale_spec(load_spec(name), proxy)
    assert (twin.hidden_size, twin.num_layers) == (proxy.model.hidden_size, 4)
    kinds = {load_spec(name).mixers[letter].kind for letter in twin.mixers}
    assert kinds == {settings.kind for settings in twin.mixers.values()}


@pytest.mark.parametrize(
    ("letters", "depth", "found"),
    [
        ("LLLF" * 6 + "LLF", 4, "LLLF"),
        ("LLLF" * 6 + "LLF", 8, "LLLFLLLF"),
        ("LLLF" * 12, 4, "LLLF"),
        ("L" * 47 + "F", 4, "LLLF"),
        ("FF" + "L" * 10, 4, "FLLL"),
        ("LLLLLLLLFFFF", 6, "LLLLFF"),
        ("LLLF", 48, "LLLF" * 12),
        ("F" * 7, 4, "FFFF"),
    ],
)
def test_patterns_keep_ratio_and_place(letters: str, depth: int, found: str) -> None:
    assert resample_layers(letters, depth) == found


@pytest.mark.parametrize("depth", [27, 48])
def test_patterns_of_four_layers_come_back_from_a_real_depth(depth: int) -> None:
    for number in range(16):
        letters = "".join("LF"[number >> bit & 1] for bit in range(4))
        assert resample_layers(resample_layers(letters, depth), 4) == letters


def test_the_way_back_is_a_pattern_of_the_full_model() -> None:
    assert full_pattern("LLLF", 48) == "(LLLF)*12"


def test_rare_layers_are_not_lost() -> None:
    from collections import Counter

    assert apportion(Counter("L" * 47 + "F"), 4) == {"L": 3, "F": 1}


def test_windows_keep_their_share_of_the_context() -> None:
    spec = load_spec("gemma3_27b")
    proxy = replace(TINY, tasks={"recall": {**TINY.tasks["recall"], "length": 1024}})
    windows = {
        scale_spec(spec, proxy, context_target=target).mixers["S"].window  # type: ignore[attr-defined]
        for target in (4096, 8192)
    }
    assert windows == {256, 128}  # of 1024 tokens, as 1024 of 4096 and of 8192


def test_a_window_has_its_share_of_each_tasks_length() -> None:
    short = {**TINY.tasks["recall"], "length": 128}
    proxy = replace(TINY, tasks={"long": {**short, "length": 1024}, "short": short})
    twins = [
        scale_spec(load_spec("gemma3_27b"), proxy, task, context_target=4096)
        for task in proxy.tasks
    ]
    assert [twin.mixers["S"].window for twin in twins] == [256, 32]  # type: ignore[attr-defined]


# How a twin starts


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "kind"),
    [("qwen3_next_tiny", "gated_deltanet"), ("gla_tiny", "gla"), ("nemotron_h_8b", "mamba2"),
     ("falcon_h1_34b", "mamba2"), ("jamba_tiny", "mamba1")],
)  # fmt: skip
def test_silu_gates_of_a_twin_begin_open(name: str, kind: str) -> None:
    """What a layer hands to its gate is about where SiLU is 1; nothing else has got a bias."""
    x = torch.nn.functional.normalize(torch.randn(4, 64, TINY.model.hidden_size), dim=-1)
    found = [mixer for mixer in mixers_of(name) if mixer.settings.kind == kind]
    assert found
    for mixer in found:
        seen: list[torch.Tensor] = []
        with watched_silu(seen):
            mixer(x)
        assert any(z.mean().item() == pytest.approx(SILU_ONE, abs=0.1) for z in seen)
        linear, rows = getattr(mixer, SILU_GATES[kind][0]), SILU_GATES[kind][1](mixer)
        others = torch.ones(linear.out_features, dtype=torch.bool)
        others[rows] = False
        assert not linear.bias[others].any()


@contextmanager
def watched_silu(seen: list[torch.Tensor]) -> Iterator[None]:
    """Note what passes SiLU."""
    silu = torch.nn.functional.silu

    def noted(x: torch.Tensor, inplace: bool = False) -> torch.Tensor:
        seen.append(x.detach())
        return silu(x, inplace)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "silu", noted)
        yield


def test_a_bounded_decay_of_a_twin_begins_slow() -> None:
    """One that cannot go below a bound keeps what it begins with, which forgets less."""
    spec = load_spec("kimi_linear_tiny", ["mixers.L.gate_lower_bound=-5.0"])
    twin = scale_spec(spec, TINY)
    model = build_twin(twin, 0, 4)
    for layer in model.layers:
        for _, mixer in layer.named_mixers():
            if mixer.settings.kind == "kda":
                heads = mixer.settings.num_heads
                raw = mixer.dt_bias.detach().view(1, 1, heads, -1)
                decay = log_decay(raw, mixer.A_log.detach(), -5.0)
                assert decay.min() >= -1 / twin.native_context


@pytest.mark.parametrize("name", ["kimi_linear_tiny", "qwen3_next_tiny", "nemotron_h_8b"])
def test_decays_of_a_twin_begin_slow(name: str) -> None:
    context = scale_spec(load_spec(name), TINY).native_context
    seen = 0
    for mixer in mixers_of(name):
        if getattr(mixer, "A_log", None) is None:
            continue
        steps = torch.nn.functional.softplus(mixer.dt_bias).view(len(mixer.A_log), -1)
        memory = 1 / (mixer.A_log.exp() * steps.log().mean(1).exp())  # tokens to 1/e
        assert memory.min() >= context * 0.999
        assert memory.max() <= 10.01 * context
        seen += 1
    assert seen


def test_the_decays_of_gated_linear_attention_begin_slow() -> None:
    context = scale_spec(load_spec("gla_tiny"), TINY).native_context
    for mixer in mixers_of("gla_tiny"):
        bias = mixer.gk_b_proj.bias
        decay = -torch.nn.functional.logsigmoid(bias) / mixer.settings.gate_logit_normalizer
        assert decay.max() <= 1.001 / context
        assert decay.min() >= 0.099 / context


def mixers_of(name: str) -> list[Any]:
    """Return the mixers of a spec's twin."""
    model = build_twin(scale_spec(load_spec(name), TINY), 0, 4)
    return [mixer for layer in model.layers for _, mixer in layer.named_mixers()]


def test_a_task_has_tokens_a_length_and_feed_forwards_of_its_own() -> None:
    proxy = load_proxy("quick")
    twin = scale_spec(load_spec("kimi_linear_tiny"), proxy)
    for task, inner in (("recall", 0), ("language", 2 * proxy.model.hidden_size)):
        own = scale_spec(load_spec("kimi_linear_tiny"), proxy, task)
        assert [ffn.intermediate_size for ffn in own.ffns.values()] == [inner] * bool(inner)
        tokens = (own.vocab_size, own.native_context)
        assert tokens == {"recall": (128, 128), "language": (64, 64)}[task]
        same = {"vocab_size": 1, "native_context": 1, "ffns": {}, "ffn_pattern": ".*"}
        assert replace(own, **same) == replace(twin, **same)


@pytest.mark.slow
def test_a_tasks_scores_do_not_depend_on_the_other_tasks(tmp_path: Path) -> None:
    short = {"kind": "mqar", "vocab_size": 28, "length": 24, "num_pairs": 6}
    proxy = replace(TINY, seeds=1, tasks={**TINY.tasks, "short": short})
    scores = []
    for number, some in enumerate((proxy, proxy.only(("short",)))):
        run = ProxyRun(some, device="cpu", folder=tmp_path / str(number))
        (trained,) = run.train([load_spec("gla_tiny")], ["short"])
        scores.append([(o.score, o.loss) for o in trained.outcomes["short"]])
    assert scores[0] == scores[1]


def test_a_task_may_change_nothing_else_of_the_model() -> None:
    tasks = {"language": {"kind": "grammar", "model": {"hidden_size": 8}}}
    with pytest.raises(SpecError, match=r"language\.model\.hidden_size: a task may only have"):
        replace(load_proxy("quick"), tasks=tasks).task_model("language")


@pytest.mark.parametrize("part", ["model", "training"])
def test_what_a_task_overrides_is_a_mapping(part: str) -> None:
    proxy = replace(TINY, tasks={"recall": {**TINY.tasks["recall"], part: 3}})
    told = rf"proxy\.tasks\.recall\.{part}=3: must be a mapping"
    with pytest.raises(SpecError, match=told):
        getattr(proxy, f"task_{part}")("recall")


# Populations and optimizers


@pytest.mark.parametrize("name", VARIED)
def test_vmap_gives_what_each_model_gives_by_itself(name: str) -> None:
    given = members(name)
    tokens = torch.randint(32, (2, 3, 21))
    found = {}
    for batching in (LOOP, VMAP):
        population = trained_a_little(Population(given, 4, "cpu", batching))
        population.flat = population.flat.detach().double().requires_grad_()
        hidden = population.hidden(tokens)
        (gradient,) = torch.autograd.grad(hidden.pow(4).sum(), [population.flat])
        found[batching] = (hidden, *population.layout.views(gradient).values())
    for ours, theirs in zip(found[VMAP], found[LOOP], strict=True):
        assert (ours - theirs).norm() <= 1e-9 * theirs.norm()


def test_models_of_different_patterns_do_not_mix() -> None:
    alike = members("kimi_linear_tiny", 2)
    other = replace(alike[0].spec, layer_pattern="FF")
    mixed = Population([alike[0], Member(other, 0, 0.01), alike[1]], 4, "cpu")
    alone = Population(alike, 4, "cpu")
    tokens = torch.randint(32, (1, 2, 16)).expand(3, 2, 16)
    found = trained_a_little(mixed).hidden(tokens)[[0, 2]]
    torch.testing.assert_close(found, trained_a_little(alone).hidden(tokens[:2]))


@pytest.mark.parametrize("batching", [LOOP, VMAP])
def test_layers_alike_are_one_group_whatever_their_letters(batching: str) -> None:
    (theirs, other) = members("kimi_linear_tiny")
    renamed = {"L": "K", "F": "A"}
    twin = replace(
        other.spec,
        layer_pattern="".join(renamed[letter] for letter in other.spec.layer_letters),
        mixers={renamed[letter]: mixer for letter, mixer in other.spec.mixers.items()},
    )
    together = Population([theirs, replace(other, spec=twin)], 4, "cpu", batching)
    assert [len(groups) for groups in together.groups] == [1, 1]
    alike = Population([theirs, other], 4, "cpu", batching)
    tokens = torch.randint(32, (2, 2, 16))
    found = trained_a_little(together).hidden(tokens)
    torch.testing.assert_close(found, trained_a_little(alike).hidden(tokens))
    kept = Population([replace(other, spec=twin)], 4, "cpu", batching)
    ours = kept.picked(together, together.parameters, [1])
    assert set(ours) == set(kept.parameters)


@pytest.mark.parametrize("muon", [False, True])
def test_one_models_steps_are_those_of_torch(muon: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(6, 10, generator=generator)
    theirs = start.clone().requires_grad_()
    name = "layers.0.0.a_proj.weight"
    layout = Layout({name: (2, 6, 10)}, {name: [0, 1]}, torch.device("cpu"))
    flat = layout.packed({name: torch.stack([start, start])}).requires_grad_()
    rates = {name: [0.02, 0.0]}
    stacked = StackedOptimizer(flat, layout, rates, muon=muon, weight_decay=0.1)
    reference: torch.optim.Optimizer
    if muon:
        reference = torch.optim.Muon(
            [theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
        )
    else:
        reference = torch.optim.AdamW([theirs], lr=0.02, betas=(0.9, 0.95), weight_decay=0.1)
    for _ in range(5):
        theirs.grad = torch.randn(6, 10, generator=generator)
        gradient = layout.packed({name: torch.stack([theirs.grad] * 2)})
        stacked.step(gradient, torch.ones(2))
        reference.step()
    ours = layout.views(flat.detach())[name]
    torch.testing.assert_close(ours[0], theirs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours[1], start)  # a model with rate 0 stays


def test_every_gradient_is_clipped_by_its_own_models_norm() -> None:
    population = Population(of_kinds("KK", "MM", "KF"), 4, "cpu")
    gradients = {n: torch.randn_like(p) for n, p in population.parameters.items()}
    norms = population.layout.norms(population.layout.packed(gradients))
    for model in range(3):
        own = [gradients[name][row] for name, row in population.names_of(model).values()]
        expected = torch.cat([gradient.flatten() for gradient in own]).norm()
        torch.testing.assert_close(norms[model], expected)
    gradients["embed"][1] = math.inf
    found = population.layout.norms(population.layout.packed(gradients))
    assert found.isfinite().tolist() == [True, False, True]
    assert torch.equal(found[::2], norms[::2])


def test_parameters_are_packed_by_what_a_step_does_with_them() -> None:
    population = Population(of_kinds("KK", "MM", "WF"), 4, "cpu")
    layout, parameters = population.layout, population.parameters
    assert [end % ALIGNMENT for end in layout.ends] == [0, 0, 0]
    parts = {name: torch.full_like(p, part_of(name, p.shape)) for name, p in parameters.items()}
    packed = layout.packed(parts)
    assert packed[: layout.ends[MATRICES]].amax() == MATRICES
    assert packed[layout.ends[DECAYED] :].amax() == REST
    numbers = {name: torch.randn_like(p) for name, p in parameters.items()}
    for name, own in layout.views(layout.packed(numbers)).items():
        assert torch.equal(own, numbers[name])
    rates = layout.spread(layout.rows({name: population.rates(name) for name in parameters}))
    for name, own in layout.views(rates).items():
        given = torch.tensor(population.rates(name))
        assert torch.equal(own.flatten(1), given[:, None].expand(-1, own[0].numel()))


def test_muon_is_for_all_matrices_between_hidden_layers() -> None:
    """Whatever a mixer calls its projections; not for embeddings, convolutions, or vectors."""
    population = Population(of_kinds("GG", "NN", "MM", "KF"), 4, "cpu")
    parts = {n: part_of(n, p.shape) for n, p in population.parameters.items()}
    own = {name.split(".", 3)[-1] for name, part in parts.items() if part == MATRICES}
    assert {"mixers.0.in_proj_qkvz.weight", "mixers.0.in_proj_ba.weight"} <= own
    assert {"mixers.0.output_gate.weight", "mixers.0.qkv_proj.linear.weight"} <= own
    assert "mixers.0.o_proj.weight" in own
    others = {name.split(".", 3)[-1] for name, part in parts.items() if part == DECAYED}
    assert others == {"embed", *(n for n in others if n.endswith("conv1d.weight"))}


@pytest.mark.parametrize("stop_at", [0.05, 0.1])
def test_models_that_learn_early_leave_the_others_as_they_are(stop_at: float) -> None:
    """Whether they are carried along or let go: all alone end at the same steps and scores."""
    how: dict[str, Any] = {"stop_at": stop_at, "steps": 40, "evaluate_every": 4}
    together = of_kinds("FF", "MM", "KF", "WA", "NN")
    found = trainer(together, **how).run()
    assert len({outcome.steps for outcome in found}) > 1, "all ended together"
    for one, beside in zip(together, found, strict=True):
        (alone,) = trainer([one], **how).run()
        assert (beside.steps, beside.status, beside.score) == (
            alone.steps, alone.status, alone.score,
        )  # fmt: skip
        assert losses_of(beside) == losses_of(alone)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_models_steps_are_the_same_to_the_bit_in_any_company(optimizer: str) -> None:
    together = of_kinds("KF", "MM", "DK", "GG", "WA", "NN")
    found = trainer(together, optimizer=optimizer).run()
    for one, beside in zip(together, found, strict=True):
        (alone,) = trainer([one], optimizer=optimizer).run()
        assert losses_of(beside) == losses_of(alone)


def test_a_decoder_knows_no_more_of_a_sequence_than_its_last_state() -> None:
    """As plain modules compute it, model by model; the tokens at the positions are not read."""
    population = trained_a_little(Population(members(), 4, "cpu", reads_at=LAST))
    tokens = torch.randint(32, (2, 3, 16))
    positions = torch.tensor([0, 5, 15]).expand(2, 3, 3)
    found = population.logits(tokens, positions)
    states, half = population.hidden(tokens)[:, :, -1], torch.arange(8)
    for model in range(2):
        first, second, embed = (
            population.parameters[name][model] for name in ("decoder_in", "decoder_out", "embed")
        )
        for place, position in enumerate((0, 5, 15)):
            angles = position / 10_000 ** (half / 7)
            x = states[model] + math.sqrt(2) * torch.cat([angles.sin(), angles.cos()])
            x = unit(torch.nn.functional.gelu(unit(x) @ first)) @ second
            torch.testing.assert_close(found[model, :, place], unit(x) @ embed.mT)


def unit(x: torch.Tensor) -> torch.Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def test_decoders_of_a_population_are_those_of_each_model_by_itself() -> None:
    together = Population(members(seeds=3), 4, "cpu", reads_at=LAST)
    for seed, one in enumerate(members(seeds=3)):
        alone = Population([one], 4, "cpu", reads_at=LAST)
        for name in LAYERS:
            assert torch.equal(alone.parameters[name][0], together.parameters[name][seed])
    assert not set(LAYERS) & set(Population(members(), 4, "cpu").parameters)


# Training


def test_compression_is_learnt_from_the_last_state() -> None:
    """More than chance, 1/16, and than the commonest token's share, 0.23, which knows no place.

    (Copying each token where it stands would score 1 at once.)
    """
    proxy = replace(TINY, model=replace(TINY.model, hidden_size=64))
    twin = scale_spec(load_spec("linear_attention_tiny"), proxy)
    draws = COMPRESSION.sample(0, 0, 4096).answers[:, :-1]
    commonest = torch.nn.functional.one_hot(draws, 16).sum(1).amax(1).double().mean() / 10
    steps = {"steps": 300, "evaluate_every": 100, "batch_size": 64, "test_size": 128}
    (found,) = trainer([Member(twin, 0, 0.01)], task=COMPRESSION, **steps).run()
    assert 4 * COMPRESSION.chance > float(commonest) > 0.2
    assert found.score is not None
    assert commonest + 0.05 < found.score < 0.9


def test_models_on_compression_train_together_as_alone() -> None:
    together = trainer(members(seeds=3), task=COMPRESSION).run()
    for one, found in zip(members(seeds=3), together, strict=True):
        (alone,) = trainer([one], task=COMPRESSION).run()
        assert losses_of(found) == pytest.approx(losses_of(alone), rel=1e-5)


@pytest.mark.parametrize("reads_at", TASKS)
def test_training_starts_alike_and_goes_on_from_a_checkpoint_on_the_same_curve(
    reads_at: str, tmp_path: Path
) -> None:
    task = TASKS[reads_at]
    whole = trainer(members(), task=task).run()
    path = tmp_path / "state.pt"

    class Killed(Exception):
        pass

    def kill(look: object) -> None:
        if path.exists():
            raise Killed

    first = trainer(members(), path, task)
    first.on_look = kill
    with pytest.raises(Killed):
        first.run()
    again = trainer(members(), path, task).run()
    assert [o.curve for o in again] == [o.curve for o in whole]
    assert [o.score for o in again] == [o.score for o in whole]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_models_that_have_learnt_stop_and_the_others_go_on_as_before(
    task: Task, optimizer: str
) -> None:
    alone = trainer(members(seeds=3), task=task, optimizer=optimizer).run()
    some = trainer(members(seeds=3), task=task, optimizer=optimizer)
    scores, looked = some.scores, []

    def second_has_learnt(examples: Examples) -> tuple[torch.Tensor, torch.Tensor]:
        found, losses = scores(examples)
        looked.append(len(found))
        if len(looked) == 1:
            found[1] = 1.0
        return found, losses

    some.scores = second_has_learnt  # type: ignore[method-assign]
    found = some.run()
    assert [o.status for o in found] == [TRAINED, LEARNT, TRAINED]
    assert [o.steps for o in found] == [6, 2, 6]
    assert losses_of(found[0]) == losses_of(alone[0])
    assert losses_of(found[2]) == losses_of(alone[2])


def test_a_model_that_diverges_is_a_failed_run_and_harms_no_other() -> None:
    good, bad = members()
    bad = replace(bad, rate=1e30)
    found = trainer([good, bad]).run()
    assert [o.status for o in found] == [TRAINED, DIVERGED]
    assert found[1].score is None
    assert "not finite" in found[1].cause
    (alone,) = trainer([good]).run()
    assert losses_of(found[0]) == pytest.approx(losses_of(alone), rel=1e-5)


def test_too_little_memory_halves_the_population_and_then_is_a_failed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    run = Trainer.run

    def crowded(self: Trainer) -> list[Outcome]:
        sizes.append(len(self.outcomes))
        if len(self.outcomes) > 1 or self.outcomes[0].member.seed == 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return run(self)

    monkeypatch.setattr(Trainer, "run", crowded)
    proxy = replace(TINY, models_at_once={"cpu": 2, "cuda": 2})
    (found,) = ProxyRun(proxy, device="cpu", folder=tmp_path).train([load_spec("gla_tiny")])
    assert sizes == [2, 1, 1]
    assert [o.status for o in found.outcomes["recall"]] == [TRAINED, OUT_OF_MEMORY]
    assert found.outcomes["recall"][1].cause.startswith("one model does not fit")


def test_the_curriculum_has_few_shapes_and_ends_with_the_task() -> None:
    task = TINY.task("recall")
    training = replace(TINY.training, steps=100, curriculum_steps=50, curriculum_stages=3)
    found = stages(task, training)
    assert [(s.first, s.end) for s in found] == [(0, 16), (16, 33), (33, 50), (50, 100)]
    assert found[-1].task == task
    assert found[0].task.length < task.length


def test_the_rate_warms_up_and_decays() -> None:
    training = replace(TINY.training, steps=100, warmup_steps=10, decay_share=0.2)
    assert [rate_factor(s, training) for s in (0, 9, 50, 90)] == [0.1, 1.0, 1.0, 0.5]


def test_a_hybrids_layers_share_the_smallest_of_their_kinds_rates() -> None:
    twin = scale_spec(load_spec("kimi_linear_tiny"), load_proxy("quick"))
    rates = {twin.mixers["L"]: Rate(0.03, "kept", {}), twin.mixers["F"]: Rate(0.01, "kept", {})}
    assert model_rate(twin, rates) == 0.01
    pure = replace(twin, layer_pattern="LLLL")
    assert model_rate(pure, rates) == 0.03


def test_the_grid_keeps_the_default_unless_another_rate_is_clearly_better() -> None:
    (member, *_) = members()
    outcomes = [Outcome(member, score=s) for s in (0.2, 0.50, 0.51)]
    assert best_rate([1e-3, 1e-2, 3e-2], outcomes, 1e-2) == 1e-2
    outcomes[0].score = 0.9
    assert best_rate([1e-3, 1e-2, 3e-2], outcomes, 1e-2) == 1e-3


def test_measured_rates_are_kept_and_used_again(tmp_path: Path) -> None:
    proxy = replace(TINY, grid=True, training=replace(TINY.training, learning_rates=(0.01, 0.03)))
    first = ProxyRun(proxy, device="cpu", folder=tmp_path)
    second = ProxyRun(proxy, device="cpu", folder=tmp_path)
    sources = [run.train([load_spec("gla_tiny")])[0].rates["L"].source for run in (first, second)]
    assert sources == ["measured", "kept"]
    assert first.ledger.models == 2 + 2
    assert second.ledger.models == 2


# Quality


def test_students_quantiles() -> None:
    # Abramowitz and Stegun, table 26.10
    known = {1: 12.706, 2: 4.303, 3: 3.182, 10: 2.228, 29: 2.045}
    assert {n: round(student_quantile(n), 3) for n in known} == known


def test_intervals_and_differences() -> None:
    high, low = score_of([0.97, 0.98, 0.99], 0.1), score_of([0.5, 0.6, 0.7], 0.1)
    assert high is not None
    assert low is not None
    assert high.low > low.high or difference(high, low) == A_BETTER
    assert difference(high, high) == UNRESOLVED
    one = score_of([0.9], 0.1)
    assert one is not None
    assert (one.low, one.high) == (0.0, 1.0)
    assert score_of([None, None], 0.1) is None


def test_the_summary_weighs_the_tasks_that_are_there() -> None:
    profile = QualityProfile({"recall": score_of([0.5, 0.5], 0), "language": score_of([1, 1], 0)})
    assert profile.summary({"recall": 3, "language": 1, "needle": 9}).mean == 0.625
    assert profile.summary().mean == 0.75
    with pytest.raises(HybridsimError, match="none of the proxy's tasks"):
        profile.summary({"needle": 1})


def test_rank_correlations() -> None:
    assert kendall_tau([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(4 / 6)
    assert spearman([1, 2, 3, 4], [10, 20, 40, 30]) == pytest.approx(0.8)
    assert kendall_tau([1.0, 1.001, 2], [1.001, 1.0, 2], tie=0.01) == 1
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))
    learnt_alike = ([0.99, 0.995, 0.2, 0.5], [0.998, 0.991, 0.1, 0.6])
    assert spearman(*learnt_alike) == pytest.approx(0.8)
    assert spearman(*learnt_alike, tie=0.02) == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["quick", "standard", "deep"])
def test_shipped_proxies_are_valid(name: str) -> None:
    proxy = load_proxy(name)
    assert {"recall", "language"} <= set(proxy.tasks)
    for task in proxy.tasks:
        assert 0 <= proxy.task(task).chance < 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.optimizer=sgd", "proxy.training.optimizer=sgd"),
        ("model.num_layers=0", "proxy.model.num_layers=0: must be at least 1"),
        ("tasks.recall.kind=nothing", "proxy.tasks.recall.kind=nothing"),
        ("precision.cpu=int8", "precision.cpu=int8"),
        ("workers=0", "proxy.workers=0: must be at least 1"),
        ("workers=many", "proxy.workers=many: expected an integer"),
    ],
)
def test_a_wrong_setting_is_one_line(override: str, message: str) -> None:
    with pytest.raises(SpecError, match=message.replace(".", r"\.")):
        load_proxy("quick", [override]).task("recall")


COMMAND = ["train", "spec=kimi_linear_tiny", "tasks=[recall]", "format=json", "device=cpu",
           "proxy.training.steps=16", "proxy.training.evaluate_every=2", "pictures=false",
           "proxy.training.batch_size=8", "proxy.training.test_size=8", "proxy.seeds=2",
           "proxy.training.validation_size=8"]  # fmt: skip


def command(*more: str) -> list[str]:
    return [sys.executable, "-m", "hybridsim", *COMMAND, *more]


def children(process: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def is_running(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    try:
        return stat.read_text().rsplit(") ", 1)[1][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_finished_trainings_of_a_longer_command_are_not_done_again(tmp_path: Path) -> None:
    found, looks = [], []
    for _ in range(2):
        seen: list[Look] = []
        run = ProxyRun(TINY, device="cpu", folder=tmp_path, on_look=seen.append)
        found.append(run.train([load_spec("gla_tiny")])[0].outcomes)
        looks.append(len(seen))
    assert looks[0] > 0 == looks[1]
    assert found[0] == found[1]
    run.forget()
    assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.slow
def test_a_killed_command_goes_on_on_the_same_curve(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole, cut = (
        [f"kept={tmp_path / name}", f"hydra.run.dir={tmp_path / name / 'run'}"]
        for name in ("whole", "cut")
    )
    cut.append("proxy.workers=2")
    run = {"capture_output": True, "text": True, "env": environment, "check": True}
    document = json.loads(subprocess.run(command(*whole), **run).stdout)  # type: ignore[call-overload]
    assert document["schema"] == "hybridsim/train/1"
    assert document["reliability"] == summary_line("quick", document["proxy"])
    with subprocess.Popen(command(*cut), stdout=subprocess.DEVNULL, env=environment) as process:
        checkpoints = tmp_path / "cut" / "checkpoints"
        while not list(checkpoints.glob("*.pt")) and process.poll() is None:
            time.sleep(0.01)
        workers = children(process.pid)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert len(workers) >= 2
    end = time.monotonic() + 10
    while any(map(is_running, workers)) and time.monotonic() < end:
        time.sleep(0.01)
    assert not any(map(is_running, workers))
    again = json.loads(subprocess.run(command(*cut), **run).stdout)  # type: ignore[call-overload]
    assert again["scores"] == document["scores"]
    assert (document["ledger"]["processes"], again["ledger"]["processes"]) == (1, 2)
    assert again["device"].endswith("2 processes")
    curves = [(tmp_path / name / "run" / "curves.csv").read_text() for name in ("whole", "cut")]
    assert curves[0] == curves[1]


def nothing_learnt(
    proxy: ProxySettings, patterns: Iterable[str], tasks: Iterable[str], rates_of: Any = None
) -> dict[str, Trained]:
    """Return results of trainings that all failed; none of Zoology's settings."""
    if proxy.model.num_layers == 2:
        return {}
    spec = load_spec("gla_tiny")
    outcomes = {task: [Outcome(m) for m in members("gla_tiny", proxy.seeds)] for task in tasks}
    return {p: Trained(spec, spec, {}, outcomes, QualityProfile({})) for p in patterns}


def test_the_order_of_a_longer_budget_is_of_the_tasks_it_has(tmp_path: Path) -> None:
    """One task's order holds, the other's turns round; a budget with the first alone agrees.

    Of a task that says how soon a model learns the order is told, but does not count.
    """
    validation = Validation(
        load_proxy("quick"), device="cpu", folder=tmp_path, patterns=16, longer=[4, 10]
    )
    tables = validation.tables
    tables.recalls, tables.speed_tasks = ("recall", "fuzzy_recall"), ()
    for place, pattern in enumerate(validation.patterns):
        up, down = place / 20, 1 - place / 10
        for run, scores in {
            "1x": {"recall": up, "fuzzy_recall": up},
            "4x": {"recall": up},
            "10x": {"recall": up, "fuzzy_recall": down},
        }.items():
            for task, score in scores.items():
                found = nothing_learnt(validation.proxy, [pattern], [task])[pattern]
                for outcome in found.outcomes[task]:
                    outcome.score = score
                tables.add(run, pattern, found)
    finding = CHECKS["budget"](tables, validation)
    assert finding.values["4x"] == pytest.approx(1)
    assert finding.values["10x"] == pytest.approx(-1)
    assert finding.values["tasks"]["10x"] == {
        "recall": pytest.approx(1),
        "fuzzy_recall": pytest.approx(-1),
    }
    assert "1.00 with 4x the steps (1.00 without ties; recall)" in finding.figures
    tables.speed_tasks = ("fuzzy_recall",)
    counted = CHECKS["budget"](tables, validation)
    assert (counted.values["10x"], counted.verdict) == (pytest.approx(1), REPRODUCED)
    assert counted.values["tasks"] == finding.values["tasks"]
    assert "without ties; recall; not counted: fuzzy_recall -1.00)" in counted.figures
    assert validation.can_tell("attention_first")
    for trained in tables.runs["10x"].values():
        del trained.outcomes["recall"]
    assert not validation.can_tell("budget")
    tables.speed_tasks = ()
    assert validation.can_tell("budget")
    assert not validation.can_tell("attention_first")


@pytest.mark.parametrize(
    ("proxy", "told"),
    [
        (load_proxy("quick").only(("recall",)), "needs the task language"),
        (load_proxy("quick").only(("language",)), "needs the task recall"),
        (replace(load_proxy("quick"), speed_tasks=("recall",)), "recall, and not as a speed task"),
    ],
)
def test_a_validation_without_its_tasks_ends_before_it_trains(
    proxy: ProxySettings, told: str, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match=told):
        Validation(proxy, device="cpu", folder=tmp_path, patterns=16, longer=[10])


def test_a_validation_ends_in_time_and_says_what_it_cannot_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[ProxySettings] = []

    def train(self: Validation, proxy: ProxySettings, *asked: Any) -> dict[str, Trained]:
        trained.append(proxy)
        return nothing_learnt(proxy, *asked)

    monkeypatch.setattr(Validation, "_trained_specs", train)
    missing = ["budget", "attention_first", "equal_state", "ZOO-03"]
    for seconds in (1e-9, math.inf):
        trained.clear()
        validation = Validation(
            load_proxy("quick"), device="cpu", folder=tmp_path, patterns=16, longer=[4, 10]
        )
        validation.run(seconds=seconds)
        cut = seconds < 1
        assert len(trained) == (3 if cut else 3 + 2 * 2 + 3 * len(ZOOLOGY))
        assert validation.longer == ([] if cut else [4, 10])
        told = [name for name in missing if validation.can_tell(name)]
        assert told == ([] if cut else missing[:2])  # of Zoology no score is there
        assert all(validation.can_tell(name) for name in CHECKS if name not in missing)


def test_only_a_validation_that_is_whole_forgets_its_trainings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten: list[str] = []

    class Run:
        def forget(self) -> None:
            forgotten.append("checkpoints")

    def train(self: Validation, *asked: Any) -> dict[str, Trained]:
        self._trained = [Run()]  # type: ignore[list-item]
        return nothing_learnt(*asked)

    monkeypatch.setattr(Validation, "_trained_specs", train)
    for longer, kept in (([4.0], True), ([], False)):
        validation = Validation(
            load_proxy("quick"), device="cpu", folder=tmp_path, patterns=16, longer=longer
        )
        validation.run(zoology=False, seconds=1e-9)  # what was wanted may end after its time
        assert forgotten == ([] if kept else ["checkpoints"])


def test_the_rates_of_all_kinds_are_measured_together(tmp_path: Path) -> None:
    calls: list[list[Member]] = []

    def train(members: list[Member], task: str) -> list[Outcome]:
        calls.append(members)
        scores = {0.003: 0.1, 0.01: 0.5, 0.03: 0.9}
        return [Outcome(m, TRAINED, score=scores[m.rate]) for m in members]

    proxy = replace(load_proxy("quick"), grid=True)
    twins = [scale_spec(arena_spec(letters), proxy) for letters in ("KKKF", "GGGF")]
    options: dict[str, Any] = {"folder": tmp_path, "device": "cpu", "train": train}
    measured = find_rates(twins, proxy, **options)
    assert [len(members) for members in calls] == [9]  # three kinds, three rates
    assert {rate.value for rate in measured.values()} == {0.03}
    again = find_rates(twins, proxy, **options)
    assert len(calls) == 1
    assert {rate.source for rate in again.values()} == {"kept"}
