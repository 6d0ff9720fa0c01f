"""Every loss against a slow reference in double precision written from its formula, and its gradient by differences."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from jensun_ref import losses as L  # noqa: E402

pytestmark = pytest.mark.model

V = 13
LABELS = torch.tensor([[4, 2, L.IGNORE, 7], [1, L.IGNORE, L.IGNORE, L.IGNORE], [12, 0, 3, 5]])
INSIDE = LABELS != L.IGNORE


def logits(seed: int, scale: float = 2.0) -> torch.Tensor:
    drawn = torch.randn(*LABELS.shape, V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return scale * drawn


def probabilities(row: torch.Tensor) -> list[float]:
    """Softmax of one position, by its definition."""
    highest = max(row.tolist())
    powers = [math.exp(x - highest) for x in row.tolist()]
    return [power / sum(powers) for power in powers]


def by_position(z: torch.Tensor, value: Callable[[list[float], int, int, int], float]) -> float:
    """Mean over each sample's answer positions, then over samples."""
    samples = []
    for n in range(len(LABELS)):
        found = [value(probabilities(z[n, t]), int(LABELS[n, t]), n, t) for t in range(LABELS.shape[1]) if INSIDE[n, t]]
        samples.append(sum(found) / len(found))
    return sum(samples) / len(samples)


def sums(z: torch.Tensor) -> list[float]:
    """ln p of each sample's whole answer."""
    return [
        sum(math.log(probabilities(z[n, t])[int(LABELS[n, t])]) for t in range(LABELS.shape[1]) if INSIDE[n, t])
        for n in range(len(LABELS))
    ]


def sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


REFERENCE = logits(100)
OTHER = logits(101)
REFUSAL = torch.tensor([3, 9])
LENGTHS = INSIDE.sum(-1)
Z = torch.Tensor


def slow_jsd(p: list[float], q: list[float]) -> float:
    m = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    left = sum(a * math.log(a / c) for a, c in zip(p, m, strict=True) if a > 0)
    right = sum(b * math.log(b / c) for b, c in zip(q, m, strict=True) if b > 0)
    return (left + right) / 2


def slow_refusal(p: list[float], label: int, n: int, t: int) -> float:
    place = sum(bool(INSIDE[n, s]) for s in range(t))
    return slow_jsd(p, [float(v == int(REFUSAL[place % 2])) for v in range(V)])


def slow_undial(p: list[float], label: int, n: int, t: int) -> float:
    lowered = [x - 4.0 * (v == label) for v, x in enumerate(REFERENCE[n, t].tolist())]
    soft = probabilities(torch.tensor(lowered, dtype=torch.float64))
    return -sum(a * math.log(b) for a, b in zip(soft, p, strict=True))


def slow_belief(p: list[float], label: int, n: int, t: int) -> float:
    best = sorted(range(V), key=lambda v: -p[v])[:3]
    total = sum(p[v] for v in best)
    believed = sum(p[v] / total * math.log(p[v]) for v in best)
    return 0.7 * math.log(p[label]) + 0.3 * believed


def slow_weighted(z: Z, weight: Callable[[float], float]) -> float:
    found = []
    for n in range(len(LABELS)):
        for t in range(LABELS.shape[1]):
            if INSIDE[n, t]:
                p = probabilities(z[n, t])[int(LABELS[n, t])]
                found.append(weight(p) * math.log(p))
    return sum(found) / len(found)


def weights(z: Z, beta1: float, beta2: float) -> Z:
    return L.satimp(L.token_log_probs(z.detach(), LABELS).exp(), beta1, beta2)


def ratio(a: list[float], b: list[float]) -> list[float]:
    return [x - y for x, y in zip(a, b, strict=True)]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def whole(z: Z) -> Z:
    return L.sum_log_prob(z, LABELS, 2)


R, O = whole(REFERENCE), whole(OTHER)  # noqa: E741
SR, SO = sums(REFERENCE), sums(OTHER)

