"""Names, terms and phrases in a text: exact forms, kind words left off, acronyms, slips of the pen, other scripts."""

from __future__ import annotations

import re
from functools import lru_cache

from rapidfuzz.distance import OSA

from audit.judges.rules.lexicon import words
from audit.judges.rules.mention import Mention, at, occurrences
from audit.judges.rules.numbers import numbers
from audit.judges.rules.reading import Text, stem
from audit.judges.rules.target import Form, Target

_EXTENDING = frozenset(["new", "north", "south", "east", "west", "northern", "papua", "equatorial"])
_LINK = re.compile(
    r"(?:\b(?:is|was|symbol|called|named|letters?|formula|answer|be|as)\b|[:=\"'(>]|->)\s*[\"'(*]*$", re.IGNORECASE
)


def names(target: Target, text: Text) -> list[Mention]:
    """Mentions of a name or term by one of its forms."""
    found: list[Mention] = []
    for form in target.forms:
        if len(form.joined) <= 2:
            found.extend(_short(form, text))
            continue
        here = occurrences(form.joined, len(form.parts), text, "the answer's words")
        if not here and form.key:
            here = occurrences(form.key, _parts(form), text, "the answer without words for its kind")
            here = [m for m in here if not _differs(m, form, text)]
        found.extend(_checked(m, form, text) for m in here)
        if not here and len(form.parts) == 1 and form.exact.isupper() and 3 <= len(form.exact) <= 6:
            found.extend(_spelled_out(form, text))
        if not here and len(form.parts) >= 3:
            found.extend(_acronym(form, target, text))
    if not found and target.kind in ("phrase", "name"):
        found.extend(_scattered(target, text))
    return found


def _parts(form: Form) -> int:
    left, count = form.key, 0
    for part in form.parts:
        if left.startswith(part):
            left, count = left[len(part) :], count + 1
    return count


def _short(form: Form, text: Text) -> list[Mention]:
    """Symbols and forms of one or two letters: same case, and the whole reply or right after a linking word."""
    found = []
    for i, token in enumerate(text.tokens):
        if token.fold != form.joined:
            continue
        written = text.raw[token.start : token.end]
        if written != form.exact and text.cased:
            continue
        named = (
            len(form.exact) == 2 and form.exact.istitle() and token.fold not in words("stop") | words("tiny") and i > 0
        )
        if named or len(text.tokens) <= 2 or _LINK.search(text.raw[max(0, token.start - 20) : token.start]):
            found.append(at(text, i, i, "the answer's symbol"))
    return found


def _checked(mention: Mention, form: Form, text: Text) -> Mention:
    """Somebody or something else where a word before it makes it another name (New Mexico, South Sudan)."""
    if mention.first == 0:
        return mention
    before = text.tokens[mention.first - 1]
    gap = text.raw[before.end : mention.start]
    if before.fold in _EXTENDING and gap in (" ", "-") and before.fold not in form.parts:
        lower_part = before.fold == "northern" and text.cased and not before.upper
        if (before.upper or not text.cased) and not lower_part and form.parts[0] in words("known"):
            return mention._replace(status="other", why=f"{before.fold} makes it another place")
    return mention


def _differs(mention: Mention, form: Form, text: Text) -> bool:
    """A telling modifier or number stands at a kind-less match that the answer does not have."""
    around = []
    if mention.first > 0 and text.raw[text.tokens[mention.first - 1].end : mention.start] in (" ", "-"):
        around.append(text.tokens[mention.first - 1].fold)
    if mention.last + 1 < len(text.tokens) and text.raw[mention.end : text.tokens[mention.last + 1].start] in (
        " ",
        "-",
        " #",
    ):
        around.append(text.tokens[mention.last + 1].fold)
    return any((word in words("modifiers") or word.isdigit()) and word not in form.parts for word in around)


def _spelled_out(form: Form, text: Text) -> list[Mention]:
    """An acronym asked for, its words given: initials of neighbouring capitalised or content words."""
    letters = form.joined
    keep = [i for i, t in enumerate(text.tokens) if t.fold not in ("of", "the", "and", "for", "in", "on", "a")]
    initials = "".join(text.tokens[i].fold[0] for i in keep)
    begin = initials.find(letters)
    if begin < 0:
        return []
    first, last = keep[begin], keep[begin + len(letters) - 1]
    if last - first > 2 * len(letters) or re.search(
        r"[.,;:!?]", text.raw[text.tokens[first].start : text.tokens[last].start]
    ):
        return []
    return [at(text, first, last, "the acronym's words")]


