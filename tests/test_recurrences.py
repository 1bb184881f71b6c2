"""Chunked == recurrent == reference, in outputs and gradients, at odd lengths."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from closeness import assert_close
from torch import Tensor

from hybridsim.mixers.deltanet.ops import chunk_deltanet, recurrent_deltanet
from hybridsim.mixers.gated_deltanet.ops import chunk_gated_delta_rule
from hybridsim.mixers.gla.ops import chunk_gla, naive_gla, recurrent_gla
from hybridsim.mixers.kda.ops import chunk_kda, log_decay
from hybridsim.mixers.lightning.ops import chunk_lightning, naive_lightning, recurrent_lightning
from hybridsim.mixers.linear_attention.ops import (
    chunk_linear_attention,
    draw_projection,
    naive_linear_attention,
    random_features,
    recurrent_linear_attention,
)
from hybridsim.mixers.mamba1.ops import (
    chunk_selective_scan,
    naive_selective_scan,
    recurrent_selective_scan,
    selective_scan,
)
from hybridsim.mixers.mamba2.ops import chunk_ssd, naive_ssd, recurrent_ssd
from hybridsim.nn.activation import elu1
from hybridsim.nn.delta_rule import naive_delta_rule, recurrent_delta_rule

LENGTHS = (1, 2, 15, 16, 63, 64, 65, 130)
B, H, K, V = 2, 3, 16, 8
Inputs = dict[str, Tensor]
Form = Callable[[Inputs], tuple[Tensor, Tensor]]


def delta_inputs(
    tokens: int, decays: int, strongest_decay: float = 1.0, strongest_write: float = 1.0
) -> Inputs:
    """Return float64 inputs as the mixers make them: normalised keys, g <= 0, beta in (0, 1 or 2).

    A negative `strongest_decay` is the lower bound of Ling's gate instead.
    """
    generator = torch.Generator().manual_seed(tokens)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    raw = normal(B, tokens, H, decays)
    if strongest_decay < 0:
        g = log_decay(raw, torch.tensor([0.0, 1.0, 2.7]).double().log1p(), strongest_decay)
    else:
        g = -strongest_decay * raw.abs()

    inputs = {
        "q": normal(B, tokens, H, K) / K**0.5,
        "k": torch.nn.functional.normalize(normal(B, tokens, H, K), dim=-1),
        "v": normal(B, tokens, H, V),
        "g": g,
        "beta": strongest_write * normal(B, tokens, H).sigmoid(),
        "state": normal(B, H, K, V),
    }
    return {name: tensor.requires_grad_() for name, tensor in inputs.items()}


def stepped(step: Callable[..., tuple[Tensor, Tensor]], *names: str) -> Form:
    """Return the form that takes one step a token, with these inputs of each."""

    def form(inputs: Inputs) -> tuple[Tensor, Tensor]:
        state, outputs = inputs["state"], []
        for t in range(inputs["q"].shape[1]):
            out, state = step(*(inputs[name][:, t] for name in names), state)
            outputs.append(out)
        return torch.stack(outputs, dim=1), state

    return form


def chunked_gdn(size: int) -> Form:
    def form(inputs: Inputs) -> tuple[Tensor, Tensor]:
        plain = inputs | {"g": inputs["g"].squeeze(-1)}
        return chunk_gated_delta_rule(**plain, chunk_size=size)

    return form


def compare(form: Form, reference: Form, make: Callable[[], Inputs]) -> None:
    """Compare outputs, last state and the gradients of a random functional of both."""
    results = []
    for one in (form, reference):
        inputs = make()
        out, state = one(inputs)
        generator = torch.Generator().manual_seed(1)
        weights = [torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in (out, state)]
        ((out * weights[0]).sum() + (state * weights[1]).sum()).backward()
        gradients = {f"d{name}": x.grad for name, x in inputs.items() if x.grad is not None}
        results.append({"out": out, "state": state} | gradients)
    got, wanted = results
    assert set(got) == set(wanted)
    for name in wanted:
        assert_close(name, got[name], wanted[name], 1e-9)


# Write strengths up to 2 make the transition I - beta k k^T turn a channel around.
WRITES = pytest.mark.parametrize("write", [1.0, 2.0], ids=["beta1", "beta2"])
# The unbounded gate, and the one with a lower bound.
GATES = pytest.mark.parametrize("decay", [1.0, -5.0], ids=["plain", "bounded"])


@WRITES
@GATES
@pytest.mark.parametrize("tokens", LENGTHS)
def test_delta_rule_step_by_step_is_the_reference(tokens: int, decay: float, write: float) -> None:
    make = lambda: delta_inputs(tokens, K, decay, write)  # noqa: E731
    step_by_step = stepped(recurrent_delta_rule, "q", "k", "v", "g", "beta")
    compare(step_by_step, lambda x: naive_delta_rule(**x), make)


@WRITES
@pytest.mark.parametrize("size", [8, 64])
@pytest.mark.parametrize("tokens", LENGTHS)
def test_chunked_gated_deltanet_is_the_reference(tokens: int, size: int, write: float) -> None:
    make = lambda: delta_inputs(tokens, 1, strongest_write=write)  # noqa: E731
    compare(chunked_gdn(size), lambda x: naive_delta_rule(**x), make)


@WRITES
@GATES
@pytest.mark.parametrize("size", [16, 64])
@pytest.mark.parametrize("tokens", LENGTHS)
def test_chunked_kda_is_the_reference(tokens: int, size: int, decay: float, write: float) -> None:
    compare(
        lambda x: chunk_kda(**x, chunk_size=size),
        lambda x: naive_delta_rule(**x),
        lambda: delta_inputs(tokens, K, decay, write),
    )


def test_both_gates_are_their_equations() -> None:
    raw = torch.tensor([[[[-30.0, 0.5], [0.25, 30.0]]]], dtype=torch.float64)  # B T H K
    rate = torch.tensor([3.0, 0.5], dtype=torch.float64)
    plain = log_decay(raw, rate.log(), None)
    bounded = log_decay(raw, rate.log(), -5.0)
    for head in range(2):
        for channel in range(2):
            x, a = raw[0, 0, head, channel].item(), rate[head].item()
            got = plain[0, 0, head, channel].item(), bounded[0, 0, head, channel].item()
            wanted = -a * math.log1p(math.exp(x)), -5 / (1 + math.exp(-a * x))
            assert got == pytest.approx(wanted, rel=1e-12)
    assert plain.min() < -5 < bounded.min()


@WRITES
def test_chunked_forms_at_a_thousand_tokens(write: float) -> None:
    for decays, form in ((1, chunked_gdn(64)), (K, lambda x: chunk_kda(**x, chunk_size=64))):
        inputs = delta_inputs(1000, decays, strongest_decay=0.05, strongest_write=write)
        got, wanted = form(inputs), naive_delta_rule(**inputs)
        assert_close("out", got[0], wanted[0], 1e-9)
        assert_close("state", got[1], wanted[1], 1e-9)


def test_kda_survives_decays_that_overflow_when_split() -> None:
    # exp(-decay) alone overflows float32 after a few such tokens; the sub-blocks never form it.
    inputs = {n: x.detach().float() for n, x in delta_inputs(65, K, strongest_decay=40.0).items()}
    got = chunk_kda(**inputs, chunk_size=64)
    wanted = naive_delta_rule(**{name: x.double() for name, x in inputs.items()})
    # A chunk's decays sum to about -2000, whose float32 spacing is 1.2e-4: so is the exponents'.
    assert_close("out", got[0].double(), wanted[0], 2e-4)
    assert_close("state", got[1].double(), wanted[1], 2e-4)


def lightning_inputs(tokens: int) -> Inputs:
    generator = torch.Generator().manual_seed(tokens)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    return {
        "q": normal(B, tokens, H, K),
        "k": normal(B, tokens, H, K),
        "v": normal(B, tokens, H, V),
        "state": normal(B, H, K, V),
    }


SLOPES = torch.tensor([0.8, 0.1, 0.003], dtype=torch.float64)


@pytest.mark.parametrize("tokens", [*LENGTHS, 1000])
def test_lightning_forms_are_the_reference(tokens: int) -> None:
    reference = lambda x: naive_lightning(**x, slopes=SLOPES)  # noqa: E731
    make = lambda: lightning_inputs(tokens)  # noqa: E731
    step = lambda q, k, v, state: recurrent_lightning(q, k, v, SLOPES, state)  # noqa: E731
    compare(stepped(step, "q", "k", "v"), reference, make)
    for size in (16, 256):
        compare(
            lambda x, c=size: chunk_lightning(**x, slopes=SLOPES, chunk_size=c), reference, make
        )


def test_short_chunks_keep_the_state_of_the_last_real_token() -> None:
    # A steep slope and a nearly empty last chunk: padding must neither decay nor overflow
    # the state.
    inputs = {name: x.detach().float() for name, x in lightning_inputs(257).items()}
    steep = torch.tensor([0.9, 0.9, 0.9])
    got = chunk_lightning(**inputs, slopes=steep, chunk_size=256)
    wanted = naive_lightning(**{n: x.double() for n, x in inputs.items()}, slopes=steep.double())
    assert_close("state", got[1].double(), wanted[1], 1e-5)


def scan_inputs(tokens: int, strongest_step: float = 1.0) -> Inputs:
    """Return float64 inputs as Mamba makes them: step sizes above zero, rates below."""
    generator = torch.Generator().manual_seed(tokens)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs = {
        "x": normal(B, tokens, V),
        "dt": strongest_step * torch.nn.functional.softplus(normal(B, tokens, V)),
        "a": -normal(V, 5).exp(),
        "b": normal(B, tokens, 5),
        "c": normal(B, tokens, 5),
        "state": normal(B, V, 5),
    }
    return {name: tensor.requires_grad_() for name, tensor in inputs.items()}


def scan_step_by_step(inputs: Inputs) -> tuple[Tensor, Tensor]:
    state, outputs = inputs["state"], []
    for t in range(inputs["x"].shape[1]):
        x, dt, b, c = (inputs[name][:, t] for name in ("x", "dt", "b", "c"))
        out, state = recurrent_selective_scan(x, dt, inputs["a"], b, c, state)
        outputs.append(out)
    return torch.stack(outputs, dim=1), state


@pytest.mark.parametrize("tokens", LENGTHS)
def test_selective_scan_forms_are_the_reference(tokens: int) -> None:
    reference = lambda x: naive_selective_scan(**x)  # noqa: E731
    make = lambda: scan_inputs(tokens)  # noqa: E731
    compare(scan_step_by_step, reference, make)
    for size in (8, 64):
        compare(lambda x, c=size: chunk_selective_scan(**x, chunk_size=c), reference, make)
        compare(lambda x, c=size: selective_scan(**x, chunk_size=c), reference, make)


def test_selective_scan_at_a_thousand_tokens() -> None:
    compare(
        lambda x: selective_scan(**x, chunk_size=64),
        scan_step_by_step,
        lambda: scan_inputs(1000, strongest_step=0.01),
    )


def test_selective_scan_survives_decays_that_overflow_when_split() -> None:
    # A chunk's exponents sum to thousands: exp(-sum) overflows float32, exp(sum) may vanish.
    inputs = {n: x.detach().float() for n, x in scan_inputs(130, strongest_step=60.0).items()}
    got = chunk_selective_scan(**inputs, chunk_size=64)
    wanted = naive_selective_scan(**{name: x.double() for name, x in inputs.items()})
    assert_close("out", got[0].double(), wanted[0], 1e-6)
    assert_close("state", got[1].double(), wanted[1], 1e-6)


SSD_HEADS = 4


def ssd_inputs(tokens: int, groups: int, strongest_step: float = 1.0) -> Inputs:
    """Return float64 inputs of Mamba-2: positive time steps, negative rates, B and C by group."""
    generator = torch.Generator().manual_seed(tokens)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs = {
        "x": normal(B, tokens, SSD_HEADS, V),
        "dt": strongest_step * normal(B, tokens, SSD_HEADS).abs(),
        "rate": -normal(SSD_HEADS).exp(),
        "b": normal(B, tokens, groups, K),
        "c": normal(B, tokens, groups, K),
        "state": normal(B, SSD_HEADS, K, V),
    }
    return {name: tensor.requires_grad_() for name, tensor in inputs.items()}


def ssd_step_by_step(inputs: Inputs) -> tuple[Tensor, Tensor]:
    state, outputs = inputs["state"], []
    for t in range(inputs["x"].shape[1]):
        x, dt, b, c = (inputs[name][:, t] for name in ("x", "dt", "b", "c"))
        out, state = recurrent_ssd(x, dt, inputs["rate"], b, c, state)
        outputs.append(out)
    return torch.stack(outputs, dim=1), state


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("tokens", LENGTHS)
def test_mamba2_forms_are_the_reference(tokens: int, groups: int) -> None:
    reference = lambda x: naive_ssd(**x)  # noqa: E731
    make = lambda: ssd_inputs(tokens, groups)  # noqa: E731
    compare(ssd_step_by_step, reference, make)
    for size in (16, 256):
        compare(lambda x, c=size: chunk_ssd(**x, chunk_size=c), reference, make)


def test_mamba2_forms_at_a_thousand_tokens() -> None:
    inputs = ssd_inputs(1000, 2, strongest_step=0.02)
    wanted = naive_ssd(**inputs)
    for got in (chunk_ssd(**inputs, chunk_size=256), ssd_step_by_step(inputs)):
        assert_close("out", got[0], wanted[0], 1e-9)
        assert_close("state", got[1], wanted[1], 1e-9)


def test_mamba2_survives_steps_that_forget_everything() -> None:
    # A chunk's log decays sum to thousands: exp of the sum, or of its negative, would not do.
    inputs = {n: x.detach().float() for n, x in ssd_inputs(257, 2, strongest_step=40.0).items()}
    got = chunk_ssd(**inputs, chunk_size=256)
    wanted = naive_ssd(**{name: x.double() for name, x in inputs.items()})
    # float32 spacing of the sums, which reach 1e4, is 1e-3: so is the exponents'.
    assert_close("out", got[0].double(), wanted[0], 2e-4)
    assert_close("state", got[1].double(), wanted[1], 2e-4)


def without_decay(inputs: Inputs) -> tuple[Tensor, Tensor]:
    return naive_delta_rule(**inputs, g=torch.zeros_like(inputs["beta"])[..., None])


@WRITES
@pytest.mark.parametrize("tokens", [*LENGTHS, 1000])
def test_deltanet_forms_are_the_reference(tokens: int, write: float) -> None:
    def make() -> Inputs:
        inputs = delta_inputs(tokens, 1, strongest_write=write)
        del inputs["g"]
        return inputs

    compare(stepped(recurrent_deltanet, "q", "k", "v", "beta"), without_decay, make)
    for size in (16, 64):
        compare(lambda x, c=size: chunk_deltanet(**x, chunk_size=c), without_decay, make)


@pytest.mark.parametrize("tokens", [*LENGTHS, 1000])
def test_gla_forms_are_the_reference(tokens: int) -> None:
    def make() -> Inputs:
        inputs = delta_inputs(tokens, K)
        del inputs["beta"]
        return inputs

    reference = lambda x: naive_gla(**x)  # noqa: E731
    compare(stepped(recurrent_gla, "q", "k", "v", "g"), reference, make)
    for size in (16, 64):
        compare(lambda x, c=size: chunk_gla(**x, chunk_size=c), reference, make)


def test_gla_survives_decays_that_overflow_when_split() -> None:
    inputs = {n: x.detach().float() for n, x in delta_inputs(65, K, strongest_decay=40.0).items()}
    del inputs["beta"]
    got = chunk_gla(**inputs, chunk_size=64)
    wanted = naive_gla(**{name: x.double() for name, x in inputs.items()})
    # The exponents' float32 spacing, see the test of kda.
    assert_close("out", got[0].double(), wanted[0], 2e-4)
    assert_close("state", got[1].double(), wanted[1], 2e-4)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("tokens", [*LENGTHS, 1000])
def test_linear_attention_forms_are_the_reference(tokens: int, normalize: bool) -> None:
    def make() -> Inputs:
        inputs = {n: x.detach() for n, x in lightning_inputs(tokens).items()}
        inputs |= {name: elu1(inputs[name]) for name in ("q", "k", "state")}
        if normalize:
            # What the state has seen of the keys, positive as they are.
            inputs["state"] = torch.cat((inputs["state"], inputs["state"][..., :1]), dim=-1)
        return {name: x.requires_grad_() for name, x in inputs.items()}

    reference = lambda x: naive_linear_attention(**x, normalize=normalize)  # noqa: E731
    step = lambda *x: recurrent_linear_attention(*x, normalize=normalize)  # noqa: E731
    compare(stepped(step, "q", "k", "v"), reference, make)
    for size in (16, 64):
        compare(
            lambda x, c=size: chunk_linear_attention(**x, normalize=normalize, chunk_size=c),
            reference,
            make,
        )


def test_elu1_keeps_small_values() -> None:
    x = torch.tensor([-3.0, -0.5, 0.0, 2.0], dtype=torch.float64)
    assert_close("elu1", elu1(x), torch.nn.functional.elu(x) + 1, 1e-12)
    # Beside the 1, exp(-20) is below float32's spacing.
    assert elu1(torch.tensor([-20.0])).item() == pytest.approx(2.0611536e-9)


def test_random_features_estimate_the_softmax_kernel() -> None:
    inputs = lightning_inputs(30)
    q, k = inputs["q"].detach() / 2, inputs["k"].detach() / 2
    projection = draw_projection(8192, K, seed=0).double()
    kernel = (torch.einsum("bthk,bthk->bth", q, k) / K**0.5).exp()
    found = (random_features(q, projection) * random_features(k, projection)).sum(-1)
    # The deviation is about exp(|x + y|^2 / 2) / sqrt(8192) of the kernel: a few percent here.
    assert (found / kernel - 1).mean().abs() < 0.02
    assert (found / kernel - 1).square().mean().sqrt() < 0.05


def test_random_directions_are_orthogonal_fixed_and_as_long_as_gaussian_ones() -> None:
    projection = draw_projection(3 * K + 2, K, seed=7)
    assert torch.equal(projection, draw_projection(3 * K + 2, K, seed=7))
    assert not torch.equal(projection, draw_projection(3 * K + 2, K, seed=8))
    group = torch.nn.functional.normalize(projection[K : 2 * K].double(), dim=-1)
    assert_close("gram", group @ group.mT, torch.eye(K, dtype=torch.float64), 1e-6)
    norms = draw_projection(64 * K, K, seed=0).square().sum(-1)  # chi-squared with K degrees
    assert norms.mean().item() == pytest.approx(K, rel=0.05)
    assert norms.var().item() == pytest.approx(2 * K, rel=0.2)
