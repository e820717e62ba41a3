"""What a watcher remembers: read back whole or not at all, whatever became of its file."""

from __future__ import annotations

import json
from pathlib import Path
from resource import RLIMIT_FSIZE, getrlimit, setrlimit
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.challenge import PostedTree
from chain.memory import Memory
from chain.tree import SumTree
from chain.types import Address, Leaf, Wei

DISTRIBUTOR, OTHER = Address("0x" + 40 * "d"), Address("0x" + 40 * "e")
BOOKS = st.dictionaries(st.integers(1, 9) | st.integers(1, 2**160 - 1), st.integers(1, 2**80), max_size=9)


def _tree(book: dict[int, int]) -> tuple[PostedTree, list[Leaf]]:
    leaves = [Leaf(Address(f"0x{a:040x}"), Wei(v)) for a, v in sorted(book.items())]
    built = SumTree.build(leaves)
    return PostedTree.of(built.root_hash, Wei(built.sum), built.depth, leaves), leaves


def _keep(memory: Memory, tree: PostedTree, leaves: list[Leaf]) -> None:
    assert memory.keep(tree.commitment, tree.sum, tree.depth, leaves) == tree


def _recall(folder: Path | None, tree: PostedTree, distributor: Address = DISTRIBUTOR) -> PostedTree | None:
    """Recall a tree as a process does that was just started."""
    return Memory(1, distributor, folder).recall(tree.commitment, tree.sum, tree.depth)


@given(BOOKS)
def test_what_is_kept_in_a_folder_is_known_to_the_next_process(book: dict[int, int]) -> None:
    tree, leaves = _tree(book)
    with TemporaryDirectory() as name:
        folder = Path(name)
        _keep(Memory(1, DISTRIBUTOR, folder), tree, leaves)
        assert _recall(folder, tree) == tree
        assert _recall(folder, tree, OTHER) is None
        (file,) = folder.iterdir()
        first, *rest = [json.loads(line) for line in file.read_bytes().splitlines()]
        told = {"root": tree.root, "sum": str(tree.sum), "depth": tree.depth}
        assert first == {"chainId": 1, "distributor": DISTRIBUTOR, **told}
        assert [(x["account"], int(x["cumulative"])) for x in rest] == [
            (x.account, x.cumulative) for x in leaves
        ]


@given(BOOKS, st.data())
def test_a_file_that_was_changed_gives_the_true_tree_or_none(
    book: dict[int, int], data: st.DataObject
) -> None:
    tree, leaves = _tree(book)
    with TemporaryDirectory() as name:
        _keep(Memory(1, DISTRIBUTOR, Path(name)), tree, leaves)
        (file,) = Path(name).iterdir()
        text = file.read_bytes()
        start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
        file.write_bytes(text[:start] + data.draw(st.binary(max_size=3)) + text[end:])
        found = _recall(Path(name), tree)
        assert found is None or found == tree


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda _: b"", "it is no list of leaves (ValueError: "),
        (lambda _: b"\xff\n", "it is no list of leaves (UnicodeDecodeError: "),
        (lambda _: b"[" * 100_000, "it is no list of leaves (RecursionError: "),
        (lambda _: b'["chainId"]', "it is no list of leaves (TypeError: "),
        (lambda _: b"{}", "it is no list of leaves (KeyError: 'chainId')"),
        (lambda x: x[:-10], "it is no list of leaves (JSONDecodeError: "),
        (lambda x: x.replace(b'"7"', b'"-7"'), "it is no list of leaves (OverflowError: "),
        (lambda x: x.replace(b'"account":"0x', b'"account":"'), "it is no list of leaves (SignatureError: address"),
        (lambda x: x.replace(b'"7"', b'"8"'), "it has other leaves than the root that pays"),
        (lambda x: x[: x[:-1].rindex(b"\n")], "it has other leaves than the root that pays"),
        (lambda x: x.replace(b'"chainId":1', b'"chainId":2'), f"it is of the distributor '{DISTRIBUTOR}' on chain 2"),
        (lambda x: x.replace(b"d" * 40, b"e" * 40), f"it is of the distributor '{OTHER}' on chain 1"),
    ],
)  # fmt: skip
def test_a_file_that_is_ignored_is_named_with_the_reason_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: object, why: str
) -> None:
    tree, leaves = _tree({1: 7, 2: 5})
    _keep(Memory(1, DISTRIBUTOR, tmp_path), tree, leaves)
    (file,) = tmp_path.iterdir()
    assert callable(change)
    file.write_bytes(change(file.read_bytes()))
    memory = Memory(1, DISTRIBUTOR, tmp_path)
    assert [memory.recall(tree.commitment, tree.sum, tree.depth) for _ in range(3)] == [None] * 3
    (said,) = caplog.messages
    assert said.startswith(f"{file} is ignored: {why}")
    _keep(memory, tree, leaves)
    assert _recall(tmp_path, tree) == tree


