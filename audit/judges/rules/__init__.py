"""The deterministic judge `rules`: text in, three-valued verdict out, no model and no network."""

from audit.judges.rules.judge import RulesJudge, decide
from audit.judges.rules.texts import is_degenerate, is_refusal

__all__ = ["RulesJudge", "decide", "is_degenerate", "is_refusal"]
