"""The rules of the house that a machine can check: layers, exact arithmetic, where SQL and commits stand."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PURE = frozenset({
    "assignment", "bloom", "board", "bundle", "canonical", "challenge", "collector", "continuity", "difference",
    "epoch", "errors", "events", "evidence", "feedback", "fees", "gold", "handout", "hashing", "lines", "merkle",
    "messages", "opening", "payout", "reason", "receipts", "refusals", "rules", "score", "siwe", "spec", "stake",
    "surplus", "tables", "tree", "types", "verdict", "wire",
})  # fmt: skip
"""Files of chain that compute from their arguments and nothing else."""
EDGE = frozenset({
    "attempts", "committer", "confirmed", "contracts", "deploy", "deployment", "devnet", "exchange", "head",
    "indexer", "keys", "ledger", "logs", "memory", "outbox", "pool", "providers", "publisher", "quorum", "quote",
    "ranges", "record", "rpc", "sealing", "served", "signer", "step", "transactions", "transport", "verify",
    "wallets", "watch",
})  # fmt: skip
"""Files of chain that talk to a node, a disk or a database."""
OUTSIDE = frozenset({
    "httpx", "sqlmodel", "sqlalchemy", "alembic", "apscheduler", "fastapi", "pydantic_settings",
    "service", "trainer", "time", "datetime", "random", "secrets", "os", "socket", "subprocess", "pathlib", "logging",
})  # fmt: skip
"""What a pure file has no use for: networks, databases, settings, clocks, chance, files."""
TORCH_FREE = (
    "preferences", "registry", "rating", "corpus", "gold", "config", "overrides", "errors", "limits", "progress",
    "diary", "shares", "duel", "reward_report", "measured", "plot", "figures", "card", "report", "tensorboard", "showing",
    "gate", "scores", "lexical", "tasking", "flags", "making",
)  # fmt: skip
"""What service may import of trainer."""
SQL = re.compile(r"chain/ledger/|service/ledger/|service/migrations/|service/database\.py")
COMMITS = re.compile(
    r"service/(routes/|intake\.py|jobs\.py|worker\.py|cli/|demo/)|chain/(outbox|indexer)\.py"
)
"""The request, or many at once, the job, the command; and chain's steps: their transactions must not be lost halfway."""
BROAD = {
    "chain/keys.py": "eth-account raises whatever a strange wallet file leads it to",
    "chain/signer.py": "eth-account raises whatever strange bytes of a signer lead it to",
    "chain/watch.py": "a bundle that makes the recomputation crash is an alarm; it must not end the watch",
    "service/intake.py": "what one ranking of a batch leads to is told to its sender, and costs the others nothing",
    "service/jobs.py": "a job that fails is recorded, and the clock goes on",
    "trainer/harness.py": "a task's own code and data raise whatever they do",
    "trainer/limits.py": "safetensors and tokenizers raise exceptions of their own where a disk is full",
    "trainer/model.py": "the tokenizers package raises plain Exception",
}
"""Files that may catch Exception, and why."""


@lru_cache
def _sources(package: str) -> tuple[tuple[str, ast.Module], ...]:
    """Return path and syntax tree of every file of a package."""
    files = sorted((ROOT / package).rglob("*.py"))
    return tuple((f.relative_to(ROOT).as_posix(), ast.parse(f.read_text(encoding="utf-8"))) for f in files)


def _pure() -> Iterator[tuple[str, ast.Module]]:
    return (
        (path, tree) for path, tree in _sources("chain") if Path(path).stem in PURE and path.count("/") == 1
    )


