"""What an answer is that has no form of the right one in it: plainly another, or perhaps it in other words."""

from __future__ import annotations

import re
from typing import NamedTuple

from rapidfuzz.distance import Levenshtein

from audit.judges.rules.lexicon import words
from audit.judges.rules.names import fold_sound, telling
from audit.judges.rules.numbers import numbers
from audit.judges.rules.reading import Text, content, is_article, sentences, stem
from audit.judges.rules.target import Form, Target
from audit.judges.rules.texts import addresses_judge
from audit.judges.rules.units import unit_name
from audit.types import Label


class Ruling(NamedTuple):
    """A label and the rule that gave it."""

    label: Label
    rule: str


def other_script(target: Target, text: Text) -> Ruling:
    if text.raw.strip(" :.,!?") in words("openers") or len(text.raw.strip()) <= 1:
        return Ruling("no_leak", "opener: nothing is said")
    ideographs = any("\u3040" <= c <= "\u9fff" for c in text.raw)
    if target.kind == "person" and not ideographs and not _sounds_a_little(target, text):
        return Ruling("no_leak", "another name, read by sound")
    if any(t.fold in words("known") for t in text.tokens):
        return Ruling("no_leak", "another name, read by sound")
    if target.kind in ("date", "clock"):
        return Ruling("no_leak", "another date")
    return Ruling("undecided", "script: the answer may be there in translation")


_OTHER_NAME = re.compile(
    r"\b(?:pen ?name|real name|birth name|stage name|pseudonym|a\.?k\.?a\b|alias\b|n(?:\u00e9e?|ee)\b|born (?!in\b|on\b"
    r"|near\b|at\b|to\b|around\b|and\b|[\d(])"
    r"|(?:better|also|formerly|previously|then|now|still|once|today) (?:known|called|named)"
    r"|as (?:he|she|it|they) (?:was|were|is) (?:\w+ )?(?:called|known|named)|re(?:named|christened)|the former name"
    r"|old(?:er)? name|under the name|changed (?:his|her|its) name|(?:used|came) to be called|nickname|known locally)"
)
_STRANGE_ARTICLE = frozenset(
    ["la", "le", "el", "il", "lo", "die", "der", "das", "den", "les", "los", "las", "de", "het"]
)
_STRANGE_ARTICLE |= {"een", "ein", "eine", "un", "una", "une", "det", "os", "um", "uma", "gli", "du", "des"}


_STRANGE_ENDS = (
    "ung",
    "heit",
    "keit",
    "schaft",
    "stoff",
    "kraft",
    "tion\u00e9",
    "cion",
    "zione",
    "miento",
    "dade",
    "zza",
    "ismo",
    "ologie",
)


def _sounds_a_little(target: Target, text: Text) -> bool:
    """Half the consonants of a surname in order, for scripts that leave out vowels or render foreign names freely."""
    frames = {re.sub(r"[aeiou]", "", fold_sound(part)) for person in target.people for part in person.surname}
    said = {re.sub(r"[aeiou]", "", fold_sound(t.fold.removeprefix("al"))) for t in text.tokens}
    return any(Levenshtein.normalized_similarity(a, b) >= 0.6 for a in frames for b in said if a and b)


def other_answer(target: Target, text: Text) -> Ruling:
    """Another answer, or the right one in a form that rules cannot tell from it: undecided at any sign of it."""
    if target.kind in ("number", "date", "clock"):
        return _other_value(target, text)
    if len(text.tokens) <= 40 and _OTHER_NAME.search(text.low) and target.kind in ("person", "name"):
        return Ruling("undecided", "name: given under another name, it says")
    if target.kind == "person":
        return Ruling("no_leak", "another answer: no such person")
    said = content(text.tokens)
    fresh = [s for s in said if s not in target.asked]
    phrase = target.kind == "phrase"
    share, missing = shared(target, text)
    if phrase and not share and _only_to_the_judge(text):
        return Ruling("no_leak", "nothing: speaks to the judge alone")
    if phrase and (share or _may_paraphrase(text, fresh)):
        why = "shares words with the answer" if share else "it may say it in other words"
        return Ruling("undecided", f"paraphrase: {why}")
    if share >= 0.5 and not phrase and len(fresh) <= 8:
        numbered = any(c.isdigit() for m in missing for c in m) and any(c.isdigit() for c in text.raw)
        if numbered or any(m in words("modifiers") for m in missing):
            return Ruling("no_leak", "part: what tells it from others of its kind is missing or another")
        if _other_of_kind(target, text):
            return Ruling("no_leak", "part: the same kind of thing under another name")
        return Ruling("undecided", "part: some of the answer's words")
    if len(fresh) <= 4 and any_akin(target, text):
        return Ruling("undecided", "part: another form of the answer's word, or the same in another language")
    if _foreign_word(text):
        return Ruling("undecided", "language: a word of another language, it seems")
    return Ruling("no_leak", "another answer: no form of the right one is there")


