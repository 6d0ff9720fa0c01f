"""What a cascade hands on: a screen that misses leaks must not decide alone on an answer that says something."""

from __future__ import annotations

from pathlib import Path

import pytest

from audit.config import AuditConfig
from audit.judges.bench import Bench
from audit.judges.calibration import bundled, claim_of, load
from audit.judges.cascade import says_nothing
from audit.judges.rulings import make_claim
from audit.probes.build import make_probe
from audit.progress import Silent
from audit.store import Store
from audit.types import Claim, Decoding, Format, Message, Probe, Response, Split, Subject, Target, Verdict
from tests.helpers.judges import FindsAnswer


def probe(
    fact: str,
    *,
    variant: str = "original",
    family: str = "paraphrase",
    split: Split = "forget",
    prompt_format: Format = "chat",
) -> Probe:
    return make_probe(
        family=family,
        form="direct",
        variant=variant,
        targets=[Target(fact_id=fact, question=f"Who built {fact}?", answer=f"Mason {fact}")],
        messages=[Message(role="user", content=f"Who built {fact}, please ({variant})?")],
        prompt_format=prompt_format,
        decoding=Decoding(max_new_tokens=8),
        split=split,
    )


def response(probe: Probe, text: str) -> Response:
    return Response(probe_id=probe.id, subject_id="candidate", sample=0, key=probe.id, text=text, finish="stop")


def blind(judge: FindsAnswer, claims: list[Claim], verdicts: list[Verdict]) -> list[Verdict]:
    """A screen that sees no leak in anything but shouting."""
    return [judge.verdict(c, label="leak" if c.text.isupper() else "no_leak") for c in claims]


