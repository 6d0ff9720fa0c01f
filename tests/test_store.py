"""The store: whole batches or nothing, final values only, clear words where the place cannot be used."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.errors import StoreError
from audit.store import Store, cache_folder, verdict_key
from audit.types import Completion, Reason, Verdict

BATCH = 40


def completion(key: str, text: str = "some text", finish: str = "stop") -> Completion:
    return Completion(key=key, text=text, finish=finish, n_prompt=3, n_new=2, error="x" if finish == "error" else None)  # type: ignore[arg-type]


def verdict(key: str, reason: Reason = Reason.RULED, judge: str = "j") -> Verdict:
    return Verdict(
        claim_key=key, judge=judge, label="no_leak" if reason is Reason.RULED else "undecided", reason=reason
    )


@settings(max_examples=30, deadline=None)
@given(text=st.text(), logprobs=st.none() | st.lists(st.floats(-50, 0), max_size=4).map(tuple))
def test_what_goes_in_comes_out(
    tmp_path_factory: pytest.TempPathFactory, text: str, logprobs: tuple[float, ...] | None
) -> None:
    folder = tmp_path_factory.mktemp("store")
    made = Completion(key="k", text=text, finish="length", n_prompt=1, n_new=0, logprobs=logprobs)
    store = Store(folder / "s.sqlite")
    store.put_completions([made])
    store.close()
    store = Store(folder / "s.sqlite")
    assert store.completions(["k", "other"]) == {"k": made}
    store.close()


def test_failures_are_never_stored(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.sqlite")
    store.put_completions([completion("good"), completion("cut", finish="length"), completion("bad", "", "error")])
    assert set(store.completions(["good", "cut", "bad"])) == {"good", "cut"}
    store.put_verdicts([verdict(reason.value, reason) for reason in Reason])
    kept = set(store.verdicts("j", [reason.value for reason in Reason]))
    assert kept == {reason.value for reason in Reason if not reason.transient}
    assert {"timeout", "rate_limited", "connection", "server_error", "judge_error", "missing"}.isdisjoint(kept)
    store.close()


def test_a_verdict_belongs_to_its_judge(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.sqlite")
    store.put_verdicts([verdict("c", judge="rules/1#aa")])
    assert store.verdicts("rules/1#ab", ["c"]) == {}
    assert set(store.verdicts("rules/1#aa", ["c", "d"])) == {"c"}
    store.close()


def test_more_keys_than_one_select_holds(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.sqlite")
    keys = [f"key{i}" for i in range(3001)]
    store.put_completions([completion(key) for key in keys])
    assert set(store.completions([*keys, *keys, "no"])) == set(keys)
    store.close()


def test_readers_while_one_writes(tmp_path: Path) -> None:
    writer, reader = Store(tmp_path / "s.sqlite"), Store(tmp_path / "s.sqlite")
    writer._db.execute("BEGIN IMMEDIATE")
    writer._db.execute("INSERT INTO completions VALUES ('half', '{}', '')")
    assert reader.completions(["half"]) == {}, "a batch that is not committed is not there"
    writer._db.execute("ROLLBACK")
    writer.put_completions([completion("whole")])
    assert set(reader.completions(["whole"])) == {"whole"}
    writer.close()
    reader.close()


WRITER = """
import sys, pathlib
from audit.store import Store
from audit.types import Completion
store = Store(pathlib.Path(sys.argv[1]))
n = 0
while True:
    keys = [f"{n}-{i}" for i in range(int(sys.argv[2]))]
    batch = [Completion(key=key, text="x" * 200, finish="stop", n_prompt=1, n_new=1) for key in keys]
    store.put_completions(batch)
    print(n, flush=True)
    n += 1
"""


@pytest.mark.parametrize("after", [1, 7, 23])
def test_a_killed_writer_leaves_whole_batches(tmp_path: Path, after: int) -> None:
    path = tmp_path / "s.sqlite"
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(BATCH)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(after):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read().split()
    process.wait()
    told = after + len(rest)
    store = Store(path)
    counts = [len(store.completions([f"{n}-{i}" for i in range(BATCH)])) for n in range(told + 2)]
    assert counts[:told] == [BATCH] * told, "every batch that was said to be committed is there"
    assert set(counts[told:]) <= {0, BATCH}, "the batch in flight is there as a whole or not at all"
    store.put_completions([completion("after")])
    store.close()


def test_two_processes_make_the_same_store_at_once(tmp_path: Path) -> None:
    code = "import sys, pathlib\nfrom audit.store import Store\n" + (
        "for i in range(15):\n    Store(pathlib.Path(sys.argv[1]) / f'{i}.sqlite').close()\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [process.communicate()[1] for process in processes] == ["", "", ""]


def test_a_full_disk_is_told_and_keeps_what_was_committed(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.sqlite")
    store.put_completions([completion("before")])
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count={pages + 2}")
    with pytest.raises(StoreError, match="full") as caught:
        store.put_completions([completion(f"big{i}", "x" * 5000) for i in range(20)])
    assert "--store" in caught.value.hint and str(store.path) in str(caught.value)
    assert set(store.completions(["before", "big0"])) == {"before"}
    store._db.execute(f"PRAGMA max_page_count={pages + 1000}")
    store.put_completions([completion("later")])  # no transaction was left open
    assert set(store.completions(["before", "later"])) == {"before", "later"}
    store.close()


FULL = """
import resource, sys, pathlib
from audit.errors import StoreError
from audit.store import Store
from audit.types import Completion
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = Store(pathlib.Path(sys.argv[1]))
store.put_completions([Completion(key="before", text="x", finish="stop", n_prompt=1, n_new=1)])
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
try:
    for n in range(100):
        store.put_completions([Completion(key=f"{n}", text="x" * 4000, finish="stop", n_prompt=1, n_new=1)])
        print(n, flush=True)