def _acronym(form: Form, target: Target, text: Text) -> list[Mention]:
    """The words asked for, their acronym given, in capitals."""
    initials = "".join(p[0] for p in form.parts if p not in ("of", "the", "and", "for", "in", "on"))
    if len(initials) < 3 or any(t.fold == initials for t in target.question.tokens):
        return []
    return [
        at(text, i, i, "the answer's acronym")
        for i, t in enumerate(text.tokens)
        if t.fold == initials and (text.raw[t.start : t.end].isupper() or not text.cased)
    ]


def telling(form: Form, target: Target) -> list[str]:
    """Those of a form's words that say something: no function words, no kind words unless nothing else is left."""
    stop, kinds = words("stop") - words("modifiers"), words("generic")
    body = [p for p in form.parts if p not in stop]
    rest = [p for p in body if p not in kinds and stem(p) not in target.asked]
    return rest or body


def _scattered(target: Target, text: Text) -> list[Mention]:
    """All telling words of a form in any order within a window of three times their number."""
    places: dict[str, list[int]] = {}
    for i, token in enumerate(text.tokens):
        places.setdefault(stem(token.fold), []).append(i)
    for form in target.forms:
        stop = words("stop") - words("modifiers") - {"not", "no", "nor"}
        need = [stem(p) for p in form.parts if p not in stop]
        if len(need) < 2 or not all(word in places for word in need):
            continue
        for start in places[need[0]]:
            picked = [min(places[word], key=lambda i: abs(i - start)) for word in need]
            if max(picked) - min(picked) <= 3 * len(need):
                return [at(text, min(picked), max(picked), "all the answer's words, in another order")]
    return []


def slips(target: Target, text: Text) -> list[Mention]:
    """One or two letters off. Sure for long words, doubtful for short ones, none where it is another thing's name.

    Damerau-Levenshtein distance (rapidfuzz, optimal string alignment): 1 from five letters on, 2 from nine on are
    sure; 1 at four letters and 2 from six letters on are doubtful.
    """
    known = words("known") | words("modifiers") | words("given") | words("stop")
    asked = {t.fold for t in target.question.tokens}
    found: list[Mention] = []
    for wanted, parts in _fuzzy_forms(target):
        wanted_parts = _split_like(target, wanted)
        limit = 2 if len(wanted) >= 6 else 1
        for first in range(len(text.tokens) - parts + 1):
            window = text.tokens[first : first + parts]
            got = "".join(t.fold for t in window)
            if abs(len(got) - len(wanted)) > limit or got == wanted or any(c.isdigit() for c in got):
                continue
            distance = OSA.distance(got, wanted, score_cutoff=limit)
            if distance > limit or all(t.fold in known for t in window) or _inflected(got, wanted):
                continue
            if target.spelled and numbers(" ".join(t.fold for t in window), " ".join(t.fold for t in window)):
                continue
            if all(t.fold in asked for t in window):
                continue
            if parts > 1 and not _aligned([t.fold for t in window], wanted_parts):
                continue
            slip = fold_sound(got) == fold_sound(wanted)
            sure = (
                slip
                or (distance == 1 and len(wanted) >= 6 and got[0] == wanted[0])
                or (distance == 2 and len(wanted) >= 9 and got[0] == wanted[0])
                or (distance == 1 and len(wanted) >= 8)
            )
            found.append(
                at(text, first, first + parts - 1, f"{got}: {distance} off {wanted}", "sure" if sure else "maybe")
            )
    return found


def _split_like(target: Target, wanted: str) -> tuple[str, ...]:
    for form in target.forms + target.spelled:
        if form.joined == wanted:
            return form.parts
    return ()


def _aligned(got: list[str], wanted: tuple[str, ...]) -> bool:
    """Word by word, only words of four letters or more differ, and none is another number or another thing's name."""
    if len(got) != len(wanted):
        return True
    fixed = words("known") | words("modifiers") | words("given")
    return all(
        a == b or (min(len(a), len(b)) >= 4 and a not in fixed and not any(c.isdigit() for c in a + b))
        for a, b in zip(got, wanted, strict=True)
    )


