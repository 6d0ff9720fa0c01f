"""The tasks of lm-evaluation-harness that a run asks for: found, loaded and checked before any model is asked."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from audit.engines.checkpoint import first_line
from audit.errors import ConfigError
from audit.progress import Progress
from audit.quiet import quiet_harness
from audit.resources import resource
from audit.utility.harness.adapter import greedy_settings
from audit.utility.harness.retained_choice import NAME as RETAINED_CHOICE
from audit.utility.harness.stock import StockFiles

INSTALL = 'pip install "unlearning-audit[utility]"'
_RUNS_CODE = "it runs code that the model writes"
#: Where settings without a flag are written.
_IN_CONFIG = "in a file for --config: utility: {{{}}}"


@dataclass(frozen=True)
class Loaded:
    """One name that was asked for, with its data."""

    name: str
    item: Any
    """lm-eval's Task, Group, or list of Tasks (a tag)."""

    @property
    def tasks(self) -> list[Any]:
        """All single tasks, in order."""
        if isinstance(self.item, list):
            return list(self.item)
        return list(self.item.get_all_tasks()) if hasattr(self.item, "get_all_tasks") else [self.item]

    @property
    def groups(self) -> dict[str, Any]:
        """The group itself and those in it, by name."""
        if isinstance(self.item, list) or not hasattr(self.item, "get_all_groups"):
            return {}
        return {group.name: group for group in (self.item, *self.item.get_all_groups())}

    def as_dict(self) -> dict[str, Any]:
        """What lm-eval's `evaluate` takes."""
        groups = self.groups
        return {
            "tasks": {task.task_name: task for task in self.tasks},
            "groups": groups,
            "group_map": {name: group.child_names for name, group in groups.items()},
        }


def check_installed() -> None:
    """ConfigError where lm-eval is missing."""
    for package in ("lm_eval", "datasets"):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"--utility lm-eval needs {package.replace('_', '-')}, which is missing", hint=INSTALL)


def load_tasks(
    names: Sequence[str],
    *,
    include: str | None,
    shots: int | None,
    seed: int,
    retained_choice: Callable[[], dict[str, Any]],
    progress: Progress,
) -> list[Loaded]:
    """All named tasks with their data; `include` is a folder of the user's own task files.

    Raises ConfigError for a name that does not exist, a task file that cannot be read, and for data that cannot be had.
    """
    check_installed()
    folder = _own_folder(include)
    with quiet_harness():
        manager = _manager(names, folder, progress)
    return [_load(name, manager, folder, shots, seed, retained_choice) for name in names]


def bundled() -> list[str]:
    """Names of the bundled tasks."""
    return sorted(path.stem for path in resource("tasks", "utility").glob("*.yaml"))


def _own_folder(include: str | None) -> Path | None:
    """The user's folder, if every task file in it can be read and no name is there twice."""
    if include is None:
        return None
    folder = Path(include).expanduser()
    if not folder.is_dir():
        raise ConfigError(
            f"{include} is no folder: lm_eval_include names one with task files (*.yaml) of lm-evaluation-harness"
        )
    from lm_eval.tasks._yaml_loader import load_yaml

    files = sorted(path for path in folder.rglob("*.yaml") if "__pycache__" not in path.parts)
    if not files:
        raise ConfigError(f"{folder} holds no task file (*.yaml)")
    problems = []
    seen: dict[str, Path] = {}
    for path in files:
        try:  # errors of yaml, of the loader, of files that a task file includes: all are said
            settings = load_yaml(path, resolve_func=False, recursive=True)
        except Exception as error:  # noqa: BLE001
            problems.append(f"{path}: {' '.join(str(error).split())[:300]}")
            continue
        name = settings.get("group") if "group" in settings else settings.get("task")
        if not isinstance(name, str):
            continue  # a template that others include
        if name in seen:
            problems.append(f"{path}: {name} is defined in {seen[name]} as well")
        seen[name] = path
    if problems:
        raise ConfigError(
            f"task files of lm-evaluation-harness cannot be used:\n  {chr(10).join(problems)}", problems=tuple(problems)
        )
    return folder


