"""Identity by content of what lm-evaluation-harness asks: settings, code, documents, worked examples."""

from __future__ import annotations

import inspect
import itertools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from audit.fingerprint import digest, text_file_digest
from audit.utility.harness.catalogue import Loaded

#: Settings that are a place or hold the documents themselves, which are hashed as what they are.
_ELSEWHERE = frozenset({"custom_dataset", "dataset_path", "dataset_name", "dataset_kwargs"})


def document_id(document: Any) -> str:
    """Hash of one document."""
    return digest("document", json.dumps(document, sort_keys=True, default=_plain, ensure_ascii=False))


def document_ids(documents: Iterable[Any]) -> list[str]:
    """Ids of documents in order; one that is there again has its number behind its hash."""
    seen: dict[str, int] = {}
    ids = []
    for document in documents:
        name = document_id(document)
        seen[name] = seen.get(name, 0) + 1
        ids.append(name if seen[name] == 1 else f"{name}.{seen[name]}")
    return ids


def task_digest(task: Any, limit: int | None) -> str:
    """Hash of all that decides what is asked of one task, and how answers become numbers. Reads its documents."""
    settings = {name: value for name, value in vars(task.config).items() if name not in _ELSEWHERE}
    metadata = dict(settings.pop("metadata", None) or {})
    source = Path(str(metadata.pop("config_source", "inline")))
    code = {}
    if source.is_file():
        code = {file.name: text_file_digest(file) for file in sorted(source.parent.glob("*.py"))}
    documents = document_ids(itertools.islice(iter(task.eval_docs), limit))
    shown = document_ids(task.fewshot_docs() or ()) if task.get_config("num_fewshot") else []
    return digest(
        "lm-eval task",
        task.task_name,
        type(task).__name__,
        str(task.VERSION),
        _canonical(settings),
        _canonical(metadata),
        code,
        documents,
        shown,
    )


def loaded_digest(loaded: Loaded, limit: int | None) -> str:
    """Hash of all tasks that a name stands for, and of how a group adds them up."""
    groups = {
        name: [group.child_names, _canonical(group.aggregate_metric_list), str(group.version)]
        for name, group in loaded.groups.items()
    }
    return digest("lm-eval", loaded.name, [task_digest(task, limit) for task in loaded.tasks], groups)


def _canonical(value: Any) -> Any:
    """Plain data: functions as their source, records as their fields."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): _canonical(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = [_canonical(each) for each in value]
        return sorted(items, key=str) if isinstance(value, set | frozenset) else items
    if callable(value):
        try:
            return inspect.getsource(value)
        except (TypeError, OSError):
            return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', repr(value))}"
    if hasattr(value, "__dict__"):
        return {"class": type(value).__name__, **_canonical(vars(value))}
    return repr(value)


def _plain(value: Any) -> Any:
    """What JSON has no word for: numbers and arrays of numpy, dates."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