#: name -> the loss as it is, and by its formula. Chunks of 2 and 5 positions cut the twelve unevenly.
CASES: dict[str, tuple[Callable[[Z], Z], Callable[[Z], float]]] = {
    "cross_entropy": (
        lambda z: L.cross_entropy(z, LABELS, 5),
        lambda z: by_position(z, lambda p, label, n, t: -math.log(p[label])),
    ),
    "gradient_ascent": (
        lambda z: L.gradient_ascent(z, LABELS, 2),
        lambda z: by_position(z, lambda p, label, n, t: math.log(p[label])),
    ),
    "jensun_forget": (
        lambda z: L.jensun_forget(z, L.cyclic_refusal(LABELS, REFUSAL), 5),
        lambda z: by_position(z, slow_refusal),
    ),
    "jensun_retain": (
        lambda z: L.jensun_retain(z, REFERENCE, LABELS, 5),
        lambda z: by_position(z, lambda p, label, n, t: slow_jsd(p, probabilities(REFERENCE[n, t]))),
    ),
    "kl_to_reference": (
        lambda z: L.kl_to_reference(z, REFERENCE, LABELS, 5),
        lambda z: by_position(
            z,
            lambda p, label, n, t: sum(
                q * math.log(q / own) for q, own in zip(probabilities(REFERENCE[n, t]), p, strict=True)
            ),
        ),
    ),
    "max_entropy": (
        lambda z: L.max_entropy(z, LABELS, 5),
        lambda z: by_position(z, lambda p, label, n, t: sum(own * math.log(own * V) for own in p)),
    ),
    "undial": (lambda z: L.undial(z, REFERENCE, LABELS, 4.0, 5), lambda z: by_position(z, slow_undial)),
    "bootstrapped_ascent": (
        lambda z: L.bootstrapped_ascent(z, LABELS, 0.3, 3, 5),
        lambda z: by_position(z, slow_belief),
    ),
    "weighted_ascent": (
        lambda z: L.weighted_ascent(z, LABELS, weights(z, 2.0, 0.5), 5),
        lambda z: slow_weighted(z, lambda p: p**2 * (1 - p) ** 0.5),
    ),
    "dpo": (
        lambda z: L.dpo(O, whole(z), O - 1.0, R, 0.7),
        lambda z: mean([-math.log(sigmoid(0.7 * (1.0 - x))) for x in ratio(sums(z), SR)]),
    ),
    "npo": (
        lambda z: L.npo(whole(z), R, 0.4),
        lambda z: mean([2 / 0.4 * math.log(1 + math.exp(x) ** 0.4) for x in ratio(sums(z), SR)]),
    ),
    "simnpo": (
        lambda z: L.simnpo(whole(z), LENGTHS, 2.5, 0.2),
        lambda z: mean(
            [-2 / 2.5 * math.log(sigmoid(-2.5 / int(n) * x - 0.2)) for x, n in zip(sums(z), LENGTHS, strict=True)]
        ),
    ),
    "answer_preservation": (
        lambda z: L.answer_preservation(whole(z), O, 0.3),
        lambda z: mean([-1 / 0.3 * math.log(sigmoid(-0.3 * x)) for x in ratio(SO, sums(z))]),
    ),
    "misdirection": (
        lambda z: L.misdirection(z, torch.arange(V, dtype=torch.float64), INSIDE),
        lambda z: mean(
            [
                mean(
                    [
                        mean([(float(x) - v) ** 2 for v, x in enumerate(z[n, t])])
                        for t in range(LABELS.shape[1])
                        if INSIDE[n, t]
                    ]
                )
                for n in range(len(LABELS))
            ]
        ),
    ),
}

