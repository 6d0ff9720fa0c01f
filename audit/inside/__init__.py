"""Views of the inside of a model: what its probabilities, its weights and its hidden states show. Evidence, no gate."""

from audit.inside.lines import inside_lines
from audit.inside.look import look_inside
from audit.inside.records import InsideReport

__all__ = ["InsideReport", "inside_lines", "look_inside"]