except StoreError as error:
    print("refused:", error.exit_code)
"""


def test_a_limit_on_file_size_is_told_and_nothing_committed_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=False)
    *told, last = done.stdout.splitlines()
    assert last == "refused: 2" and told, done.stderr
    store = Store(path)
    assert set(store.completions(["before", *told])) == {"before", *told}
    store.close()


@pytest.mark.parametrize(
    "content", [b"this is a letter, not a database" * 40, b"\x00" * 5000, b"SQLite format 3\x00" + b"\xff" * 3000]
)
def test_a_file_that_is_no_database(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s.sqlite"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"s\.sqlite"):
        Store(path)
    assert path.read_bytes() == content, "a foreign file is left as it was"


def test_the_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE recipes (name TEXT)")
    other.commit()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        Store(path)
    other.close()
    assert path.read_bytes() == before


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    store = Store(path)
    store._db.execute("PRAGMA user_version=99")
    store.close()
    with pytest.raises(StoreError, match="version"):
        Store(path)


def test_a_verdict_whose_label_was_turned_is_asked_for_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.sqlite")
    store.put_verdicts([verdict("turned"), verdict("left")])
    store._db.execute("UPDATE verdicts SET value = replace(value, 'no_leak', 'leak') WHERE value LIKE '%\"turned\"%'")
    store.close()
    store = Store(tmp_path / "s.sqlite")
    assert set(store.verdicts("j", ["turned", "left"])) == {"left"}
    assert store.refused == {"damaged": 1}
    store.put_verdicts([verdict("turned")])  # judged again: the row is whole again
    assert set(store.verdicts("j", ["turned", "left"])) == {"turned", "left"}
    store.close()


@pytest.mark.parametrize("table", ["completions", "verdicts"])
def test_no_row_is_known_under_another_key_or_with_another_byte(tmp_path: Path, table: str) -> None:
    store = Store(tmp_path / "s.sqlite")
    store.put_completions([completion("a"), completion("b")])
    store.put_verdicts([verdict("a"), verdict("b")])
    keys = ["a", "b"] if table == "completions" else [verdict_key("j", "a"), verdict_key("j", "b")]
    values = dict(store._db.execute(f"SELECT key, value FROM {table}").fetchall())

    def known() -> int:
        return len(store.completions(["a", "b"]) if table == "completions" else store.verdicts("j", ["a", "b"]))

    assert known() == 2
    for spoilt in (values[keys[1]], values[keys[0]][:-1], "", values[keys[0]].encode()):
        store._db.execute(f"UPDATE {table} SET value = ? WHERE key = ?", (spoilt, keys[0]))
        assert known() == 1
    assert store.refused == {"damaged": 4}
    store.close()


def test_a_store_without_checksums_is_taken_over_and_its_rows_are_unknown(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    old = sqlite3.connect(path, isolation_level=None)
    for table in ("completions", "verdicts"):
        old.execute(f"CREATE TABLE {table} (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
    old.execute("INSERT INTO completions VALUES (?, ?)", ("k", msgspec.json.encode(completion("k")).decode()))
    old.execute("PRAGMA application_id=1096107092")
    old.execute("PRAGMA user_version=1")
    old.close()
    for _ in range(2):
        store = Store(path)
        assert store.completions(["k"]) == {} and store.refused == {"unchecked": 1}
        store.close()
    store = Store(path)
    store.put_completions([completion("k")])
    assert set(store.completions(["k"])) == {"k"} and not store.refused
    store.close()


def test_a_row_of_another_version_of_the_records_is_told_as_that(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.sqlite")
    store._put("completions", {"l": '{"key": "l", "finish": "fine"}'})
    with pytest.raises(StoreError, match="no record of this version") as caught:
        store.completions(["l"])
    assert "--store" in caught.value.hint and "disk space" not in caught.value.hint
    store.close()


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError):
        Store(tmp_path / "file" / "s.sqlite")
    with pytest.raises(StoreError):
        Store(tmp_path)
    with pytest.raises(StoreError):
        Store(Path("/proc/nowhere/s.sqlite"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(StoreError):
        Store(tmp_path / "closed" / "s.sqlite")


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AUDIT_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("AUDIT_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "unlearning-audit"