def _imports(tree: ast.Module) -> Iterator[str]:
    """Yield the full names that a file imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_packages_know_each_other_as_drawn() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_file_of_chain_is_either_pure_or_edge() -> None:
    found = {p.stem for p in (ROOT / "chain").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert found - {"__init__"} == PURE | EDGE


def _inexact(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, float | complex)
    if isinstance(node, ast.BinOp | ast.AugAssign):
        return isinstance(node.op, ast.Div)
    if isinstance(node, ast.Name | ast.Attribute):
        name = node.id if isinstance(node, ast.Name) else node.attr
        return name in {"float", "Decimal", "Fraction", "float64", "float32", "true_divide"}
    return False


@pytest.mark.parametrize(
    "text", ["x = 0.5", "x = 1 / 2", "x /= 2", "float(1)", "decimal.Decimal(1)", "np.float64(1)"]
)
def test_inexact_arithmetic_is_seen(text: str) -> None:
    assert any(_inexact(node) for node in ast.walk(ast.parse(text)))


def test_what_reaches_money_is_computed_in_integers() -> None:
    found = [
        f"{path}:{getattr(node, 'lineno', '?')}"
        for path, tree in _pure()
        for node in ast.walk(tree)
        if _inexact(node)
    ]
    assert found == []


def test_pure_files_reach_nothing_but_their_arguments() -> None:
    found = [
        f"{path}: {name}"
        for path, tree in _pure()
        for name in _imports(tree)
        if name.split(".")[0] in OUTSIDE or (name.startswith("chain.") and name.split(".")[1] in EDGE)
    ]
    assert found == []


def _loaded(*modules: str) -> set[str]:
    """Return the top-level names of all that is loaded once these modules are, in a process of their own."""
    script = f"import sys, {', '.join(modules)}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_service_never_loads_torch() -> None:
    modules = [
        path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path, _ in _sources("service")
        if "/migrations/" not in path
    ]
    assert not {"torch", "transformers", "tokenizers"} & _loaded(*modules)


def test_the_torch_free_files_of_the_trainer_are_free_of_torch() -> None:
    loaded = _loaded("trainer", *(f"trainer.{name}" for name in TORCH_FREE))
    assert not {"torch", "transformers", "tokenizers", "chain", "service"} & loaded


def test_the_service_imports_of_the_trainer_only_what_is_free_of_torch() -> None:
    found = {
        n.split(".")[1] for _, tree in _sources("service") for n in _imports(tree) if n.startswith("trainer.")
    }
    assert found <= set(TORCH_FREE)


def test_sql_stands_in_the_ledgers_only() -> None:
    words = {"select", "insert", "update", "delete", "text", "func", "union"}
    found = [
        f"{path}: {name}"
        for package in ("chain", "service", "trainer")
        for path, tree in _sources(package)
        for name in _imports(tree)
        if name.split(".")[0] in {"sqlmodel", "sqlalchemy"}
        and name.split(".")[-1] in words
        and not SQL.match(path)
    ]
    assert found == []


def _calls(tree: ast.Module, method: str) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == method:
            yield node.lineno


def test_only_the_request_the_job_or_the_step_commits() -> None:
    found = [
        f"{path}:{line}"
        for package in ("chain", "service", "trainer")
        for path, tree in _sources(package)
        for line in _calls(tree, "commit")
        if not COMMITS.match(path)
    ]
    assert found == []


def _catches_all(handler: ast.ExceptHandler) -> bool:
    """Tell whether a handler takes every error and does not raise one in turn."""
    names = (
        {n.id for n in ast.walk(handler.type) if isinstance(n, ast.Name)} if handler.type else {"Exception"}
    )
    ends = handler.body[-1]
    again = isinstance(ends, ast.Raise) and ends.exc is None
    return bool(names & {"Exception", "BaseException"}) and not again


def test_every_error_is_caught_only_where_it_is_said_why() -> None:
    found = {
        path
        for package in ("chain", "service", "trainer")
        for path, tree in _sources(package)
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler) and _catches_all(node)
    }
    assert found <= set(BROAD)


def test_the_readme_names_every_module() -> None:
    """By its name in backticks: `score`, `chain/score.py` and `ledger/` all do."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = []
    for package in ("chain", "service", "trainer"):
        for path, _ in _sources(package):
            parts = Path(path).relative_to(package).with_suffix("").parts
            name = parts[0] if parts[-1] == "__init__" else parts[-1]
            if (
                "versions" not in parts
                and parts != ("__init__",)
                and not re.search(rf"[`/]{name}(\.py|/)?`", readme)
            ):
                missing.append(path)
    assert missing == []


def _slugs(file: Path) -> set[str]:
    """Return the anchors of a Markdown file's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", file.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found: list[str] = []
    for heading in re.findall(r"^#{1,6} +(.*?) *$", text, re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.append(re.sub(r"[^\w\- ]", "", words).replace(" ", "-"))
    return {f"{slug}-{n}" if (n := found[:place].count(slug)) else slug for place, slug in enumerate(found)}


def test_what_the_readmes_link_to_is_there() -> None:
    for readme in (ROOT, *(ROOT / p for p in ("chain", "service", "trainer", "contracts", "tests"))):
        file = readme / "README.md"
        if not file.exists():
            continue
        for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", file.read_text(encoding="utf-8")):
            path, _, anchor = target.partition("#")
            there = readme / path if path else file
            assert there.exists(), f"{file.relative_to(ROOT)} links to {target}"
            assert not anchor or anchor in _slugs(there), f"{file.relative_to(ROOT)} links to {target}"


def test_an_anchor_is_a_headings_words_as_github_joins_them(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text(
        "# What it *costs*, with `a_b` & [all](x.md)\n```\n# none\n```\n## Two\n## Two\n", encoding="utf-8"
    )
    assert _slugs(file) == {"what-it-costs-with-a_b--all", "two", "two-1"}


def test_every_file_says_in_one_sentence_what_it_is_for() -> None:
    found = [
        path
        for package in ("chain", "service", "trainer", "tests")
        for path, tree in _sources(package)
        if not re.match(r"\S.*[.:!?]", (ast.get_docstring(tree) or "").split("\n\n")[0], re.DOTALL)
    ]
    assert found == []


def test_every_test_that_the_contracts_readme_names_is_there() -> None:
    readme = (ROOT / "contracts" / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\b(?:test|testFuzz|invariant)_[a-z0-9_]+[a-z0-9](?![a-z0-9_…/.])", readme))
    sources = "\n".join(f.read_text(encoding="utf-8") for f in (ROOT / "contracts" / "test").rglob("*.sol"))
    assert len(named) > 100
    assert sorted(n for n in named if not re.search(rf"function {n}\(", sources)) == []
