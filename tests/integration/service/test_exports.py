"""Training data of closed epochs, taken over HTTP and on the command line; and the operator's tasks on their way in."""

from __future__ import annotations

import asyncio
import io
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from chain.rules import Rules
from service import asking, exports, jobs, rowfile
from service.exports import KINDS, Kind
from service.guard import HEAD
from service.routes.epochs import BundleFile
from service.rowfile import FORMS, Form
from tests.integration.service.shell import Shell

TASKS = [{"prompt": f"own {n}", "responses": [f"{n} a", f"{n} b", f"{n} c"]} for n in range(5)]
EPOCHS = 2


@pytest.fixture(scope="module")
def net(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start a service with two closed epochs and an open one, in each of which the operator's own tasks are asked."""
    folder = tmp_path_factory.mktemp("net")
    own = folder / "tasks.jsonl"
    own.write_text("".join(json.dumps(t) + "\n" for t in TASKS))
    with network(folder, Rules(methods=("ranking",)), tasks_file=own, tasks_per_epoch=2) as made:
        made.go_to(made.start(0) + 1)
        for epoch in range(EPOCHS + 1):
            if epoch:
                made.go_to(made.start(epoch) + 1)
                jobs.step_index(made.ctx)
                jobs.close_epoch(made.ctx, epoch - 1)
                jobs.step_commit(made.ctx)
            made.open(epoch, made.plans(epoch, 6) + asking.plans(made.ctx, epoch, []))
            for stake in (100, 50):
                who = made.person(stake, epoch=epoch)
                while (task := who.next_task()) is not None:
                    ranks = range(1, len(task.shown) + 1)
                    order = sorted(task.shown)
                    who.send(who.ranking(task, [ranks[order.index(t)] for t in task.shown], now=made.now()))
        yield made


def _get(net: Any, epoch: int, kind: str, form: str, **options: Any) -> httpx.Response:
    found: httpx.Response = net.ask("GET", f"/v1/epochs/{epoch}/exports/{kind}.{form}", **options)
    return found


def _rows(net: Any, kind: Kind, epoch: int) -> list[dict[str, Any]]:
    with net.ctx.place.bundle_path(epoch).open("rb") as bundle:
        return list(exports.rows(kind, bundle))


@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_epoch_is_served_in_both_forms_as_its_bundle_says(net: Any, kind: Kind) -> None:
    for epoch in range(EPOCHS):
        rows = _rows(net, kind, epoch)
        assert rows
        lines, table = (_get(net, epoch, kind, form) for form in FORMS)
        assert lines.content == b"".join(rowfile.jsonl(rows))
        assert pq.read_table(io.BytesIO(table.content)).to_pylist() == rows
        assert (lines.headers["content-type"], table.headers["content-type"]) == tuple(rowfile.MEDIA.values())


def test_a_file_that_somebody_has_is_not_sent_again(net: Any) -> None:
    first = _get(net, 0, "preference", "jsonl")
    tag = first.headers["etag"]
    assert net.api.get("/epochs/0")["data_hash"] in tag
    again = _get(net, 0, "preference", "jsonl", headers={"if-none-match": tag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    other = _get(net, 1, "preference", "jsonl", headers={"if-none-match": tag})
    assert other.status_code == 200
    assert other.headers["etag"] != tag


def test_labels_below_a_threshold_are_left_out(net: Any) -> None:
    rows = [json.loads(x) for x in _get(net, 0, "preference", "jsonl").text.splitlines()]
    least = max(r["confidence"] for r in rows)
    kept = _get(net, 0, "preference", "jsonl", params={"confidence": least}).text.splitlines()
    assert [json.loads(x) for x in kept] == [r for r in rows if r["confidence"] >= least]


def test_nothing_of_a_running_epoch_is_told(net: Any) -> None:
    net.refused(404, "is not closed", method="GET", path=f"/v1/epochs/{EPOCHS}/exports/rankings.jsonl")
    net.refused(404, "is not closed", method="GET", path="/v1/epochs/99/exports/rankings.parquet")


@pytest.mark.parametrize("path", ["gold.jsonl", "preference.csv", "preference.jsonl?confidence=2"])
def test_what_there_is_not_is_refused(net: Any, path: str) -> None:
    net.refused(400, method="GET", path=f"/v1/epochs/0/exports/{path}")


# -- the command ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_the_command_writes_the_same_rows_from_a_service_a_folder_and_single_files(
    haptic: Shell, net: Any, form: Form
) -> None:
    bundles = net.ctx.place.bundles
    haptic.does("export", "--as", form, "--out", f"all.{form}")
    haptic.does("export", "--as", form, "--out", f"folder.{form}", "--bundle", bundles, "--epochs", "0..1")
    whole = (haptic.folder / f"all.{form}").read_bytes()
    assert (haptic.folder / f"folder.{form}").read_bytes() == whole
    if form == "parquet":
        found = pq.read_table(io.BytesIO(whole)).to_pylist()
        assert found == _rows(net, "preference", 0) + _rows(net, "preference", 1)
        return
    single = [haptic("export", "--bundle", bundles / f"epoch-{e}.jsonl").out for e in range(EPOCHS)]
    assert "".join(single).encode() == whole


def test_the_command_writes_lines_to_standard_output_and_all_else_beside_it(haptic: Shell, net: Any) -> None:
    said = haptic("export", "--kind", "rankings", "--epochs", "1..")
    assert said.out.encode() == b"".join(rowfile.jsonl(_rows(net, "rankings", 1)))
    assert "rows; epochs: 1. written to standard output" in said.err


def test_a_dry_run_counts_the_rows_and_writes_nothing(haptic: Shell, net: Any) -> None:
    said = haptic.does("export", "--kind", "unpaired", "--dry-run", "--out", "x.jsonl")
    for epoch in range(EPOCHS):
        assert f"epoch {epoch}: {len(_rows(net, 'unpaired', epoch))} rows" in said
    assert not (haptic.folder / "x.jsonl").exists()


def test_what_cannot_be_exported_is_one_line_and_no_file(haptic: Shell, net: Any) -> None:
    bundles = net.ctx.place.bundles
    haptic.does("export", "--out", "there.jsonl")
    haptic.fails("export", "--out", "there.jsonl", words=("exists already", "--force"))
    haptic.does("export", "--out", "there.jsonl", "--force")
    haptic.fails("export", "--as", "parquet", words=("--out",))
    haptic.fails("export", "--epochs", "0..7", "--out", "x", words=("answered 404: epoch 2 is not closed",))
    haptic.fails("export", "--epochs", "0..7", "--bundle", bundles, "--out", "x", words=("[0, 1]",))
    haptic.fails("export", "--epochs", "3..1", words=("before the first",))
    haptic.fails("export", "--epochs", "one", words=("0..3",))
    broken = haptic.folder / "epoch-0.jsonl"
    broken.write_bytes(net.ctx.place.bundle_path(0).read_bytes()[:-5])
    haptic.fails("export", "--bundle", broken, "--out", "x", words=("cut off",))
    assert not (haptic.folder / "x").exists()


def test_the_command_imports_what_people_said_elsewhere(haptic: Shell) -> None:
    rows = [
        {"prompt": f"q{n}", "chosen": "yes", "rejected": "no", "annotator": f"w{m}"}
        for n in range(2)
        for m in range(3)
    ]
    (haptic.folder / "said.jsonl").write_text("{\n" + "".join(json.dumps(r) + "\n" for r in rows))
    haptic.fails(
        "import", "said.jsonl", "--to", "gold", "--out", "gold.jsonl", words=("line 1: is not JSON",)
    )
    haptic.fails("import", "said.jsonl", "--to", "gold", "--skip-bad", words=("--out",))
    said = haptic.does("import", "said.jsonl", "--to", "gold", "--out", "gold.jsonl", "--skip-bad")
    assert "7 lines, 1 of them bad; 2 gold made" in said
    assert "Nobody's wallet signed this" in said
    made = [json.loads(x) for x in (haptic.folder / "gold.jsonl").read_text().splitlines()]
    assert made == [{"prompt": f"q{n}", "responses": ["yes", "no"], "ranks": [1, 2]} for n in range(2)]
    few = ("import", "said.jsonl", "--to", "gold", "--skip-bad", "--min-people", "4")
    said = haptic(*few, "--out", "none.jsonl")
    assert (said.status, "fewer than 4 people" in said.out) == (1, True)
    assert (
        "dry run" in haptic.does("import", "said.jsonl", "--to", "tasks", "--skip-bad", "--dry-run").lower()
    )
    assert sorted(p.name for p in haptic.folder.glob("*.jsonl")) == ["gold.jsonl", "said.jsonl"]


# -- the operator's tasks ---------------------------------------------------------------------------------


def test_the_operators_tasks_are_asked_in_their_order_and_each_once(net: Any) -> None:
    asked = []
    for epoch in range(EPOCHS):
        lines = map(json.loads, net.ctx.place.bundle_path(epoch).read_text().splitlines())
        asked.append(
            sorted(x["prompt"] for x in lines if x["kind"] == "task" and x["prompt"].startswith("own"))
        )
    assert asked == [["own 0", "own 1"], ["own 2", "own 3"]]
    left = asking.plans(net.ctx, EPOCHS + 1, [])
    assert left == []


def test_the_operators_tasks_are_labelled_as_all_others(net: Any) -> None:
    rows = _rows(net, "preference", 0)
    assert {(r["chosen"], r["rejected"]) for r in rows if r["prompt"] == "own 0"} == {
        ("0 a", "0 b"), ("0 a", "0 c"), ("0 b", "0 c"),
    }  # fmt: skip


def test_a_task_that_is_gold_too_is_kept_for_gold(net: Any, tmp_path: Path) -> None:
    gold, own, asked = (tmp_path / f"{name}.jsonl" for name in ("gold", "own", "asked"))
    asked.write_text('{"prompt": "p"}\n')
    fresh = [{"prompt": f"fresh {n}", "responses": ["x", "y", "z"], "ranks": [1, 2, 3]} for n in range(3)]
    gold.write_text(json.dumps(fresh[0]) + "\n")
    own.write_text("".join(json.dumps(t) + "\n" for t in fresh))
    with_gold = {"gold_file": gold, "tasks_file": own, "prompts_file": asked, "devnet_gold": False}
    ctx = _with(net.ctx, with_gold)
    plans = asking.plans(ctx, 9, [])
    assert [(p.task.prompt, bool(p.gold_ranks)) for p in plans] == [
        ("fresh 1", False), ("fresh 2", False), ("fresh 0", True),
    ]  # fmt: skip


def test_gold_that_was_asked_under_another_name_is_not_asked_again(net: Any, tmp_path: Path) -> None:
    gold, own, asked = (tmp_path / f"{name}.jsonl" for name in ("gold", "own", "asked"))
    asked.write_text('{"prompt": "p"}\n')
    known = [{"prompt": f"own {n}", "responses": [f"{n} a", f"{n} b", f"{n} c"]} for n in (0, 9)]
    gold.write_text("".join(json.dumps(k | {"ranks": [1, 2, 3]}) + "\n" for k in known))
    own.write_text(json.dumps({"prompt": "fresh", "responses": ["x", "y", "z"]}) + "\n")
    settings = {"gold_file": gold, "tasks_file": own, "prompts_file": asked, "devnet_gold": False}
    plans = asking.plans(_with(net.ctx, settings), 9, [])
    assert [p.task.prompt for p in plans] == ["fresh", "own 9"]


def _with(ctx: Any, settings: dict[str, Any]) -> Any:
    return replace(ctx, settings=ctx.settings.model_copy(update=settings))


def test_who_reads_slowly_keeps_nobody_from_the_database(net: Any) -> None:
    """A download lasts as long as its reader likes: no connection of the pool may be held meanwhile."""
    path = net.ctx.place.bundle_path(0)
    kept, url = path.with_suffix(".kept"), httpx.URL(net.api.url)
    path.rename(kept)
    try:
        with path.open("wb") as large:
            large.truncate(1 << 26)  # more than the sockets hold
        with ExitStack() as held:
            for _ in range(3):
                reader = socket.create_connection((url.host, url.port or 80), timeout=10)
                held.enter_context(reader)
                reader.sendall(b"GET /v1/epochs/0/bundle HTTP/1.1\r\nhost: x\r\n\r\n")
                assert reader.recv(12) == b"HTTP/1.1 200"
            assert net.ctx.db.engine.pool.checkedout() == 0
    finally:
        kept.replace(path)


def test_head_of_a_bundle_reads_nothing_of_it(tmp_path: Path) -> None:
    path, sent = tmp_path / "bundle", list[dict[str, Any]]()
    path.write_bytes(b"line\n" * 100)

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "GET", "headers": [], HEAD: True, "asgi": {"spec_version": "2.4"}}
    asyncio.run(BundleFile(path)(scope, receive, send))
    assert dict(sent[0]["headers"])[b"content-length"] == b"500"
    assert b"".join(m["body"] for m in sent[1:]) == b""