def _manager(names: Sequence[str], folder: Path | None, progress: Progress) -> Any:
    """A task manager that knows all names: lm-eval's own fourteen thousand are only read where they are needed."""
    from lm_eval.tasks import TaskManager

    paths = [resource("tasks", "utility"), *([folder] if folder else [])]
    small = TaskManager(include_path=paths, include_defaults=False)
    if all(_complete(name, small) for name in names):
        return small
    stock = StockFiles()
    unknown = [name for name in names if name not in small.task_index and not stock.mentions(name)]
    if unknown:
        raise _unknown(unknown, [*small.all_tasks, *stock.names], folder)
    some = TaskManager(include_path=[*stock.folders(names), *paths], include_defaults=False)
    if all(_complete(name, some) for name in names):
        return some
    progress.note("reading all task files of lm-evaluation-harness")
    manager = TaskManager(include_path=paths, include_defaults=True)
    unknown = [name for name in names if name not in manager.task_index]
    if unknown:
        raise _unknown(unknown, manager.all_tasks, folder)
    return manager


def _unknown(names: Sequence[str], known: Sequence[str], folder: Path | None) -> ConfigError:
    problems = []
    for name in names:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        meant = f": did you mean {' or '.join(near)}?" if near else ""
        problems.append(f"lm-evaluation-harness has no task {name!r}{meant}")
    own = f", those in {folder}" if folder else ""
    return ConfigError(
        "\n".join(problems),
        hint=f"bundled: {', '.join(bundled())}{own}; all: lm-eval ls tasks; your own: "
        + _IN_CONFIG.format("lm_eval_include: FOLDER"),
        problems=tuple(problems),
    )


def _complete(name: str, manager: Any) -> bool:
    """The name, and all that a group's file refers to, is known to this manager."""
    entry = manager.task_index.get(name)
    if entry is None:
        return False
    members = (entry.cfg or {}).get("task")
    if entry.kind.name == "TAG":
        return all(_complete(tag, manager) for tag in entry.tags)
    if entry.kind.name != "GROUP" or not isinstance(members, list):
        return True
    return all(_complete(each, manager) for each in _references(members))


def _references(members: Sequence[Any]) -> Iterator[str]:
    """Names that a group's list refers to; tasks that it defines itself have their own settings."""
    for member in members:
        if isinstance(member, str):
            yield member
        elif "group" in member:
            yield from _references(member["task"]) if isinstance(member.get("task"), list) else [member["group"]]
        elif not {"dataset_path", "output_type", "custom_dataset"} & set(member):
            yield member["task"]


def _members(name: str, manager: Any) -> Iterator[str]:
    """Names of the single tasks that have a file of their own, behind a name that is known."""
    entry = manager.task_index[name]
    members = (entry.cfg or {}).get("task")
    if entry.kind.name == "TAG":
        below: Sequence[str] = sorted(entry.tags)
    elif entry.kind.name == "GROUP":
        below = list(_references(members)) if isinstance(members, list) else []
    else:
        yield name
        return
    for each in below:
        if each in manager.task_index:
            yield from _members(each, manager)


def _runs_code(entry: Any) -> bool:
    """Whether a task's file says that the model's code is run; a file that cannot be read is left to the loader."""
    from lm_eval.tasks._yaml_loader import load_yaml

    if entry.yaml_path is None:
        return False
    try:
        settings = load_yaml(entry.yaml_path, resolve_func=False, recursive=True)
    except Exception:  # noqa: BLE001 - the loader meets the same error, and it is told there
        return False
    return bool(settings.get("unsafe_code"))


