"""What a command sends: shown with what it costs at most and what the account has, asked about, then sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, NamedTuple

import typer
from eth_account.signers.local import LocalAccount
from rich.prompt import Confirm
from rich.table import Table

from chain.contracts import Contract, call
from chain.errors import ChainError
from chain.fees import GWEI, show_gwei
from chain.messages import checksum
from chain.quote import Quote, Wanted, quote
from chain.rpc import Rpc
from chain.signer import KeySigner, Signer
from chain.transactions import Courier
from chain.types import Address, Wei
from chain.wire import Receipt
from service.cli.shared import Coin, show_native
from service.hostile import plain
from service.terminal import out

MAX_FEE: Final = 500
MaxFee = Annotated[
    int,
    typer.Option(
        "--max-fee",
        envvar="HAPTIC_MAX_FEE_GWEI",
        min=1,
        max=1_000_000,
        help="Most that is offered per gas, in gwei, should fees rise while a transaction waits",
    ),
]


class Move(NamedTuple):
    """One transaction of a command."""

    contract: Contract
    function: str
    arguments: tuple[Any, ...]
    done: str
    """What is said when it is in a block."""
    value: int = 0
    note: str = ""
    """What is said of it before."""

    @property
    def wanted(self) -> Wanted:
        """The transaction."""
        data = self.contract.encode(self.function, *self.arguments)
        return Wanted(self.contract.address, data, Wei(self.value))


def payer(account: LocalAccount, max_fee: int) -> KeySigner:
    """Return a wallet that pays for transactions, so much per gas at most."""
    return KeySigner(account, Wei(max_fee * GWEI))


def spending(rpc: Rpc, coin: Coin, holder: Address, amount: int, move: Move) -> list[Move]:
    """Return a move that takes an amount of a token, after the approval that it needs, if it needs one."""
    spender = move.contract.address
    if int(call(rpc, coin.contract, "allowance", holder, spender)) >= amount:
        return [move]
    done = f"{coin.show(amount)} approved for {checksum(spender)}"
    note = ", which lets the contract take exactly this amount"
    return [Move(coin.contract, "approve", (spender, amount), done, note=note), move]


def run(
    rpc: Rpc,
    signer: Signer,
    title: str,
    rows: Mapping[str, str],
    moves: Sequence[Move],
    *,
    yes: bool,
    dry_run: bool,
) -> bool:
    """Show what is sent and what it costs, ask, and send it; False where nothing was sent."""
    names = ", then ".join(f"{move.function}{move.note}" for move in moves)
    shown = dict(rows) | {"Transactions": f"{len(moves)}: {names}"}

    def cost() -> Quote:
        return quote(rpc, signer.address, [move.wanted for move in moves], signer.max_fee)

    if not agree(title, shown, cost, yes=yes, dry_run=dry_run):
        return False
    courier = Courier(rpc, signer)
    for move in moves:
        print_transaction(courier.send(*move.wanted), move.done)
    return True


def agree(
    title: str, rows: Mapping[str, str], cost: Callable[[], Quote] | None, *, yes: bool, dry_run: bool
) -> bool:
    """Show what a command will do and ask; False in a dry run or when the answer is no.

    `cost` None costs nothing. Whatever keeps it from being known, such as a contract that would refuse, is raised
    after the rest was shown; that the account could not pay is said in a dry run, and raised before anybody is asked.
    """
    table = Table(title=plain(title), show_header=False, title_justify="left", title_style="bold")
    for name, value in rows.items():
        table.add_row(name, plain(value))
    try:
        found = None if cost is None else cost()
    except ChainError:
        out.print(table)
        raise
    for name, value in ({"Cost": "nothing: no transaction"} if found is None else _rows(found)).items():
        table.add_row(name, value)
    out.print(table)
    if dry_run:
        if found is not None and found.missing:
            out.print(
                f"[bold red]The account cannot pay for it:[/] {show_native(found.missing)} are missing."
            )
        out.print(f"Dry run: nothing was {'written' if cost is None else 'sent'}.")
        return False
    if found is not None:
        found.check()
    if yes or Confirm.ask("Do it?" if cost is None else "Send it?", console=out, default=False):
        return True
    out.print(f"Nothing was {'written' if cost is None else 'sent'}.")
    return False


def _rows(found: Quote) -> dict[str, str]:
    """Return what it costs and what the account has, in words."""
    known = [gas for gas in found.gas if gas is not None]
    along = f", {show_native(found.value)} of it sent along" if found.value else ""
    rows = {
        "Cost at most": f"{show_native(found.cost)}{along}, by the fees of now",
        "Gas": f"{sum(known)} at most, at {show_gwei(found.offer.max_fee)} (estimated now)",
        "Should fees rise": f"at most {show_gwei(found.limit)} per gas: {show_native(found.dearest)} (HAPTIC_MAX_FEE_GWEI)",
        "Account": f"{checksum(found.sender)} has {show_native(found.balance)}",
    }
    if len(known) < len(found.gas):
        rows["Not counted"] = (
            f"the last {len(found.gas) - len(known)}: this node cannot tell before the first is in a block (it has no "
            "eth_simulateV1)"
        )
    return rows


def print_transaction(receipt: Receipt, what: str) -> None:
    """Say that a transaction is in a block; its line is never broken, so that the hash can be copied."""
    out.print(
        f"[green]✓[/] {what} (block {receipt.block}, transaction {receipt.transaction_hash})", soft_wrap=True
    )
