"""One run's tasks of lm-evaluation-harness: checked before anything is asked, then measured subject by subject."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from typing import Any

from audit.config import AuditConfig
from audit.engines.checkpoint import Checkpoint
from audit.engines.registry import engine_capabilities
from audit.errors import ConfigError, EngineError
from audit.fingerprint import digest
from audit.progress import Progress, Silent
from audit.protocols import Engine
from audit.quiet import quiet_harness
from audit.subjects import Models
from audit.tasks import Task
from audit.utility.harness.adapter import harness_model
from audit.utility.harness.asking import Asker
from audit.utility.harness.catalogue import Loaded, check_installed, load_tasks
from audit.utility.harness.content import loaded_digest
from audit.utility.harness.encode import Encoder
from audit.utility.harness.kept import keep_results, read_results
from audit.utility.harness.outcome import results_from
from audit.utility.harness.records import HarnessResult
from audit.utility.harness.retained_choice import retained_choice

#: Raised by hand whenever this package changes what it asks or how it counts.
_VERSION = 1


class Harness:
    """The tasks of `config.utility`, loaded, with one setting for all subjects."""

    def __init__(
        self, config: AuditConfig, task: Task, models: Models | None, progress: Progress | None = None
    ) -> None:
        """Loads tasks and their data. Raises ConfigError for whatever cannot be measured, before anything is asked.

        `models` is None for an endpoint, which gives no log-probabilities of given texts.
        """
        names = config.utility.wanted.tasks
        if models is None or "logprobs" not in engine_capabilities(models.settings):
            raise ConfigError(
                "--utility lm-eval needs log-probabilities of given texts, which an endpoint does not give: its "
                "accuracies would be chance",
                hint="audit the weights themselves with --engine hf or vllm, or leave lm-eval out",
            )
        check_installed()
        self.warnings: list[str] = []
        """What the report must say of the setting."""
        self.chat_template = self._template(config, models)
        """The same for all subjects."""
        self.how = "lm-eval: " + (
            "prompts in each subject's own chat template"
            if self.chat_template
            else "plain prompts, without a chat template, for all subjects"
        )
        self._limit, self._seed = config.utility.lm_eval_limit, config.seed

        def documents() -> dict[str, Any]:
            choice = retained_choice(task.retain)
            if choice.skipped:
                self.warnings.append(f"lm-eval:retained_choice leaves out {choice.skipped} facts without distractors")
            return choice.settings()

        self.loaded: list[Loaded] = load_tasks(
            names,
            include=config.utility.lm_eval_include,
            shots=config.utility.lm_eval_shots,
            seed=config.seed,
            retained_choice=documents,
            progress=progress or Silent(),
        )
        with quiet_harness():
            self._contents = [loaded_digest(each, self._limit) for each in self.loaded]

    @property
    def documents(self) -> dict[str, int]:
        """Name that was asked for -> documents that every subject is asked."""
        with quiet_harness():
            return {
                each.name: sum(min(len(task.eval_docs), self._limit or 10**9) for task in each.tasks)
                for each in self.loaded
            }

    def measure(
        self,
        subject_id: str,
        checkpoint: Checkpoint,
        engine: Callable[[], Engine],
        identity: str,
        progress: Progress | None = None,
    ) -> tuple[HarnessResult, ...]:
        """All tasks on one subject; those that were measured before are read. `engine` is called where one was not.

        Raises EngineError where a text cannot be scored or answered, or where nothing tells one answer from another:
        a task is measured whole or not at all.
        """
        results: list[HarnessResult] = []
        for loaded, content in zip(self.loaded, self._contents, strict=True):
            key = digest(
                "lm-eval",
                _VERSION,
                checkpoint.fingerprint,
                identity,
                importlib.metadata.version("lm-eval"),
                content,
                [self.chat_template, self._limit, self._seed],
            )
            found = read_results(key)
            if found is None:
                found = self._run(subject_id, loaded, content, checkpoint, engine, identity, progress or Silent())
                keep_results(key, found)
            results += found
        return tuple(results)

    def _run(
        self,
        subject_id: str,
        loaded: Loaded,
        content: str,
        checkpoint: Checkpoint,
        engine: Callable[[], Engine],
        identity: str,
        progress: Progress,
    ) -> tuple[HarnessResult, ...]:
        from lm_eval.evaluator import evaluate

        encoder = Encoder(checkpoint)
        model = harness_model(encoder, Asker(engine, identity, checkpoint.vocab_size or 1, progress))
        for task in loaded.tasks:
            task.set_fewshot_seed(seed=self._seed)
        with quiet_harness():
            try:
                found = evaluate(
                    model,
                    loaded.as_dict(),
                    limit=self._limit,
                    bootstrap_iters=0,
                    apply_chat_template=self.chat_template,
                    fewshot_as_multiturn=self.chat_template,
                )
            except (ValueError, KeyError, TypeError, IndexError, AssertionError) as error:
                raise EngineError(
                    f"lm-evaluation-harness cannot run {loaded.name} on {subject_id}: {type(error).__name__}: {error}"
                ) from error
            return results_from(
                loaded,
                found,
                config=content,
                chat_template=self.chat_template,
                limit=self._limit,
                seed=self._seed,
                window=model.window,
                truncated=encoder.truncated,
                notes=encoder.notes(),
            )

    def _template(self, config: AuditConfig, models: Models) -> bool:
        """Whether prompts are put into chat templates; like is asked like."""
        wanted = config.utility.chat_template
        without = [str(role) for role, checkpoint in models.checkpoints.items() if not checkpoint.has_template]
        if wanted == "on" and without:
            raise ConfigError(
                f"no chat template in the tokenizer of: {', '.join(without)}; lm-eval's prompts cannot be put into one",
                hint="chat_template: auto (or off) under `utility:` in the file for --config, which asks all subjects "
                "in plain text",
            )
        if wanted == "auto" and without:
            self.warnings.append(
                f"no chat template in the tokenizer of: {', '.join(without)}; lm-eval's prompts are plain text for "
                "all subjects"
            )
        used = wanted != "off" and not without
        templates = {checkpoint.template_fingerprint for checkpoint in models.checkpoints.values()}
        if used and len(templates) > 1:
            self.warnings.append(
                "the subjects' chat templates differ: lm-eval asks each in its own, so that its differences hold those "
                "of the templates"
            )
        return used