def _load(
    name: str,
    manager: Any,
    folder: Path | None,
    shots: int | None,
    seed: int,
    retained_choice: Callable[[], dict[str, Any]],
) -> Loaded:
    own = name == RETAINED_CHOICE and str(manager.task_index[name].yaml_path).startswith(
        str(resource("tasks", "utility"))
    )
    spec = retained_choice() if own else name
    with quiet_harness():
        for member in _members(name, manager):  # before anything is loaded: their scorers come from the hub
            if _runs_code(manager.task_index[member]):
                raise _refused(name, member, _RUNS_CODE)
        try:
            loaded = Loaded(name, manager._load_spec(spec))
        except Exception as error:  # whatever a task's code and the readers of its data raise
            raise _unusable(name, error) from error
        for task in loaded.tasks:
            _check(name, task)
            _set_shots(task, shots, seed)
    if not loaded.tasks:
        raise ConfigError(f"the group {name} of lm-evaluation-harness holds no task")
    return loaded


def _set_shots(task: Any, shots: int | None, seed: int) -> None:
    """As lm-eval's own `simple_evaluate`: a task that declares 0 keeps it."""
    declared = task.get_config("num_fewshot")
    if shots is not None and declared != 0:
        task.set_config(key="num_fewshot", value=shots)
    elif declared is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=seed)


def _check(name: str, task: Any) -> None:
    """ConfigError for tasks that the audit does not run."""
    why = None
    if getattr(task, "UNSAFE_CODE", False):
        why = _RUNS_CODE
    elif getattr(task, "MULTIMODAL", False):
        why = "it shows pictures or plays sounds"
    elif task.OUTPUT_TYPE == "generate_until":
        try:
            greedy_settings(task.get_config("generation_kwargs") or {})
        except ValueError as error:
            why = str(error)
    if why is not None:
        raise _refused(name, task.task_name, why)


def _refused(name: str, task: str, why: str) -> ConfigError:
    return ConfigError(f"the audit cannot run task {task} of lm-evaluation-harness (asked for as {name}): {why}")


def _unusable(name: str, error: Exception) -> ConfigError:
    """What to say where a task cannot be loaded: mostly its data lie on the hub, and the hub is out of reach."""
    task = _task_of(error.__traceback__)
    config = getattr(task, "_config", None)
    path = getattr(config, "dataset_path", None)
    reason = first_line(error)
    if not path:
        return ConfigError(f"task {name} of lm-evaluation-harness cannot be loaded: {reason}")
    single = str(getattr(config, "task", name))
    part = getattr(config, "dataset_name", None)
    splits = [getattr(config, f"{split}_split", None) for split in ("training", "validation", "test", "fewshot")]
    named = ", ".join(dict.fromkeys(str(split) for split in splits if split))
    data = f"data set {path}" + (f", configuration {part}" if part else "") + (f" (splits {named})" if named else "")
    of = f"task {single}" + (f" (of {name})" if single != name else "")
    if Path(str(path)).expanduser().is_absolute() or path in ("json", "csv", "parquet", "text", "arrow"):
        kwargs = getattr(config, "dataset_kwargs", None) or {}
        files = f", files {kwargs['data_files']}" if "data_files" in kwargs else ""
        return ConfigError(
            f"{of} of lm-evaluation-harness cannot read its {data}{files}: {reason}",
            hint="the path in the task file must be absolute, and name a data set's folder or its files",
        )
    file = f"{name}.yaml"
    return ConfigError(
        f"{of} of lm-evaluation-harness needs the {data} of the Hugging Face hub, and it cannot be had here: {reason}",
        hint=f"copy that data set's folder (its README.md and data files) to this machine, write FOLDER/{file} with "
        f"the settings of {name} and `dataset_path: /path/of/the/copy`, and give FOLDER "
        + _IN_CONFIG.format("lm_eval_include: FOLDER")
        + "; docs/lm-eval.md has an example",
    )


def _task_of(trace: TracebackType | None) -> Any:
    """The task that was being built when the error arose."""
    found = None
    while trace is not None:
        here = trace.tb_frame.f_locals.get("self")
        if hasattr(here, "_config") and hasattr(here, "OUTPUT_TYPE"):
            found = here
        trace = trace.tb_next
    return found