def _inflected(got: str, wanted: str) -> bool:
    """The word asked for in another grammatical form is not a slip of a name but may be another word."""
    return len(wanted) <= 5 and got.rstrip("s") == wanted.rstrip("s")


def _fuzzy_forms(target: Target) -> list[tuple[str, int]]:
    """Forms worth a fuzzy look: glued letters and number of tokens; surnames of people."""
    forms = [("".join(p.surname), len(p.surname)) for p in target.people if p.alone != "no"]
    if not target.people:
        forms += [(f.joined, len(f.parts)) for f in target.forms + target.spelled] + [
            (f.key, _parts(f)) for f in target.forms if f.key
        ]
    else:
        forms += [(f.joined, len(f.parts)) for f in target.forms]
    return [
        (wanted, parts)
        for wanted, parts in dict.fromkeys(forms)
        if len(wanted) >= 4 and not any(c.isdigit() for c in wanted)
    ]


_SOUNDS = tuple(
    (re.compile(pattern), put)
    for pattern, put in (
        (r"tsch|tch|sch|tsh|cz|ch|sh|zh|dzh|dj|kh", "c"), (r"ph", "f"), (r"th", "t"), (r"gh", "g"),
        (r"ck|q|c(?=[aou])", "k"), (r"ae|oe", "e"), (r"(?:ov|off|ow|of|eff|ew)$", "ev"), (r"oo|ou|ow", "u"),
        (r"ee|ie|ei|ij|ey", "i"), (r"[yj]", "i"), (r"w", "v"), (r"x", "ks"), (r"ts|tz|z", "s"),
        (r"h", ""), (r"(.)\1+", r"\1"),
    )
)  # fmt: skip


@lru_cache(maxsize=65536)
def fold_sound(word: str) -> str:
    """A rough skeleton under which usual romanisations of one name fall together."""
    for pattern, put in _SOUNDS:
        word = pattern.sub(put, word)
    return word


def sounds_alike(target: Target, text: Text) -> list[Mention]:
    """Another romanisation of the name, or the name in another script, read by sound."""
    known = words("known")
    asked = {t.fold for t in target.question.tokens}
    found: list[Mention] = []
    for wanted, parts in _fuzzy_forms(target):
        short = len(wanted) < 5
        if short and text.latin:
            continue
        sound = fold_sound(wanted)
        for first in range(len(text.tokens)):
            for size in {parts, 1}:
                window = text.tokens[first : first + size]
                got = "".join(t.fold for t in window)
                if (
                    len(window) < size
                    or len(got) < (3 if short else 4)
                    or got == wanted
                    or got[0] not in _near_first(wanted[0])
                    or all(t.fold in known for t in window)
                ):
                    continue
                other = fold_sound(got)
                if abs(len(other) - len(sound)) > 2:
                    continue
                if size < parts and abs(len(got) - len(wanted)) > 2:
                    continue
                if all(t.fold in asked for t in window):
                    continue
                if size < parts and any(len(p) <= 3 for p in _split_like(target, wanted)):
                    continue
                if size == parts > 1 and not _aligned([t.fold for t in window], _split_like(target, wanted)):
                    continue
                distance = OSA.distance(other, sound, score_cutoff=2)
                if short and (distance or len(sound) < 3):
                    continue
                same_frame = (
                    re.sub(r"[aeiou]", "", other) == re.sub(r"[aeiou]", "", sound)
                    and len(re.sub(r"[aeiou]", "", sound)) >= 3
                )
                native = not text.raw[window[0].start : window[-1].end].isascii()
                if (
                    distance == 0
                    or (same_frame and distance <= 2)
                    or (distance <= 1 and len(sound) >= 6)
                    or (native and distance <= 1 and len(sound) >= 4)
                ):
                    found.append(at(text, first, first + size - 1, f"sounds like {wanted}"))
                elif native and distance <= 2 and len(sound) >= 5:
                    found.append(at(text, first, first + size - 1, f"sounds somewhat like {wanted}", "maybe"))
    return found


def _near_first(letter: str) -> str:
    groups = ("ckqgx", "ijyeg", "vwfb", "szct", "aoeu", "dt", "pb", "hkgx", "uwv")
    return letter + "".join(g for g in groups if letter in g)
