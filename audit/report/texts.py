"""How the texts themselves look: empty, cut, degenerate, refusing, all the same."""

from __future__ import annotations

from collections import Counter

from audit.asking import Asked
from audit.report.model import Texts
from audit.utility.looks import first_replies, look, replied


def texts_of(asked: Asked, split: str) -> Texts | None:
    """Shares over the responses to one split's planned probes; None without responses."""
    came = [reply for _, _, reply in first_replies(asked, lambda probe: probe.split == split)]
    responses = [response for response in came if response is not None]
    if not responses:
        return None
    finished = [response for response in responses if replied(response)]
    n = max(1, len(finished))
    counts = Counter(response.text.strip() for response in finished)
    return Texts(
        n=len(finished),
        empty=counts.get("", 0) / n,
        truncated=sum(response.finish == "length" for response in finished) / n,
        degenerate=sum(count for text, count in counts.items() if look(text).degenerate) / n,
        refusal=sum(count for text, count in counts.items() if look(text).refusal) / n,
        identical=max(counts.values(), default=0) / n,
        failed=len(responses) - len(finished),
        first_error=next((response.error or "" for response in responses if response.finish == "error"), ""),
    )
