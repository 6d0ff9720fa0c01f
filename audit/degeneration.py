"""Whether a text has run into a loop: the one case in which a cut answer will not become another answer.

Deliberately strict. Gibberish, rule lines and encodings are no loops: an answer that was cut in the middle of them may
still say the fact, and is asked again.
"""

from __future__ import annotations

from functools import lru_cache

_SHORTEST_TAIL = 60  # characters
_LONGEST_PERIOD = 120
_REPEATS = 4


@lru_cache(maxsize=65536)
def loops_to_the_end(text: str) -> bool:
    """The last half of the text, at least 60 characters, repeats one piece of at most 120 characters exactly.

    The piece holds a letter or a digit and stands there at least four times; the last one may be cut.
    """
    text = text.rstrip()
    tail = text[len(text) // 2 :]
    if len(tail) < _SHORTEST_TAIL:
        return False
    for period in range(1, min(_LONGEST_PERIOD, len(tail) // _REPEATS) + 1):
        if tail[period:] == tail[:-period]:
            return any(character.isalnum() for character in tail[:period])
    return False
