"""How the texts themselves look: empty, cut, degenerate, refusing, all the same."""

from __future__ import annotations

from collections import Counter

from audit.asking import Asked
from audit.judges.rules.texts import is_degenerate, is_refusal
from audit.report.model import Texts


def texts_of(asked: Asked, split: str) -> Texts | None:
    """Shares over the responses to one split's planned probes; None without responses."""
    wanted = {probe.id for probe in asked.probes if probe.split == split and probe.parent is None}
    responses = [response for response in asked.responses if response.probe_id in wanted]
    finished = [response for response in responses if response.finish != "error"]
    if not responses:
        return None
    n = max(1, len(finished))
    counts = Counter(response.text.strip() for response in finished)
    degenerate = {text: is_degenerate(text) for text in counts}
    refusal = {text: is_refusal(text) for text in counts}
    return Texts(
        n=len(finished),
        empty=counts.get("", 0) / n,
        truncated=sum(response.finish == "length" for response in finished) / n,
        degenerate=sum(count for text, count in counts.items() if degenerate[text] and text) / n,
        refusal=sum(count for text, count in counts.items() if refusal[text]) / n,
        identical=max(counts.values(), default=0) / n,
        failed=len(responses) - len(finished),
        first_error=next((response.error or "" for response in responses if response.finish == "error"), ""),
    )
