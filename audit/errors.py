"""What can go wrong, one class a boundary. The command line turns each into one message and an exit code.

Exit codes: 1 internal error, 2 usage or input error, 3 gate failed, 4 inconclusive, 130 interrupted.
"""

from __future__ import annotations


class AuditError(Exception):
    """Base class. The message says what is wrong and where; `hint` says what to type next."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(AuditError):
    """A setting, or several, cannot be used; `problems` lists all of them."""

    exit_code = 2

    def __init__(self, message: str, *, hint: str = "", problems: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.problems = problems


class TaskError(AuditError):
    """A task, a fact file or a recording cannot be read, or says what it must not."""

    exit_code = 2


class ModelError(AuditError):
    """A checkpoint, adapter, tokenizer or template cannot be used."""

    exit_code = 2


class EngineError(AuditError):
    """An engine is missing, cannot start, or stopped as a whole (single failed generations are recorded)."""

    exit_code = 2


class JudgeError(AuditError):
    """A judge is unknown, misconfigured, or broke its contract as a whole (single failures are undecided)."""

    exit_code = 2


class StoreError(AuditError):
    """The store or the run folder cannot be written or read: full disk, permissions, a foreign file."""

    exit_code = 2


class RunFolderError(StoreError):
    """The output folder holds another run, or is not a run."""


class PolicyError(AuditError):
    """A gate policy cannot be used."""

    exit_code = 2


class TrainingError(AuditError):
    """A training run cannot start or had to stop."""

    exit_code = 2


class PromptError(AuditError):
    """One prompt cannot be rendered or does not fit the context: recorded as a failed generation, never dropped.

    Stops the audit only where no prompt at all can be used.
    """

    exit_code = 2