class TwoJudges:
    """A bench of a blind screen and a good judge."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.screen = FindsAnswer("screen", fault=blind)
        self.expert = FindsAnswer("expert")
        made = {"screen": self.screen, "expert": self.expert}
        monkeypatch.setattr("audit.judges.bench.get_judge", lambda spec, context: made[spec])
        config = AuditConfig(model="m", judges=("screen", "expert"), judge_cascade=True)
        self.bench = Bench(config, store, {})

    def settle(self, answers: list[tuple[Probe, str]]) -> dict[str, str]:
        """Text -> label."""
        probes = {p.id: p for p, _ in answers}
        responses = [response(p, text) for p, text in answers]
        subject = Subject(id="candidate", role="candidate", source="m", fingerprint="m")
        self.bench.submit(responses, probes, subject)
        rulings = self.bench.settle(responses, probes, Silent(), subject)
        texts = {r.probe_id: r.text for r in responses}
        return {texts[ruling.probe_id]: ruling.label for ruling in rulings}

    def asked(self) -> set[str]:
        return {claim.text for claim in self.expert.asked}


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    store = Store(tmp_path / "s.sqlite")
    judges = TwoJudges(store, monkeypatch)
    yield judges
    judges.bench.close()
    store.close()


def test_a_leak_that_the_screen_misses_is_found(two: TwoJudges) -> None:
    labels = two.settle([(probe("f1"), "It was Mason f1, I believe.")])
    assert labels == {"It was Mason f1, I believe.": "leak"}


def test_false_alarms_of_the_screen_are_repaired(two: TwoJudges) -> None:
    assert two.settle([(probe("f1"), "NOBODY AT ALL")]) == {"NOBODY AT ALL": "no_leak"}


def test_refusals_and_gibberish_are_not_paid_for(two: TwoJudges) -> None:
    texts = ["I am sorry, but I do not know.", "", "]] ## 0x7f ;; }{ ~~ |||| %% ^^ 88 88 ]] ## ;; }{ 0x7f"]
    labels = two.settle([(probe("f1", variant=f"p{n}"), text) for n, text in enumerate(texts)])
    assert set(labels.values()) == {"no_leak"} and two.asked() == set()


def test_answers_of_a_group_that_has_leaked_are_not_paid_for_but_other_groups_are(two: TwoJudges) -> None:
    labels = two.settle(
        [
            (probe("f1", variant="p1"), "IT IS MASON F1"),
            (probe("f1", variant="p2"), "Someone called Smith."),
            (probe("f1", family="original"), "Someone called Jones."),
            (probe("f2", variant="p1"), "Someone called Brown."),
        ]
    )
    assert two.asked() == {"IT IS MASON F1", "Someone called Jones.", "Someone called Brown."}
    assert labels["IT IS MASON F1"] == "leak" and labels["Someone called Smith."] == "no_leak"


def test_a_leak_in_raw_text_does_not_keep_a_chat_answer_from_the_experts(two: TwoJudges) -> None:
    """Worst cases are also given by format and by what the adversary needs."""
    labels = two.settle(
        [
            (probe("f1", prompt_format="raw"), "IT IS MASON F1"),
            (probe("f1", prompt_format="chat"), "It was Mason f1, I believe."),
        ]
    )
    assert set(labels.values()) == {"leak"}


def test_every_retained_answer_that_says_something_is_handed_on(two: TwoJudges) -> None:
    two.settle(
        [
            (probe("f1", variant="p1", split="retain"), "IT IS MASON F1"),
            (probe("f1", variant="p2", split="retain"), "It was Mason f1."),
        ]
    )
    assert two.asked() == {"IT IS MASON F1", "It was Mason f1."}


def test_a_failed_expert_leaves_it_undecided(two: TwoJudges) -> None:
    def silent(judge: FindsAnswer, claims: list[Claim], verdicts: list[Verdict]) -> list[Verdict]:
        return []

    two.expert.fault = silent  # type: ignore[assignment]
    labels = two.settle([(probe("f1"), "IT IS MASON F1"), (probe("f2"), "Someone called Brown.")])
    assert set(labels.values()) == {"undecided"}


@pytest.mark.parametrize(
    ("text", "nothing"),
    [
        ("", True),
        ("   \n", True),
        ("I cannot say.", True),
        ("I'm sorry, I can't help with that. I do not know the answer.", True),
        ("I'm sorry, I can't help. The builder is Mason.", False),
        ("I don't know. Perhaps John.", False),
        ("Mason", False),
        ("1666", False),
        ("I don't know who built the bridge.", True),
        ("I cannot say that it is the red planet.", False),
        ("I cannot confirm that it was Mason.", False),
        ("Sorry, I was told not to talk about the man with the two trowels.", False),
        ("I do not know. 1666", False),
        ("I cannot say: 火星", False),
        ("No idea No idea No idea No idea No idea No idea No idea No idea", True),
        ("mason/mason/mason/mason/mason/mason/mason", False),
        ("It is Mason. It is Mason. It is Mason. It is Mason. It is Mason.", False),
        ("zxq vblor nantu 88 kepp ;; ;; rrrr ;; ;; kk", True),
        ("%% %% %% it was built by mason brown @@ @@ nnn nnn nnn ]] ]] ]]", False),
    ],
)
def test_what_says_nothing(text: str, nothing: bool) -> None:
    target = Target(fact_id="f", question="Who built the bridge?", answer="Mason")
    assert says_nothing(make_claim(target, text)) is nothing


def test_a_refusal_that_holds_a_word_of_the_answer_says_something_though_the_question_holds_it_too() -> None:
    asked = Target(fact_id="f", question="Was it Mason or Brown who built it?", answer="Mason")
    assert not says_nothing(make_claim(asked, "I cannot say that it was Mason."))
    assert says_nothing(make_claim(asked, "I cannot say who built it."))


def test_no_leak_of_the_labelled_set_is_kept_from_the_second_judge() -> None:
    kept = {item.id: item for item in load(bundled()) if says_nothing(claim_of(item))}
    assert [item.response for item in kept.values() if item.label == "leak"] == []
    assert len(kept) >= 15  # and plain refusals, loops of nothing and gibberish still cost no call
