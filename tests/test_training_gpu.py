from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_training import TASKS, TINY, VARIED, members, of_kinds, trained_a_little

from hybridsim.spec.load import load_spec
from hybridsim.train.data import gathered
from hybridsim.train.population import LOOP, VMAP, Population
from hybridsim.train.run import ProxyRun
from hybridsim.train.step import EAGER_STEPS, CapturedStep, PopulationStep

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("name", VARIED)
def test_vmap_gives_what_each_model_gives_by_itself(name: str) -> None:
    tokens = torch.randint(32, (2, 3, 21), device="cuda")
    found = {}
    for batching in (LOOP, VMAP):
        population = trained_a_little(Population(members(name), 4, "cuda", batching))
        hidden = population.hidden(tokens)
        (gradient,) = torch.autograd.grad(hidden.pow(4).sum(), [population.flat])
        found[batching] = (hidden, *population.layout.views(gradient).values())
    for ours, theirs in zip(found[VMAP], found[LOOP], strict=True):
        assert (ours - theirs).norm() <= 1e-3 * theirs.norm()


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("reads_at", TASKS)
@pytest.mark.parametrize("name", ["kimi_linear_tiny", "qwen3_next_tiny", "gla_tiny"])
def test_a_captured_step_trains_as_an_eager_one(name: str, reads_at: str, optimizer: str) -> None:
    task, losses = TASKS[reads_at], {}
    training = replace(TINY.training, optimizer=optimizer)
    for captured in (False, True):
        population = Population(members(name), 4, "cuda", reads_at=reads_at)
        step = PopulationStep(population, training, "fp32")
        taken = CapturedStep(step) if captured else step
        rows = []
        for number in range(EAGER_STEPS + 4):
            batch = task.sample(0, number, 4, "cuda")
            positions, targets = gathered(batch.targets, 8)
            taken(*(x.expand(2, *x.shape).contiguous() for x in (batch.tokens, positions, targets)))
            rows.append(step.losses.clone())
        losses[captured] = torch.stack(rows)
        if isinstance(taken, CapturedStep):
            assert taken.note == "CUDA graph"
    # (Muon's bfloat16 products make more of the last bits, in which sums by atomics differ.)
    near = {"adamw": 1e-3, "muon": 1e-2}[optimizer]
    torch.testing.assert_close(losses[True], losses[False], atol=near, rtol=near)


@pytest.mark.parametrize("captured", [False, True])
def test_groups_beside_each_other_train_as_models_one_by_one(captured: bool) -> None:
    """Of one layer, on streams of their own: nobody reads what is not yet written."""
    kinds = [*of_kinds("KF", "MM", "DK", "GG", "WA", "NN"), *of_kinds("FK", "MG")]
    losses, training = {}, replace(TINY.training, optimizer="adamw")
    for batching in (LOOP, VMAP):
        population = Population(kinds, 4, "cuda", batching)
        step = PopulationStep(population, training, "fp32")
        taken = CapturedStep(step) if captured else step
        rows = []
        for number in range(EAGER_STEPS + 12):
            batch = TASKS["each"].sample(0, number, 4, "cuda")
            given = (batch.tokens, *gathered(batch.targets, 8))
            taken(*(x.expand(len(kinds), *x.shape).contiguous() for x in given))
            rows.append(step.losses.clone())
        losses[batching] = torch.stack(rows)
    torch.testing.assert_close(losses[VMAP], losses[LOOP], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_a_proxy_trains_on_the_device(precision: str, tmp_path: Path) -> None:
    compression = {"kind": "compression", "vocab_size": 17, "length": 11}
    tasks = {**TINY.tasks, "compression": compression}
    proxy = replace(TINY, tasks=tasks, precision={"cpu": "fp32", "cuda": precision})
    specs = [load_spec("kimi_linear_tiny"), load_spec("minimax_m1_tiny")]
    for trained in ProxyRun(proxy, device="cuda", folder=tmp_path).train(specs):
        for task in tasks:
            assert [o.cause for o in trained.outcomes[task]] == ["", ""]
            assert trained.profile.scores[task] is not None
