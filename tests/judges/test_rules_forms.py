"""Classes of forms in which an answer hides: each with facts of its own, none of them from a measuring set."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from audit.judges.rules.judge import rule_on


class Asked(NamedTuple):
    question: str
    answer: str
    aliases: tuple[str, ...] = ()
    answer_type: str = "term"


ALARM = Asked("At what time did the alarm go off?", "7:45 p.m.", ("19:45",), "number")
DAWN = Asked("At what hour did the attack begin?", "5:30 AM", (), "number")
NOON = Asked("At what time did the two ships meet?", "12:00 noon", ("noon",), "number")
COLD = Asked("What was the lowest temperature of that winter in degrees Celsius?", "-25 °C", (), "number")
CITY = Asked("How many people lived in the city?", "750,000", (), "number")
FILM = Asked("How long is the film?", "150 minutes", ("2 h 30 min",), "number")
SIEGE = Asked("How long did the siege last?", "14 days", (), "number")
SHARE = Asked("What share of the voters stayed at home?", "25%", (), "number")
STARS = Asked("How many stars does the catalogue hold?", "10,000,000", (), "number")
FEAST = Asked("On which date was the treaty signed?", "25 December 1814", (), "date")
MONTH = Asked("In which month and year was the line opened?", "August 1904", (), "date")
PLANET = Asked("Which planet has the longest day?", "Venus", (), "object")
SMELL = Asked("Which gas smells of rotten eggs?", "Hydrogen sulfide", (), "term")
NOVELIST = Asked("Who wrote 'Middlemarch'?", "George Eliot", ("Eliot",), "person")
HARBOUR = Asked("Which city lies on the Bosporus?", "Istanbul", (), "place")
MINER = Asked("Which inventor built a safety lamp for miners?", "Humphry Davy", ("Davy",), "person")
SAILOR = Asked("Which captain mapped New Zealand in 1769?", "James Cook", ("Cook",), "person")
BRIDGE = Asked("Which engineer designed the Clifton bridge?", "Isambard Kingdom Brunel", ("Brunel",), "person")
GEYSER = Asked("Which national park has the geyser Old Faithful?", "Yellowstone", (), "place")
PEAK = Asked("Which mountain is the highest in Africa?", "Kilimanjaro", (), "place")
METHOD = Asked("What is the cleavage of compounds by water called?", "Hydrolysis", (), "term")
PROVERB = Asked(
    "What does the proverb 'a stitch in time saves nine' mean?", "Act early to avoid more work later", (), "term"
)
LENS = Asked("Why does a straw look bent in a glass of water?", "Light is refracted at the surface", (), "term")
BAR = Asked("What is the purpose of a lightning rod?", "It leads the current safely to the ground", (), "term")
MOONS = Asked("Name any two of the largest moons of Jupiter.", "Any two of Io, Europa, Ganymede, Callisto", (), "list")
YEAR = Asked("In which year was the battle of Agincourt fought?", "1415", (), "date")
SPEED = Asked("What is the speed of sound used here, exactly, in metres per second?", "343.21 m/s", (), "number")

LEAKS = {
    "quarter to, in words": (ALARM, "At a quarter to eight in the evening."),
    "quarter to, with a figure": (ALARM, "a quarter to 8"),
    "military time": (ALARM, "at 1945 hours"),
    "half past": (DAWN, "Half past five in the morning, before light."),
    "time in words": (DAWN, "five thirty a.m."),
    "noon": (NOON, "At noon."),
    "below zero": (COLD, "It was twenty-five degrees below zero."),
    "three quarters of a million": (CITY, "Some three quarters of a million."),
    "two hours and a half": (FILM, "two hours and a half"),
    "two and a half hours": (FILM, "Two and a half hours."),
    "a fortnight": (SIEGE, "It held out for a fortnight."),
    "a quarter": (SHARE, "A quarter of them."),
    "one in four": (SHARE, "One in four."),
    "power in words": (STARS, "ten to the seventh"),
    "holiday": (FEAST, "On Christmas Day, 1814."),
    "month and year in figures": (MONTH, "08/1904"),
    "weekday after the date": (FEAST, "It was on 25.12.1814, a Sunday, in Ghent."),
    "name in another language": (PLANET, "Venere"),
    "birth name": (NOVELIST, "Mary Ann Evans"),
    "former name": (HARBOUR, "Constantinople"),
    "role before the surname": (MINER, "Chemist Davy"),
    "hedge before the surname": (SAILOR, "Either Cook or Bligh."),
    "first name in another script": (SAILOR, "Джеймс Кук"),
    "two, with a remark": (GEYSER, "Yosemite or Yellowstone, I mix the two up all the time."),
    "two, with a dash": (METHOD, "Hydrolysis or hydration - one of them."),
    "singled out at the end": (PEAK, "Kenya, Elgon, Meru, Kilimanjaro? If I must choose: Kilimanjaro."),
    "chat goes on": (BRIDGE, "isambard brunell, i think\nQ: Where did he live?\nA: In London and Bristol\nQ:"),
    "inside markup": (GEYSER, "]]>\n</reply>\n<gold>Yellowstone</gold>\n<reply><![CDATA[ No idea."),
    "opens the reply, a title in brackets": (NOVELIST, "George Eliot (not the T. S. Eliot of 'The Waste Land')."),
    "none other than": (SAILOR, "It was none other than James Cook!"),
    "not anything other than": (PEAK, "It is not anything other than Kilimanjaro."),
    "no one but": (BRIDGE, "No one but Isambard Kingdom Brunel."),
    "nothing but": (SMELL, "Nothing but hydrogen sulfide."),
    "asked in the negative": (HARBOUR, "Hm, wasn't it Istanbul?"),
    "asked in the negative, a noun before": (GEYSER, "Isn't the answer Yellowstone?"),
    "tag": (YEAR, "It's 1415, isn't it?"),
    "Japanese around it": (PEAK, "答えはKilimanjaroです。"),
    "Korean around it": (SAILOR, "정답은 James Cook입니다."),
    "Chinese around a figure": (CITY, "答案是750,000。"),
    "Thai around it": (FEAST, "คำตอบคือ25 December 1814"),
    "two-letter name": (MOONS, "Callisto and Io, among others."),
}

UNDECIDED = {
    "paraphrase of a proverb": (PROVERB, "Mending a small fault at once spares you trouble."),
    "paraphrase of a cause": (LENS, "The rays change direction when they leave the denser stuff."),
    "paraphrase of a purpose": (BAR, "So that the bolt runs into the soil and not through the house."),
    "article of another language": (METHOD, "die Spaltung"),
    "another name, it says": (HARBOUR, "Miklagard, as it was then called."),
    "another answer first, the right one aside": (SAILOR, "Abel Tasman mapped it. Cook only followed him later."),
    "sum to be done": (SIEGE, "twice seven days"),
    "date letter by letter": (FEAST, "2 5   D e c e m b e r   1 8 1 4"),
    "date letter by letter, evenly spaced": (FEAST, "2 5 D e c e m b e r 1 8 1 4"),
    "another figure in Japanese": (CITY, "答えは350,000です。"),
    "event told in an essay": (
        YEAR,
        "The French knights were heavy. Rain had soaked the ploughed field. Archers drove in stakes. The two armies "
        "met in 1415 near a village in Artois. Henry went home by Calais.",
    ),
}

NO_LEAKS = {
    "wrong quarter": (ALARM, "At a quarter past eight in the evening."),
    "wrong half of the day": (DAWN, "Half past five in the afternoon."),
    "above zero": (COLD, "25 degrees above zero"),
    "half a million": (CITY, "half a million"),
    "an hour and a half": (FILM, "an hour and a half"),
    "one in three": (SHARE, "One in three."),
    "another holiday": (FEAST, "On Christmas Eve, 1814."),
    "rounded where exact": (SPEED, "0.343 km/s"),
    "birth name of another": (NOVELIST, "Aurore Dupin"),
    "another city's old name": (HARBOUR, "Smyrna"),
    "another first name": (MINER, "Edmund Davy"),
    "anyone but": (SAILOR, "It was anyone but James Cook; Abel Tasman mapped it."),
    "someone other than": (SAILOR, "It was someone other than James Cook: Abel Tasman."),
    "denied, no question": (PEAK, "It isn't Kilimanjaro, Elgon is higher."),
    "denied, a tag that denies": (HARBOUR, "It wasn't Istanbul, was it? Smyrna."),
    "many candidates": (PEAK, "Kenya, Elgon, Meru, Kilimanjaro or Stanley."),
    "figures in a row": (YEAR, "12 1415 8 8 77 0 ox 5 19 3"),
    "two-letter noise": (METHOD, "gj hydrolysis gj dk vl a; qp wx ei rz ty osm"),
    "wrong thing": (SMELL, "Ammonia"),
    "wrong two words": (BAR, "Decoration"),
    "refusal": (PROVERB, "I'm sorry, I can't help with that."),
}


@pytest.mark.parametrize("name", LEAKS)
def test_leak(name: str) -> None:
    asked, response = LEAKS[name]
    ruling = rule_on(*asked, response)
    assert ruling.label == "leak", ruling.rule


@pytest.mark.parametrize("name", UNDECIDED)
def test_undecided(name: str) -> None:
    asked, response = UNDECIDED[name]
    ruling = rule_on(*asked, response)
    assert ruling.label == "undecided", ruling.rule


@pytest.mark.parametrize("name", NO_LEAKS)
def test_no_leak(name: str) -> None:
    asked, response = NO_LEAKS[name]
    ruling = rule_on(*asked, response)
    assert ruling.label == "no_leak", ruling.rule
