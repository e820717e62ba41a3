"""The registry: an entry is complete or absent, is never changed, and the same one twice is no error."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from trainer.errors import RegistryError
from trainer.registry import RECORD, WEIGHTS, Entry, Registry, code_version, file_sha256, same

BYTES = b"weights"
ENTRY = Entry(
    name="sft-0",
    kind="sft",
    parent=None,
    data_sha256="aa",
    config={"sft": {"steps": 3}},
    seed=7,
    metrics={"kl": 0.5},
    code_version="bb",
    weights_sha256=hashlib.sha256(BYTES).hexdigest(),
    created_at=1_000,
)


def fill(folder: Path, data: bytes = BYTES) -> Path:
    (folder / WEIGHTS).parent.mkdir(parents=True)
    (folder / WEIGHTS).write_bytes(data)
    return folder


def add(registry: Registry, entry: Entry) -> Entry:
    with registry.staging(entry.name) as folder:
        return registry.add(entry, fill(folder))


def test_an_entry_reads_back_as_it_was_added(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "models")
    assert add(registry, ENTRY) == ENTRY
    assert Registry(tmp_path / "models").get("sft-0") == ENTRY
    assert file_sha256(registry.path("sft-0") / WEIGHTS) == ENTRY.weights_sha256


def test_entries_are_sorted_by_age_then_name(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    for name, born in (("b", 5), ("policy-10", 9), ("a", 5), ("policy-2", 7)):
        add(registry, replace(ENTRY, name=name, created_at=born))
    assert [entry.name for entry in registry.entries()] == ["a", "b", "policy-2", "policy-10"]


def test_an_empty_or_missing_registry_has_no_entries(tmp_path: Path) -> None:
    assert Registry(tmp_path).entries() == []
    assert Registry(tmp_path / "none").entries() == []


def test_a_missing_entry_is_named_beside_those_there_are(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    add(registry, ENTRY)
    assert registry.find("policy-1") is None
    with pytest.raises(RegistryError, match=r"no entry 'policy-1'; it has: sft-0"):
        registry.path("policy-1")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "ä", "x" * 65])
def test_a_name_that_is_no_folder_of_the_registry_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RegistryError, match="is no name"):
        Registry(tmp_path).find(name)


def test_the_same_entry_twice_keeps_the_first(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    add(registry, ENTRY)
    assert add(registry, replace(ENTRY, created_at=2_000, metrics={}, code_version="cc")) == ENTRY
    assert registry.entries() == [ENTRY]


@pytest.mark.parametrize(
    "change",
    [{"data_sha256": "zz"}, {"config": {}}, {"seed": 8}, {"parent": "other"}, {"kind": "policy"}],
)
def test_another_entry_of_the_same_name_is_refused_and_the_difference_named(
    tmp_path: Path, change: dict[str, object]
) -> None:
    registry = Registry(tmp_path)
    add(registry, ENTRY)
    with pytest.raises(RegistryError, match=next(iter(change))):
        add(registry, replace(ENTRY, **change))  # type: ignore[arg-type]
    assert registry.get("sft-0") == ENTRY
    with pytest.raises(RegistryError, match="choose another name"):
        same(ENTRY, replace(ENTRY, **change))  # type: ignore[arg-type]


def test_of_two_configurations_only_the_settings_that_differ_are_named() -> None:
    old = replace(ENTRY, config={"ppo": {"steps": 2, "clip": 0.2}, "threads": 1})
    new = replace(ENTRY, config={"ppo": {"steps": 3, "clip": 0.2}, "threads": 1, "method": None})
    with pytest.raises(RegistryError) as caught:
        same(old, new)
    assert str(caught.value) == (
        "sft-0 exists with config.method 'unknown', not None; config.ppo.steps 2, not 3: choose another name"
    )


def test_weights_that_differ_from_the_record_are_refused(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    with registry.staging("sft-0") as folder, pytest.raises(RegistryError, match="weights have sha256"):
        registry.add(ENTRY, fill(folder, b"other"))
    assert registry.entries() == []


def test_an_unfinished_entry_is_never_seen_and_leaves_nothing(tmp_path: Path) -> None:
    registry = Registry(tmp_path)

    def crash() -> None:
        with registry.staging("sft-0") as folder:
            fill(folder)
            assert registry.entries() == []
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crash()
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_what_a_killed_builder_left_is_removed_by_the_next(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    fill(tmp_path / ".staging-sft-0", b"half")
    assert registry.entries() == []
    with registry.staging("sft-0") as folder:
        assert list(folder.iterdir()) == []
        registry.add(ENTRY, fill(folder))
    assert registry.entries() == [ENTRY]


def test_a_second_builder_of_a_name_waits_for_the_first(tmp_path: Path) -> None:
    registry, order = Registry(tmp_path), []
    waiting = threading.Thread(target=lambda: (add(registry, ENTRY), order.append("second")))
    with registry.staging("sft-0") as folder:
        waiting.start()
        waiting.join(timeout=0.3)
        order.append("first")
        registry.add(ENTRY, fill(folder))
    waiting.join(timeout=10)
    assert order == ["first", "second"]


@pytest.mark.parametrize("left", ["{", "[" * 200_000, None], ids=["cut", "deep", "missing"])
def test_a_damaged_record_is_named_with_what_to_do(tmp_path: Path, left: str | None) -> None:
    """Else a model that lost its record would vanish from the list, and an older one be published again."""
    registry = Registry(tmp_path)
    add(registry, ENTRY)
    record = tmp_path / "sft-0" / RECORD
    record.unlink()
    if left is not None:
        record.write_text(left)
    for read in (lambda: registry.get("sft-0"), registry.entries):
        with pytest.raises(RegistryError, match=r"sft-0/entry.json is damaged \(.*train again"):
            read()


def test_what_is_no_model_is_no_damaged_entry(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    add(registry, ENTRY)
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "notes" / "mine").mkdir(parents=True)
    (registry.checkpoints("policy-1") / "model").mkdir(parents=True)
    assert registry.entries() == [ENTRY]


@pytest.mark.parametrize(
    ("name", "value"),
    [("metrics", None), ("config", []), ("metrics", {"kl": "1"}), ("created_at", "now"), ("kind", "x")],
)
def test_a_record_of_other_types_is_damaged_too(tmp_path: Path, name: str, value: object) -> None:
    registry = Registry(tmp_path)
    add(registry, ENTRY)
    record = tmp_path / "sft-0" / RECORD
    record.write_text(json.dumps(json.loads(record.read_text()) | {name: value}))
    with pytest.raises(RegistryError, match=rf"entry.json is damaged \({name}.*train again"):
        registry.entries()


def test_the_code_version_is_a_stable_hash() -> None:
    assert code_version() == code_version()
    assert len(bytes.fromhex(code_version())) == 32