def test_what_is_no_file_is_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tree, leaves = _tree({1: 7})
    memory = Memory(1, DISTRIBUTOR, tmp_path)
    _keep(memory, tree, leaves)
    (file,) = tmp_path.iterdir()
    file.unlink()
    assert _recall(tmp_path, tree) is None
    assert caplog.messages == []
    file.mkdir()
    assert _recall(tmp_path, tree) is None
    assert caplog.messages == [
        f"{file} is ignored: it cannot be read: Is a directory. The bundle is read instead"
    ]


def test_the_two_trees_that_were_needed_last_are_kept_here_and_in_the_folder(tmp_path: Path) -> None:
    trees = [_tree({1: n}) for n in range(1, 5)]
    for folder in (None, tmp_path):
        memory = Memory(1, DISTRIBUTOR, folder)
        for n in (0, 1):
            _keep(memory, *trees[n])
        strange = tmp_path / f"1-{OTHER}-0x.jsonl"
        strange.touch()
        for n in (2, 3):
            assert memory.recall(trees[0][0].commitment, trees[0][0].sum, 0) == trees[0][0]
            _keep(memory, *trees[n])
        for found in (memory, Memory(1, DISTRIBUTOR, folder)) if folder else (memory,):
            there = [found.recall(t.commitment, t.sum, t.depth) is not None for t, _ in trees]
            assert there == [True, False, False, True]
        assert strange.exists()


def test_leaves_of_another_tree_are_not_kept(tmp_path: Path) -> None:
    tree, leaves = _tree({1: 7, 2: 5})
    memory = Memory(1, DISTRIBUTOR, tmp_path)
    assert memory.keep(tree.commitment, tree.sum, tree.depth, leaves[:1]) is None
    assert memory.keep(tree.commitment, tree.sum, 2, leaves) is None
    assert memory.recall(tree.commitment, tree.sum, tree.depth) is None
    assert list(tmp_path.iterdir()) == []


def test_a_tree_is_not_taken_for_one_that_was_posted_with_another_depth() -> None:
    tree, leaves = _tree({1: 7})
    memory = Memory(1, DISTRIBUTOR)
    _keep(memory, tree, leaves)
    assert memory.recall(tree.commitment, tree.sum, 3) is None


def test_a_file_that_cannot_be_written_whole_leaves_the_old_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree, leaves = _tree({1: 7, 2: 5})
    _keep(Memory(1, DISTRIBUTOR, tmp_path), tree, leaves)
    (file,) = tmp_path.iterdir()
    soft, hard = getrlimit(RLIMIT_FSIZE)
    setrlimit(RLIMIT_FSIZE, (100, hard))
    try:
        _keep(Memory(1, DISTRIBUTOR, tmp_path), tree, leaves)
    finally:
        setrlimit(RLIMIT_FSIZE, (soft, hard))
    assert "is not written (File too large)" in caplog.text
    assert list(tmp_path.iterdir()) == [file]
    assert _recall(tmp_path, tree) == tree