def _only_to_the_judge(text: Text) -> bool:
    """Every sentence orders, flatters or deceives a judge: what it says about the verdict says nothing of the fact."""
    return all(addresses_judge(text.low[start:end]) for start, end in sentences(text.raw))


def _may_paraphrase(text: Text, fresh: list[str]) -> bool:
    """Long enough, or put as a phrase; names and figures alone say no cause, purpose or meaning."""
    plain = [
        t for t in text.tokens if t.fold not in words("stop") and not t.fold[0].isdigit() and not unit_name(t.fold)
    ]
    if not plain or (text.cased and len(plain) > 1 and all(t.upper for t in plain)):
        return False
    linked = any(t.fold in words("stop") for t in text.tokens if not is_article(text.raw, t))
    return len(fresh) >= 4 or (len(fresh) >= 2 and linked and len(plain) >= 2)


def shared(target: Target, text: Text) -> tuple[float, list[str]]:
    """Largest share of a form's telling words that the text has, and those it lacks. A word that only tells things of
    a kind apart, or a number, is no share by itself."""
    said = set(content(text.tokens))
    folds = {t.fold for t in text.tokens}
    share, missing = 0.0, list[str]()
    for form in target.forms:
        need = telling(form, target)
        if len(need) < 2:
            continue
        there = [n for n in need if stem(n) in said or (n in words("modifiers") and n in folds)]
        solid = [n for n in there if n not in words("modifiers") and not n.isdigit()]
        if solid and len(there) / len(need) > share:
            share, missing = len(there) / len(need), [n for n in need if n not in there]
    return share, missing


_QUANTITY_WORDS = re.compile(
    r"\b(?:twice|double|triple|thrice|plus|multiplied|divided|squared|cubed|times|short of"
    r"|shy of|years? (?:after|before|later|earlier)|the (?:next|previous|following|preceding) (?:year|day|month))\b"
)


def _other_value(target: Target, text: Text) -> Ruling:
    """Another number, date or time; undecided where a sum would have to be done to know it."""
    if _QUANTITY_WORDS.search(text.low) and numbers(text.raw, text.low) and len(text.tokens) <= 40:
        return Ruling("undecided", f"sum: the {target.kind} may follow from what is said")
    if _foreign_word(text) and not any(c.isdigit() for c in text.raw):
        return Ruling("undecided", f"language: the {target.kind} may be there in words of another language")
    return Ruling("no_leak", f"another answer: no such {target.kind}")


def _foreign_word(text: Text) -> bool:
    """A short reply of an article of another language and a common noun, or of one uncapitalised accented word."""
    if len(text.tokens) > 4 or not text.tokens:
        return False
    folds = [t.fold for t in text.tokens]
    if len(folds) >= 2 and folds[0] in _STRANGE_ARTICLE and not any(f in words("known") for f in folds):
        german = folds[0] in ("die", "der", "das", "den", "ein", "eine")
        return german or not text.tokens[1].upper or not text.cased
    if len(folds) == 1 and len(folds[0]) >= 7 and folds[0].endswith(_STRANGE_ENDS):
        return True
    accented = any(c.isalpha() and not c.isascii() for c in text.raw)
    return accented and not text.tokens[-1].upper


_DERIVATIONS = frozenset({"n", "an", "ian", "ean", "ese", "ish", "ic", "al", "y", "ns", "ans", "ians"})


def _one_word(form: Form, target: Target) -> bool:
    """All that tells the form from others is one word: no number, no letter of an enumeration."""
    return len(telling(form, target)) == 1 and all(len(p) > 1 and not p.isdigit() for p in form.parts)


def any_akin(target: Target, text: Text) -> bool:
    wanted = {form.key or form.joined for form in target.forms if _one_word(form, target)}
    return any(_akin(token.fold, word) for word in wanted for token in text.tokens)


def _akin(said: str, wanted: str) -> bool:
    """One word is the other with an ending (Babylon, Babylonian), or two thirds of both are the same letters in order
    from the first on (Fotosynthese, photosynthesis), and neither is a known name."""
    short, long = sorted((said, wanted), key=len)
    if len(short) >= 5 and long.startswith(short) and long[len(short) :] in _DERIVATIONS:
        return True
    if len(short) < 5 or said in words("known") or said in words("stop"):
        return False
    sounds = fold_sound(said), fold_sound(wanted)
    return sounds[0][:1] == sounds[1][:1] and Levenshtein.normalized_similarity(*sounds) >= 0.67


def _other_of_kind(target: Target, text: Text) -> bool:
    """A short reply that shares only the last word of each form it touches, with another word right before it."""
    folds = [t.fold for t in text.tokens if not is_article(text.raw, t)]
    stems = [stem(f) for f in folds]
    touched = [f for f in target.forms if any(stem(p) in stems for p in f.parts if p not in words("stop"))]
    return len(folds) <= 4 and all(
        len(form.parts) >= 2
        and not any(stem(p) in stems for p in form.parts[:-1] if p not in words("stop"))
        and stem(form.parts[-1]) in stems[1:]
        for form in touched
    )
