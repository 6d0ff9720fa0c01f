"""Open instructions: where they come from, and the probes that ask them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from audit.config import AuditConfig
from audit.errors import ConfigError, TaskError
from audit.fingerprint import digest
from audit.probes.build import make_probe
from audit.prompts import load_prompt
from audit.resources import resource
from audit.tasks import Problem, Task
from audit.tasks.manifest import read_manifest
from audit.tasks.model import Row, raise_problems
from audit.tasks.readers import read_rows
from audit.types import Decoding, Format, Message, Probe, Record

#: How the published protocol compares: on so many instructions, the first ones.
PAPER_INSTRUCTIONS = 100
#: Family of the probes that ask them.
FAMILY = "instruction"
RAW_PROMPT = ("utility", "open_raw.v1.md")

ALPACA = "alpaca-eval"
ALPACA_LICENCE = "CC BY-NC 4.0"
_ALPACA_REPO, _ALPACA_FILE = "tatsu-lab/alpaca_eval", "alpaca_eval.json"
_ALPACA_PARTS = ("helpful_base", "koala", "oasst", "selfinstruct", "vicuna")
_LENDER = "lkf"


class Instruction(Record):
    """Something to be written, without any fact behind it."""

    id: str
    """The file's own, else a hash of the text."""
    text: str
    category: str = ""


class InstructionSet(Record):
    """Instructions as they are asked, in order."""

    name: str
    """For reading; says how many were left out where there was a limit."""
    licence: str
    source: str
    """What was typed, or the task that they belong to."""
    items: tuple[Instruction, ...]


def load_instructions(config: AuditConfig, task: Task) -> InstructionSet:
    """The instructions that the settings name, no more of them than the settings allow.

    config.utility.instructions: a .json or .jsonl file of objects with `instruction` and, if wanted, `id` and
    `category`; `alpaca-eval` (from the hub) or `alpaca-eval:PATH`, a copy of its alpaca_eval.json; None for the
    task's own, which for tasks without any are the bundled ones. The protocol `paper` takes the first 100.

    Raises TaskError naming everything wrong with a file by line and field, ConfigError where the hub's file is not
    to be had.
    """
    spec = config.utility.instructions
    if spec is None:
        found = _of_task(task)
    elif spec == ALPACA:
        path, source = _from_hub()
        found = _alpaca(path, source)
    elif spec.startswith(f"{ALPACA}:"):
        found = _alpaca(Path(spec.partition(":")[2]).expanduser(), spec)
    else:
        path = Path(spec).expanduser()
        found = InstructionSet(name=path.name, licence="not stated", source=spec, items=_read(path))
    return _limited(config, found)


def open_probes(config: AuditConfig, instructions: InstructionSet, prompt_format: Format) -> list[Probe]:
    """One greedy probe an instruction, in order: a user message, or for `raw` the text of the prompt file."""
    return [
        make_probe(
            family=FAMILY,
            form="plain",
            variant=item.id,
            targets=(),
            messages=instruction_messages(item.text, prompt_format),
            prompt_format=prompt_format,
            decoding=instruction_decoding(config, prompt_format),
            split="open",
        )
        for item in instructions.items
    ]


def instruction_messages(text: str, prompt_format: Format) -> tuple[Message, ...]:
    """How an instruction is put to a subject."""
    if prompt_format == "raw":
        text = load_prompt(*RAW_PROMPT).render(instruction=text)
    return (Message(role="user", content=text),)


def instruction_text(probe: Probe) -> str:
    """The instruction that a probe of `open_probes` asks. Raises TaskError for one of another prompt file."""
    asked = probe.messages[0].content
    if probe.format != "raw":
        return asked
    mark = "\0"
    head, tail = load_prompt(*RAW_PROMPT).render(instruction=mark).split(mark)
    if not (asked.startswith(head) and asked.endswith(tail)):
        raise TaskError(
            f"probe {probe.id}: its instruction was put in another way than prompts/{'/'.join(RAW_PROMPT)} does",
            hint="read the run with the version that made it",
        )
    return asked[len(head) : len(asked) - len(tail)]


def instruction_decoding(config: AuditConfig, prompt_format: Format) -> Decoding:
    """Greedy, with the stop strings of the raw prompt where that is used."""
    stop = tuple(load_prompt(*RAW_PROMPT).meta["stop"]) if prompt_format == "raw" else ()
    return Decoding(max_new_tokens=config.utility.max_new_tokens, stop=stop, seed=config.seed)


def _limited(config: AuditConfig, found: InstructionSet) -> InstructionSet:
    limits = [limit for limit in (config.utility.max_instructions,) if limit is not None]
    if config.utility.protocol == "paper":
        limits.append(PAPER_INSTRUCTIONS)
    n = len(found.items)
    kept = min([n, *limits])
    if kept == n:
        return found
    return InstructionSet(
        name=f"{found.name}, the first {kept} of {n}",
        licence=found.licence,
        source=found.source,
        items=found.items[:kept],
    )


# ------------------------------------------------------------------------------------------------------- sources


def _of_task(task: Task) -> InstructionSet:
    path = task.file("instructions")
    own = task.folder is not None and path.is_relative_to(task.folder)
    name, licence = task.name, task.licence
    if not own:
        lender = read_manifest(resource("tasks", _LENDER))
        name, licence = lender.name, lender.licence
    return InstructionSet(name=f"instructions of {name}", licence=licence, source=f"task {name}", items=_read(path))


