"""Opens a checkpoint: finds it, refuses what cannot be trusted or used, and gives it a name by content."""

from __future__ import annotations

import copy
import re
from functools import cached_property
from pathlib import Path
from typing import Any

from audit.engines.filecache import file_key
from audit.engines.weights import (
    adapter_digest,
    check_adapter,
    file_digests,
    read_json,
    tensor_shapes,
    weight_files,
)
from audit.errors import EngineError, ModelError
from audit.fingerprint import TensorDigest, digest, template_digest, text_file_digest, tokenizer_digest, weights_digest

MANIFEST = "audit_manifest.json"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "tekken.json", "vocab.txt")
#: Parts of config.json that record how a file was written and change no output.
VOLATILE_CONFIG = frozenset({"_name_or_path", "transformers_version", "use_cache", "_attn_implementation_autoset"})
_CONTEXT_FIELDS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_BRACKETED = re.compile(r"^(<.+>|\[.+\])$", re.DOTALL)


class Checkpoint:
    """One model on disk: weights, optional adapter, tokenizer and template. Made by `open_checkpoint`."""

    def __init__(
        self,
        source: str,
        path: Path,
        *,
        weights: tuple[Path, ...],
        adapter: Path | None,
        adapter_weights: Path | None,
        allow_pickle: bool,
        trust_remote_code: bool,
    ) -> None:
        self.source = source
        """What the user typed."""
        self.path = path
        """Folder that holds the files."""
        self.weight_files = weights
        self.adapter = adapter
        self.allow_pickle = allow_pickle
        self.trust_remote_code = trust_remote_code
        self._adapter_weights = adapter_weights
        self._seen: dict[Path, str] = {}
        self._reference: Checkpoint | None = None
        self.config: dict[str, Any] = read_json(path / "config.json")
        self.tokenizer: Any = _load_tokenizer(path, trust_remote_code=trust_remote_code)

    # ------------------------------------------------------------------------------------------------- identity

    @cached_property
    def tensors(self) -> tuple[TensorDigest, ...]:
        self._seen = {path: file_key(path) for path in self.weight_files}
        return tuple(tensor for path in self.weight_files for tensor in file_digests(path))

    def check_unchanged(self) -> None:
        """ModelError if a weight file is not the one that was fingerprinted: called once the weights are loaded."""
        if weights_digest(self.tensors) != self.weights_fingerprint:
            raise ModelError(f"{self.path} holds other weights than those that are to be served")
        for path, key in self._seen.items():
            if not path.is_file() or file_key(path) != key:
                raise ModelError(f"{path} changed during the audit", hint="run the same command again")
        served, known = None, self.adapter_fingerprint
        if self.adapter is not None and self._adapter_weights is not None:
            served = adapter_digest(self.adapter, self._adapter_weights)
        if served != known:
            raise ModelError(f"the adapter of {self.source} is not the one that is to be served")

    @property
    def adapter_weights(self) -> Path | None:
        """The adapter's weight file."""
        return self._adapter_weights

    @cached_property
    def weights_fingerprint(self) -> str:
        """Of the base weights alone; equals `audit.fingerprint.fingerprint_model` of the loaded model."""
        return weights_digest(self.tensors)

    @cached_property
    def adapter_fingerprint(self) -> str | None:
        if self.adapter is None or self._adapter_weights is None:
            return None
        return adapter_digest(self.adapter, self._adapter_weights)

    @cached_property
    def tokenizer_fingerprint(self) -> str:
        return tokenizer_digest(self.tokenizer)

    @cached_property
    def template_fingerprint(self) -> str:
        return template_digest(self.tokenizer.chat_template)

    @cached_property
    def config_fingerprint(self) -> str:
        """Of the part of config.json that acts, and of the model's own code where that is allowed to run."""
        acting = {key: value for key, value in self.config.items() if key not in VOLATILE_CONFIG and value is not None}
        if "torch_dtype" in acting:  # the older name
            acting.setdefault("dtype", acting.pop("torch_dtype"))
        code = {}
        if self.trust_remote_code:
            code = {str(file.relative_to(self.path)): text_file_digest(file) for file in self.path.rglob("*.py")}
        return digest("config", acting, code)

    def read_as(self, base: Checkpoint) -> None:
        """Turn token ids into text, and see the end of an answer, as the base does: the vocabularies are equal.

        A candidate's own tokenizer could leave words out of what it says. Called before anything else is asked.
        """
        self._reference = base

    def follow(self, source: Checkpoint) -> None:
        """Be read as `source` is: this is a state of the same model. Called before anything else is asked."""
        self._reference = source._reference

    def standing_for(self, *, weights: str, adapter: str | None) -> Checkpoint:
        """This checkpoint with the identity of other weights, which need not be on disk.

        It renders prompts and has a fingerprint; it cannot be served. `weights` and `adapter` are fingerprints.
        """
        other = copy.copy(self)
        for name in ("fingerprint", "tensors"):
            other.__dict__.pop(name, None)
        other.__dict__ |= {"weights_fingerprint": weights, "adapter_fingerprint": adapter, "dtype": self.dtype}
        return other

    def same_vocabulary(self, base: Checkpoint) -> bool:
        """Every token has the same id in both tokenizers, and neither has more."""
        own: dict[str, int] = self.tokenizer.get_vocab()
        return bool(own == base.tokenizer.get_vocab())

    @property
    def text_tokenizer(self) -> Any:
        """The tokenizer that turns ids into text: the base's where `read_as` was called."""
        return self._reference.tokenizer if self._reference is not None else self.tokenizer

    @cached_property
    def hidden_ids(self) -> frozenset[int]:
        """Special tokens that are marks (<…>, […]) and no words: left out of the text. Words marked special stay."""
        tokenizer = self.text_tokenizer
        tokens = zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True)
        return frozenset(number for number, token in tokens if not token or _BRACKETED.match(token))

    @cached_property
    def fingerprint(self) -> str:
        """Identity of everything that decides what the model says to given messages, and how that is read."""
        read_by = self._reference.tokenizer_fingerprint if self._reference is not None else None
        return digest(
            "checkpoint",
            read_by,
            self.weights_fingerprint,
            self.adapter_fingerprint,
            self.tokenizer_fingerprint,
            self.template_fingerprint,
            self.config_fingerprint,
            list(self.eos_ids),
        )

    # ----------------------------------------------------------------------------------------------- properties

    @property
    def has_template(self) -> bool:
        template = self.tokenizer.chat_template
        return bool(template) and (isinstance(template, str) or "default" in template)

    @cached_property
    def context_length(self) -> int | None:
        """Tokens of prompt and answer together; None where the configuration does not say."""
        for config in (self.config, self.config.get("text_config") or {}):
            for field in _CONTEXT_FIELDS:
                if isinstance(config.get(field), int) and config[field] > 0:
                    return int(config[field])
        limit = self.tokenizer.model_max_length
        return int(limit) if limit and limit < 10**9 else None

    @cached_property
    def vocab_size(self) -> int | None:
        """Rows of the input embedding: token ids are below it."""
        for config in (self.config, self.config.get("text_config") or {}):
            if isinstance(config.get("vocab_size"), int):
                return int(config["vocab_size"])
        return None

    @cached_property
    def dtype(self) -> str:
        """float32, bfloat16 …: what config.json says, else what most weights are stored in."""
        for config in (self.config, self.config.get("text_config") or {}):
            said = config.get("dtype") or config.get("torch_dtype")
            if isinstance(said, str) and said != "auto":
                return said.removeprefix("torch.")
        counts: dict[str, int] = {}
        for tensor in self.tensors:
            counts[tensor.dtype] = counts.get(tensor.dtype, 0) + 1
        floating = {name: count for name, count in counts.items() if name in _DTYPES}
        return _DTYPES[max(floating, key=lambda name: floating[name])] if floating else "float32"

    @cached_property
    def _end_tokens(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ids that end an answer, and ids that the configuration declares to and that are refused."""
        generation = self.path / "generation_config.json"
        declared: set[int] = set()
        for config in (self.config, read_json(generation) if generation.is_file() else {}):
            value = config.get("eos_token_id")
            declared.update(x for x in (value if isinstance(value, list) else [value]) if isinstance(x, int))
        own = self.tokenizer.eos_token_id
        declared.update([own] if isinstance(own, int) else [])
        if self._reference is not None:
            return self._reference.eos_ids, tuple(sorted(declared - set(self._reference.eos_ids)))
        added = self.tokenizer.added_tokens_decoder
        marks = {number for number, token in added.items() if _BRACKETED.match(str(token))} | self.hidden_ids
        kept = declared & marks
        return tuple(sorted(kept)), tuple(sorted(declared - kept))

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Ids that end an answer: those that tokenizer and configurations name, if they are marks and no words."""
        return self._end_tokens[0]

    @property
    def refused_eos_ids(self) -> tuple[int, ...]:
        """Ordinary words that the configuration declares to end an answer: stopping at them would hide what follows."""
        return self._end_tokens[1]

    @cached_property
    def pad_id(self) -> int:
        for candidate in (self.tokenizer.pad_token_id, *self.eos_ids):
            if isinstance(candidate, int):
                return candidate
        return 0

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What the trainer left beside the weights (method, base, forget set); of the adapter, where there is one."""
        for folder in (self.adapter, self.path):
            if folder is not None and (folder / MANIFEST).is_file():
                return read_json(folder / MANIFEST)
        return {}

    def describe(self) -> dict[str, Any]:
        """For the run's manifest: plain data."""
        return {
            "source": self.source,
            "model_type": str(self.config.get("model_type", "")),
            "fingerprint": self.fingerprint,
            "weights": self.weights_fingerprint,
            "adapter": self.adapter_fingerprint,
            "tokenizer": self.tokenizer_fingerprint,
            "template": self.template_fingerprint,
            "dtype": self.dtype,
            "context_length": self.context_length,
            "eos_ids": list(self.eos_ids),
            "refused_eos_ids": list(self.refused_eos_ids),
            "ignored_generation_config": _generation_defaults(self.path),
        }


def open_checkpoint(
    source: str, *, adapter: str | None = None, allow_pickle: bool = False, trust_remote_code: bool = False
) -> Checkpoint:
    """A checkpoint from a local folder or by its name on the Hugging Face hub, checked before anything is loaded.

    Raises ModelError, with what to do next, for anything that would later fail or quietly be something else: missing
    or partial files, pickled weights, code of its own, an adapter of another base.
    """
    path = _locate(source, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
    if not any(path.iterdir()):
        raise ModelError(f"{path} is empty", hint="give the folder that holds config.json and the weights")
    if not (path / "config.json").is_file():
        if (path / "adapter_config.json").is_file():
            raise ModelError(f"{path} is an adapter, not a model", hint=f"--model BASE --adapter {source}")
        raise ModelError(f"{path} has no config.json", hint="give the folder that holds config.json and the weights")
    config = read_json(path / "config.json")
    weights = weight_files(path, allow_pickle=allow_pickle)
    if not any((path / name).is_file() for name in _TOKENIZER_FILES):
        raise ModelError(f"{path} has no tokenizer", hint="copy tokenizer.json and tokenizer_config.json of its base")
    tokenizer_config = path / "tokenizer_config.json"
    remote = [config, read_json(tokenizer_config) if tokenizer_config.is_file() else {}]
    if any("auto_map" in part for part in remote) and not trust_remote_code:
        raise ModelError(
            f"{source} wants to run code of its own (auto_map in its configuration)",
            hint="add --trust-remote-code if you have read that code and trust it",
        )
    folder, adapter_weights = None, None
    if adapter is not None:
        folder = Path(adapter).expanduser()
        shapes = {name: shape for file in weights for name, shape in tensor_shapes(file).items()}
        adapter_weights = check_adapter(folder, shapes, allow_pickle=allow_pickle)
    checkpoint = Checkpoint(
        source,
        path,
        weights=weights,
        adapter=folder,
        adapter_weights=adapter_weights,
        allow_pickle=allow_pickle,
        trust_remote_code=trust_remote_code,
    )
    if folder is not None:
        _check_adapter_base(checkpoint, folder)
    return checkpoint


def _check_adapter_base(checkpoint: Checkpoint, folder: Path) -> None:
    """Where the adapter's manifest knows the fingerprint of its base's weights, it must be this one."""
    manifest = read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}
    expected = manifest.get("base_weights_fingerprint")
    if expected is not None and expected != checkpoint.weights_fingerprint:
        raise ModelError(
            f"the adapter in {folder} was made for another base: {MANIFEST} names weights {expected}, "
            f"{checkpoint.source} has {checkpoint.weights_fingerprint}"
        )


def _locate(source: str, *, allow_pickle: bool, trust_remote_code: bool) -> Path:
    local = Path(source).expanduser()
    if local.is_dir():
        return local
    if local.exists():
        raise ModelError(f"{source} is a file; a checkpoint is a folder", hint=f"--model {local.parent}")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source) or source.startswith("."):
        raise ModelError(f"no folder at {source}")
    return _download(source, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)