#: Losses whose weights or targets are constants made of the logits: differences would see them move.
MOVING = {"bootstrapped_ascent", "weighted_ascent"}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("scale", [0.3, 2.0, 8.0])
def test_value_equals_the_formula(name: str, scale: float) -> None:
    z = logits(1, scale)
    fast, slow = CASES[name]
    assert fast(z).item() == pytest.approx(slow(z), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", sorted(CASES.keys() - MOVING))
def test_gradient_equals_finite_differences(name: str) -> None:
    assert torch.autograd.gradcheck(CASES[name][0], (logits(2).requires_grad_(True),), eps=1e-6, atol=1e-7)


def test_gradient_of_losses_with_constant_weights() -> None:
    """Weights and beliefs, once made, are held still: then differences agree too."""
    z = logits(2)
    held = weights(z, 2.0, 0.5)
    assert torch.autograd.gradcheck(
        lambda x: L.weighted_ascent(x, LABELS, held, 5), (z.clone().requires_grad_(True),), atol=1e-7
    )
    best = z.topk(3, dim=-1)
    soft = torch.zeros_like(z).scatter(-1, best.indices, 0.3 * best.values.softmax(-1))
    soft.scatter_add_(-1, LABELS.clamp(min=0).unsqueeze(-1), torch.full((*LABELS.shape, 1), 0.7, dtype=z.dtype))
    mine, theirs = (z.clone().requires_grad_(True) for _ in range(2))
    L.bootstrapped_ascent(mine, LABELS, 0.3, 3).backward()
    L.mean_by_sample((soft * theirs.log_softmax(-1)).sum(-1), INSIDE).backward()
    assert torch.allclose(mine.grad, theirs.grad, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_nothing_outside_the_answer_has_a_gradient_and_chunks_do_not_matter(name: str) -> None:
    z = logits(3).requires_grad_(True)
    CASES[name][0](z).backward()
    assert z.grad[~INSIDE].abs().max() == 0
    assert z.grad[INSIDE].abs().max() > 0


@pytest.mark.parametrize("chunk", [1, 2, 7, 12, 1000])
def test_any_chunk_gives_the_same_loss_and_gradient(chunk: int) -> None:
    for loss in (
        lambda z, c: L.jensun_retain(z, REFERENCE, LABELS, c),
        lambda z, c: L.undial(z, REFERENCE, LABELS, 4.0, c),
        lambda z, c: L.cross_entropy(z, LABELS, c),
    ):
        one, other = (logits(4).requires_grad_(True) for _ in range(2))
        values = loss(one, chunk), loss(other, 12)
        for value in values:
            value.backward()
        assert values[0].item() == pytest.approx(values[1].item(), rel=1e-12)
        assert torch.allclose(one.grad, other.grad, atol=1e-14)


@pytest.mark.parametrize("name", sorted(CASES.keys() - {"misdirection"}))
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([0.0, 1.0, 50.0, 1e4]))
@settings(max_examples=12, deadline=None)
def test_extreme_logits_in_bfloat16_give_finite_losses_and_gradients(name: str, seed: int, scale: float) -> None:
    z = logits(seed, scale).to(torch.bfloat16).requires_grad_(True)
    value = CASES[name][0](z)
    value.sum().backward()
    assert value.dtype in (torch.float32, torch.float64) and math.isfinite(value.item())
    assert z.grad.dtype == torch.bfloat16 and bool(z.grad.isfinite().all())


@given(seed=st.integers(0, 10**6), scale=st.floats(0.01, 100))
@settings(max_examples=60, deadline=None)
def test_bounds(seed: int, scale: float) -> None:
    z = logits(seed, scale)
    assert 0 <= L.jensun_forget(z, L.cyclic_refusal(LABELS, REFUSAL)) <= L.LN2 + 1e-12
    assert 0 <= L.jensun_retain(z, REFERENCE, LABELS) <= L.LN2 + 1e-12
    assert L.kl_to_reference(z, REFERENCE, LABELS) >= 0
    assert 0 <= L.max_entropy(z, LABELS) <= math.log(V) + 1e-12
    assert L.gradient_ascent(z, LABELS) <= 0 <= L.cross_entropy(z, LABELS)
    assert L.npo(whole(z), R, 0.1) >= 0 and L.simnpo(whole(z), LENGTHS, 2.5, 0.0) >= 0


@given(seed=st.integers(0, 10**6), scale=st.floats(0.01, 30))
@settings(max_examples=60, deadline=None)
def test_jensun_pulls_no_harder_than_a_third_of_cross_entropy(seed: int, scale: float) -> None:
    """On the same target the ratio of the gradients in the logits is p ln((1 + p) / p) / 2, at most ln(2) / 2."""
    targets = L.cyclic_refusal(LABELS, REFUSAL)
    one, other = (logits(seed, scale).requires_grad_(True) for _ in range(2))
    L.jensun_forget(one, targets).backward()
    L.cross_entropy(other, targets).backward()
    steep, gentle = other.grad[INSIDE].norm(dim=-1), one.grad[INSIDE].norm(dim=-1)
    assert bool((gentle <= 0.347 * steep + 1e-15).all())


def test_npo_becomes_gradient_ascent_as_beta_vanishes() -> None:
    one, other = (logits(7).requires_grad_(True) for _ in range(2))
    L.npo(whole(one), R, 1e-5).backward()
    whole(other).mean().backward()
    assert torch.allclose(one.grad, other.grad, atol=1e-4)
    moved = L.npo(whole(logits(7)), R, 1e-5) - 2 / 1e-5 * L.LN2
    assert moved.item() == pytest.approx((whole(logits(7)) - R).mean().item(), abs=1e-3)


def test_equal_policies() -> None:
    assert L.dpo(O, R, O, R, 0.3).item() == pytest.approx(L.LN2)
    assert L.npo(R, R, 0.5).item() == pytest.approx(2 / 0.5 * L.LN2)
    assert L.kl_to_reference(REFERENCE, REFERENCE, LABELS).item() == pytest.approx(0, abs=1e-12)
    assert L.jensun_retain(REFERENCE, REFERENCE, LABELS).item() == pytest.approx(0, abs=1e-12)


def test_simnpo_divides_the_length_out() -> None:
    """An answer twice as long with the same mean token has the same loss; NPO's differs."""
    short, long = torch.tensor([-3.0]), torch.tensor([-6.0])
    once, twice = torch.tensor([2]), torch.tensor([4])
    assert L.simnpo(short, once, 2.0, 0.0) == L.simnpo(long, twice, 2.0, 0.0)
    zero = torch.zeros(1)
    assert L.npo(short, zero, 2.0) != L.npo(long, zero, 2.0)


def test_shares_and_powers_of_nothing_are_gradient_ascent() -> None:
    z = logits(8)
    assert torch.allclose(L.bootstrapped_ascent(z, LABELS, 0.0, 5), L.gradient_ascent(z, LABELS))
    assert torch.allclose(weights(z, 0.0, 0.0), torch.ones(LABELS.shape, dtype=z.dtype))
    flat = torch.zeros_like(z)
    assert L.max_entropy(flat, LABELS).item() == pytest.approx(0, abs=1e-12)


def test_nothing_of_vocabulary_size_is_kept_beside_the_logits() -> None:
    """What autograd keeps until the backward pass: the logits, the reference's, and nothing else of their size."""
    n, vocabulary = 32, 4096
    own = torch.randn(2, n // 2, vocabulary, requires_grad=True)
    before = torch.randn(2, n // 2, vocabulary)
    labels = torch.randint(0, vocabulary, (2, n // 2))
    given_memory = {x.untyped_storage().data_ptr() for x in (own, before)}
    for loss in (
        lambda: L.jensun_retain(own, before, labels, 8),
        lambda: L.kl_to_reference(own, before, labels, 8),
        lambda: L.undial(own, before, labels, 4.0, 8),
        lambda: L.jensun_forget(own, labels, 8),
        lambda: L.max_entropy(own, labels, 8),
        lambda: L.bootstrapped_ascent(own, labels, 0.5, 20, 8),
    ):
        kept: list[torch.Tensor] = []

        def keep(x: torch.Tensor, kept: list[torch.Tensor] = kept) -> torch.Tensor:
            kept.append(x)
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            loss()
        extra = [x for x in kept if x.numel() >= vocabulary and x.untyped_storage().data_ptr() not in given_memory]
        assert not extra, [tuple(x.shape) for x in extra]
        assert any(x.numel() == own.numel() for x in kept)