def _alpaca(path: Path, source: str) -> InstructionSet:
    def category(row: Row, problem: Callable[[Row, str, str], None]) -> str:
        part = row.fields.get("dataset")
        if part not in _ALPACA_PARTS:
            problem(row, "dataset", f"AlpacaEval's parts are {', '.join(_ALPACA_PARTS)}; here stands {part!r}")
        return str(part)

    hint = (
        f"{ALPACA}:PATH takes {_ALPACA_FILE} of the hub data set {_ALPACA_REPO}; for another set: --instructions PATH"
    )
    return InstructionSet(
        name="AlpacaEval", licence=ALPACA_LICENCE, source=source, items=_read(path, category=category, hint=hint)
    )


def _from_hub() -> tuple[Path, str]:
    """AlpacaEval's file from the hub or its cache, and its name with the revision. Raises ConfigError."""
    hint = (
        f"without a network: fetch {_ALPACA_FILE} of the hub data set {_ALPACA_REPO} on another machine and give it "
        f"with --instructions {ALPACA}:PATH"
    )
    try:
        import huggingface_hub
    except ImportError as error:
        raise ConfigError(
            f"--instructions {ALPACA}: the hub needs huggingface_hub ({error})",
            hint=f"pip install 'unlearning-audit[hub]', or give a copy: {ALPACA}:PATH",
        ) from error
    # Offline, missing files and failed requests are all OSErrors; a malformed address of a mirror is a ValueError.
    try:
        path = Path(huggingface_hub.hf_hub_download(_ALPACA_REPO, _ALPACA_FILE, repo_type="dataset"))
    except (OSError, ValueError) as error:
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
        raise ConfigError(
            f"--instructions {ALPACA}: {_ALPACA_FILE} of {_ALPACA_REPO} could not be had: "
            f"{type(error).__name__}: {said}",
            hint=hint,
        ) from error
    return path, f"hf:{_ALPACA_REPO}@{path.parent.name}"


# --------------------------------------------------------------------------------------------------------- files


def _own_category(row: Row, problem: Callable[[Row, str, str], None]) -> str:
    value = row.fields.get("category", "")
    if not isinstance(value, str):
        problem(row, "category", f"must be text, not {value!r}")
    return str(value)


def _read(
    path: Path,
    *,
    category: Callable[[Row, Callable[[Row, str, str], None]], str] = _own_category,
    hint: str = 'one object an instruction: {"instruction": "…"}, with "id" and "category" if wanted',
) -> tuple[Instruction, ...]:
    """All instructions of a file. Raises TaskError with everything wrong with it."""
    rows, problems = rows_of(path)

    def problem(row: Row, field: str, message: str) -> None:
        problems.append(problem_in(row, field, message))

    items: list[Instruction] = []
    by_id: dict[str, Row] = {}
    by_text: dict[str, Row] = {}
    for row in rows:
        text, name = text_of(row, problems), _id(row, problem)
        part = category(row, problem)
        if text is None or name is None:
            continue
        item = Instruction(id=name or digest("instruction", text)[:12], text=text, category=part)
        for key, seen, field in ((text.strip(), by_text, "instruction"), (item.id, by_id, "id")):
            if key in seen:
                problem(row, field, f"the same as in {place_of(seen[key])}")
            seen.setdefault(key, row)
        items.append(item)
    if not rows and not problems:
        problems.append(Problem(severity="error", file=str(path), message="holds no instruction", kind="empty"))
    raise_problems(str(path), problems, hint=hint)
    return tuple(items)


class Entry(Row, frozen=True):
    """A row of a JSON array, named by its place in it: all of an array may stand on one line."""

    place: int = 0
    """From 1."""


def rows_of(path: Path) -> tuple[list[Row], list[Problem]]:
    """Objects of a JSON or JSON Lines file with what cannot be read. Raises ConfigError for any other file."""
    if not path.is_file():
        raise ConfigError(f"no such file: {path}")
    if path.suffix.lower() not in (".json", ".jsonl"):
        raise ConfigError(f"{path}: cannot be read", hint="give a .json file (one array) or a .jsonl file")
    rows, problems = read_rows(path)
    array = path.read_bytes().removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
    if problems or not array:
        return rows, problems  # an entry that is no object has no row: the places of those after it would be wrong
    return [Entry(file=r.file, line=r.line, fields=r.fields, place=i) for i, r in enumerate(rows, start=1)], problems


def text_of(row: Row, problems: list[Problem]) -> str | None:
    """The instruction of a row, as it stands there; None, and a problem more, where it has none that can be used."""
    fields: Mapping[str, object] = row.fields
    text, beside = fields.get("instruction"), fields.get("input")
    message = ""
    if "instruction" not in fields:
        message = f"missing; the object has {', '.join(fields) or 'no fields'}"
    elif not isinstance(text, str):
        message = f"must be text, not {text!r}"
    elif not text.strip():
        message = "empty"
    elif beside:
        problems.append(problem_in(row, "input", "a text beside the instruction would not be asked: write both as one"))
        return None
    if message or not isinstance(text, str):
        problems.append(problem_in(row, "instruction", message))
        return None
    return text


def _id(row: Row, problem: Callable[[Row, str, str], None]) -> str | None:
    """The row's own name, empty where it has none; None, and a problem more, where it cannot be one."""
    value = row.fields.get("id", "")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and (value.strip() or "id" not in row.fields):
        return value.strip()
    problem(row, "id", f"must be text or a whole number, not {value!r}")
    return None


def problem_in(row: Row, field: str, message: str) -> Problem:
    """Something wrong with a row, which is named by its line, or by its place in an array."""
    if isinstance(row, Entry):
        field = f"{place_of(row)}, {field}"
        return Problem(severity="error", file=row.file, field=field, message=message, kind="schema")
    return Problem(severity="error", file=row.file, line=row.line, field=field, message=message, kind="schema")


def place_of(row: Row) -> str:
    """line 3, or entry 3 of an array."""
    return f"entry {row.place}" if isinstance(row, Entry) else f"line {row.line}"