def _download(name: str, *, allow_pickle: bool, trust_remote_code: bool) -> Path:
    """The hub's snapshot of a model, from its cache where it is there; only the files that are read here."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise EngineError("huggingface_hub is not installed", hint='pip install "unlearning-audit[hf]"') from error
    wanted = ["*.json", "model*.safetensors", "*.model", "*.jinja", "*.txt"]
    wanted += ["pytorch_model*.bin"] if allow_pickle else []
    wanted += ["*.py"] if trust_remote_code else []
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"no folder at {name}, and the hub's copy of it is neither cached nor within reach",
            hint="check the path, or the network connection",
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no"
        raise ModelError(
            f"no folder at {name}, and the hub does not give out a model of that name (status {status})",
            hint="check the spelling; for a gated model, log in: hf auth login",
        ) from error
    except (HFValidationError, OSError) as error:
        raise ModelError(f"no folder at {name}, and the hub could not be asked: {error}") from error


def first_line(error: BaseException) -> str:
    """Class and first line of an error's message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _load_tokenizer(path: Path, *, trust_remote_code: bool) -> Any:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise EngineError("transformers is not installed", hint='pip install "unlearning-audit[hf]"') from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path), trust_remote_code=trust_remote_code, local_files_only=True)
    except Exception as error:
        raise ModelError(f"the tokenizer in {path} cannot be loaded: {first_line(error)}") from error
    if len(tokenizer) == 0:
        raise ModelError(f"the tokenizer in {path} is empty")
    # transformers would say it once on standard error; prompts longer than the context are found and named by us
    tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
    return tokenizer


def _generation_defaults(path: Path) -> dict[str, Any]:
    """Settings of generation_config.json that could change a text and are not applied, for the record."""
    file = path / "generation_config.json"
    kept_out = {"transformers_version", "use_cache", "eos_token_id", "bos_token_id", "pad_token_id"}
    found = read_json(file) if file.is_file() else {}
    return {
        key: value
        for key, value in sorted(found.items())
        if key not in kept_out and not key.startswith(("_", "output_")) and value not in (None, False)
    }
