"""What a stranger does, who knows only the node, the addresses and the URL: verify, check a ranking's proof, export."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from chain.committer import epoch_record
from chain.merkle import verify_ledger_proof
from chain.types import Hash32
from service.demo.cast import Player
from service.demo.stage import DemoError, Stage
from service.terminal import out


def verify(stage: Stage, players: Sequence[Player], epoch: int) -> None:
    """Run `haptic verify` with every receipt that the players kept; DemoError where it finds a difference."""
    kept = stage.site.folder / "receipts.jsonl"
    kept.write_text("".join(json.dumps(r) + "\n" for p in players for r in p.receipts), encoding="utf-8")
    deployment = str(stage.site.folder / "deployment.json")
    done = _haptic(
        "verify", "--rpc", stage.site.rpc.name, "--deployment", deployment, "--bundle", stage.api.url,
        "--epoch", str(epoch), "--receipts", str(kept),
    )  # fmt: skip
    out.print((done.stdout + done.stderr).rstrip(), markup=False, soft_wrap=True)
    if done.returncode:
        raise DemoError("haptic verify found a difference; see above")


def check_inclusion(stage: Stage, player: Player) -> None:
    """Ask for the proof of a player's last ranking, and follow it to the ledger root that the chain has."""
    receipt = player.receipts[-1]["receipt"]
    epoch, digest = int(receipt["epoch"]), Hash32(receipt["digest"])
    path = f"/epochs/{epoch}/rankings/{digest}/proof"
    proof = [Hash32(h) for h in stage.api.get(path)["proof"]]
    root = epoch_record(stage.site.rpc, stage.site.deployment, epoch).ledger_root
    if not verify_ledger_proof(root, digest, player.wallet, proof):
        raise DemoError(f"{path} does not lead to the ledger root {root} on the chain")
    out.print(
        f"[green]✓[/] inclusion: a ranking of {player.role.name} is proven by {len(proof)} hashes "
        f"under the ledger root of epoch {epoch} on the chain"
    )


def export(stage: Stage) -> None:
    """Run `haptic export` and count the rows of its file."""
    file = stage.site.folder / "preference.jsonl"
    done = _haptic("export", "--bundle", stage.api.url, "--out", str(file))
    if done.returncode:
        raise DemoError(f"haptic export failed: {done.stderr}")
    out.print(f"[green]✓[/] export: {_lines(file):,} rows of chosen and rejected in {file}", soft_wrap=True)


def _lines(file: Path) -> int:
    with file.open("rb") as lines:
        return sum(1 for _ in lines)


def _haptic(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process that has nothing of the operator's."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("HAPTIC_")}
    command = [sys.executable, "-c", "from service.cli import main; main()", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
