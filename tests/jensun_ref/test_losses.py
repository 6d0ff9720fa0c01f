"""The closed forms against definitions in double precision, their gradients, and how they are averaged."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from jensun_ref.losses import (  # noqa: E402
    IGNORE,
    LN2,
    cyclic_refusal,
    gradient_ascent,
    jensun_forget,
    jensun_retain,
    jsd,
    jsd_one_hot,
    mean_by_sample,
)

pytestmark = pytest.mark.model


def by_definition(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """JSD over the last axis in float64, from probabilities, by the two divergences to the mixture."""
    p, q = p.double(), q.double()
    m = (p + q) / 2
    left = torch.where(p > 0, p * (p / m).log(), torch.zeros_like(p)).sum(-1)
    right = torch.where(q > 0, q * (q / m).log(), torch.zeros_like(q)).sum(-1)
    return (left + right) / 2


def random_logits(seed: int, *shape: int, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_one_hot_equals_the_definition_over_the_whole_vocabulary(scale: float) -> None:
    logits = random_logits(0, 64, 50, scale=scale)
    target = torch.arange(64) % 50
    expected = by_definition(
        torch.softmax(logits.double(), -1), torch.nn.functional.one_hot(target, 50).to(torch.float64)
    )
    log_p = torch.log_softmax(logits, -1).gather(-1, target[:, None]).squeeze(-1)
    assert torch.allclose(jsd_one_hot(log_p).double(), expected, atol=2e-7)


@pytest.mark.parametrize("exponent", [-1, -2, -3, -4, -5, -6])
def test_one_hot_keeps_its_digits_near_certainty(exponent: int) -> None:
    """At p = 1 - q the divergence is near q ln(2) / 2, far below the rounding of numbers near ln 2."""
    q = 10.0**exponent
    log_p = torch.tensor(math.log1p(-q), dtype=torch.float32)
    p = math.exp(log_p.item())
    exact = LN2 + (p * math.log(p) - (1 + p) * math.log1p(p)) / 2
    assert jsd_one_hot(log_p).item() == pytest.approx(exact, rel=2e-5)


def test_one_hot_at_both_ends() -> None:
    values = jsd_one_hot(torch.tensor([0.0, -1e-30, -100.0, -1e4, -math.inf]))
    assert values.tolist() == pytest.approx([0.0, 0.0, LN2, LN2, LN2], abs=1e-7)


@given(st.floats(min_value=-1e6, max_value=0.0, width=32))
def test_one_hot_lies_between_0_and_ln_2(log_p: float) -> None:
    assert 0.0 <= jsd_one_hot(torch.tensor(log_p)).item() <= LN2 + 1e-7


@given(st.integers(0, 10**6), st.floats(0.01, 50))
@settings(max_examples=50, deadline=None)
def test_jsd_is_bounded_symmetric_and_right(seed: int, scale: float) -> None:
    log_p = torch.log_softmax(random_logits(seed, 4, 30, scale=scale), -1)
    log_q = torch.log_softmax(random_logits(seed + 1, 4, 30, scale=scale), -1)
    value = jsd(log_p, log_q)
    assert ((value >= 0) & (value <= LN2 + 1e-6)).all()
    assert torch.allclose(value, jsd(log_q, log_p), atol=1e-6)
    assert torch.allclose(value.double(), by_definition(log_p.double().exp(), log_q.double().exp()), atol=1e-5)
    assert jsd(log_p, log_p).abs().max() < 1e-6


def test_jsd_of_disjoint_distributions_is_ln_2() -> None:
    log_p = torch.tensor([0.0, -math.inf, -math.inf])
    log_q = torch.tensor([-math.inf, math.log(0.5), math.log(0.5)])
    assert jsd(log_p, log_q).item() == pytest.approx(LN2, abs=1e-6)
    assert jsd(log_q, log_q).item() == pytest.approx(0.0, abs=1e-6)


def test_gradient_on_the_target_logit_has_its_closed_form() -> None:
    logits = random_logits(3, 40, 20).requires_grad_(True)
    target = torch.arange(40) % 20
    log_p = torch.log_softmax(logits, -1).gather(-1, target[:, None]).squeeze(-1)
    jsd_one_hot(log_p).sum().backward()
    p = log_p.detach().double().exp()
    expected = p * (1 - p) * torch.log(p / (1 + p)) / 2
    found = logits.grad.gather(-1, target[:, None]).squeeze(-1).double()
    assert torch.allclose(found, expected, atol=1e-7, rtol=1e-4)


@pytest.mark.parametrize("log_p", [-0.0, -1e-7, -1e-3, -0.7, -5.0, -40.0, -200.0, -1e5])
def test_gradient_is_finite_everywhere_and_vanishes_for_impossible_tokens(log_p: float) -> None:
    x = torch.tensor(log_p, requires_grad=True)
    jsd_one_hot(x).backward()
    assert math.isfinite(x.grad.item())
    assert x.grad.item() <= 0.0
    if log_p <= -40:
        assert abs(x.grad.item()) < 1e-12


def test_gradients_equal_finite_differences() -> None:
    logits = random_logits(5, 2, 3, 7).double()
    other = random_logits(6, 2, 3, 7).double()
    labels = torch.tensor([[4, 2, IGNORE], [1, IGNORE, IGNORE]])
    losses = {
        "forget": lambda z: jensun_forget(z, cyclic_refusal(labels, torch.tensor([3, 5]))),
        "retain": lambda z: jensun_retain(z, other, labels),
        "ascent": lambda z: gradient_ascent(z, labels),
    }
    for name, loss in losses.items():
        z = logits.clone().requires_grad_(True)
        loss(z).backward()
        for place in [(0, 0, 3), (0, 1, 5), (0, 2, 0), (1, 0, 3), (1, 0, 1)]:
            step = torch.zeros_like(logits)
            step[place] = 1e-2  # the losses compute in float32: larger steps than double precision would take
            slope = (loss(logits + step).item() - loss(logits - step).item()) / 2e-2
            assert z.grad[place].item() == pytest.approx(slope, abs=2e-4), (name, place)
        assert z.grad[0, 2].abs().max() == 0, f"{name}: a position outside the answer has a gradient"


def test_the_refusal_is_repeated_over_each_answer() -> None:
    labels = torch.tensor([[IGNORE, 7, 8, 9, IGNORE], [5, IGNORE, 6, 7, 8]])
    targets = cyclic_refusal(labels, torch.tensor([1, 2]))
    assert targets.tolist() == [[IGNORE, 1, 2, 1, IGNORE], [1, IGNORE, 2, 1, 2]]


def test_the_mean_is_over_positions_then_over_samples() -> None:
    values = torch.tensor([[1.0, 1.0, 1.0, 1.0], [5.0, 99.0, 99.0, 99.0]])
    inside = torch.tensor([[True, True, True, True], [True, False, False, False]])
    assert mean_by_sample(values, inside).item() == 3.0


def test_forget_is_zero_for_the_refusal_and_ln_2_for_certainty_elsewhere() -> None:
    labels = torch.tensor([[4, 4, 4]])
    targets = cyclic_refusal(labels, torch.tensor([1, 2]))
    sure = torch.full((1, 3, 6), -100.0)
    sure[0, torch.arange(3), torch.tensor([1, 2, 1])] = 100.0
    assert jensun_forget(sure, targets).item() == pytest.approx(0.0, abs=1e-6)
    assert jensun_forget(-sure, targets).item() == pytest.approx(LN2, abs=1e-6)


def test_gradient_ascent_is_minus_the_cross_entropy_of_the_answer() -> None:
    logits = random_logits(9, 1, 4, 11)
    labels = torch.tensor([[IGNORE, 3, 5, IGNORE]])
    expected = torch.nn.functional.cross_entropy(logits[0], labels[0], ignore_index=IGNORE)
    assert gradient_ascent(logits, labels).item() == pytest.approx(-expected.item(), rel=1e-6)
