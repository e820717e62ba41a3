"""What models of 1, 8 and 70 billion weights would take on 1, 8 and 64 GPUs: `python -m tests.bench.memory`.

Nothing here ran on a GPU. Computing and activations are counted on tensors without content, of the very networks that
transformers builds: products by PyTorch's counter, activations as what autograd keeps for the way back. The rest is
arithmetic on the trainer's own layout (float32 weights, gradients and Adam's moments, bfloat16 passes) and on the
assumptions below.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

PEAK, MEMORY, BANDWIDTH, SHARE = 989e12, 80e9, 3.35e12, 0.4
"""Of an H100 SXM by its data sheet: bfloat16 products per second, bytes, bytes per second; and the share of the peak
that training is assumed to reach."""
TOKENS = 8192
"""Tokens that one GPU passes over at once."""
PROMPT, ANSWER, EPISODES, EPOCHS = 512, 512, 512, 2
"""Of an update of PPO."""
CARDS = (1, 8, 64)
WHOLE, MOMENTS, HALF = 4, 8, 2
"""Bytes a weight: in float32, of Adam's two moments, and of the copy in bfloat16 that a pass makes."""
RANK = 16
"""Of the adapters."""


@dataclass(frozen=True, slots=True)
class Model:
    """A published shape, and what was counted of it."""

    name: str
    config: LlamaConfig

    @property
    def weights(self) -> int:
        """Count all weights."""
        with torch.device("meta"):
            return sum(p.numel() for p in LlamaForCausalLM(self.config).parameters())

    @property
    def adapters(self) -> int:
        """Count the weights of adapters on every linear layer of the blocks."""
        c = self.config
        keys = c.num_key_value_heads * c.hidden_size // c.num_attention_heads
        outs = [c.hidden_size, c.hidden_size, keys, keys, c.intermediate_size, c.intermediate_size]
        return (
            c.num_hidden_layers
            * RANK
            * (sum(c.hidden_size + out for out in outs) + c.intermediate_size + c.hidden_size)
        )


def shape(
    name: str, width: int, inner: int, layers: int, heads: int, keys: int, vocabulary: int, *, tied: bool
) -> Model:
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=keys, tie_word_embeddings=tied, max_position_embeddings=TOKENS,
    )  # fmt: skip
    return Model(name, config)


MODELS = (
    shape("1B", 2048, 8192, 16, 32, 8, 128_256, tied=True),
    shape("8B", 4096, 14_336, 32, 32, 8, 128_256, tied=False),
    shape("70B", 8192, 28_672, 80, 64, 8, 128_256, tied=False),
)
"""Llama 3's."""
SMALL = shape("small", 128, 344, 4, 4, 4, 2048, tied=False)
"""One that really runs here, to see that what is counted without content is what is computed."""


def products(model: Model, rows: int, tokens: int, *, empty: bool) -> int:
    """Count the floating-point operations of a pass over rows of tokens and of its way back."""
    with FakeTensorMode() if empty else nullcontext():
        network = LlamaForCausalLM(model.config)
        network.set_attn_implementation("eager")  # whose products the counter sees on any device
        ids = torch.zeros((rows, tokens), dtype=torch.long)
        with FlopCounterMode(display=False) as counter:
            network(input_ids=ids, use_cache=False).logits.sum().backward()
    return int(counter.get_total_flops())


def formula(model: Model, tokens: int) -> int:
    """Return the same a token: 6 a weight that is multiplied with, and attention, which looks at all tokens of a row."""
    c = model.config
    multiplied = model.weights - (0 if c.tie_word_embeddings else c.vocab_size * c.hidden_size)
    return 6 * multiplied + 12 * c.num_hidden_layers * c.hidden_size * tokens


@contextmanager
def kept() -> Iterator[dict[int, int]]:
    """Collect the bytes of each different memory that autograd keeps."""
    found: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        if not isinstance(x, torch.nn.Parameter):
            found[x.untyped_storage()._cdata] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        yield found


def activations(model: Model, *, checkpointed: bool) -> float:
    """Return the bytes a token that a pass in bfloat16 keeps, the copies of the weights left out, by two lengths."""
    sizes = []
    lengths = (512, 1024)
    with FakeTensorMode():
        network = LlamaForCausalLM(model.config)
        if checkpointed:
            network.train().activation_checkpointing_enable({"use_reentrant": False})
        for tokens in lengths:
            ids = torch.zeros((1, tokens), dtype=torch.long)
            with kept() as found, torch.autocast("cpu", torch.bfloat16):
                alive = network(input_ids=ids, use_cache=False).logits.float().log_softmax(-1)
            sizes.append(sum(found.values()))
            del alive
    return (sizes[1] - sizes[0]) / (lengths[1] - lengths[0])


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for row in (heads, ["---"] * len(heads), *rows):
        print("| " + " | ".join(row) + " |")
    print()


def gigabytes(size: float) -> str:
    """Show bytes a GPU; in brackets where one has not so many."""
    return f"{size / 1e9:.0f}" if size <= MEMORY else f"({size / 1e9:.0f})"


def duration(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def memory(model: Model, cards: int, whole: float, checkpointed: float) -> list[str]:
    """Return a row: bytes a GPU of each way to train, all weights or adapters, supervised or PPO."""
    n, a, c = model.weights, model.adapters, model.config
    ends = c.vocab_size * c.hidden_size * (1 if c.tie_word_embeddings else 2)
    # One block at a time, and the next, which is gathered meanwhile; embedding and head stay gathered all the way.
    passing = HALF * ends + 2 * HALF * (n - ends) / c.num_hidden_layers
    # One block's activations come back at a time.
    passing += (checkpointed + whole / c.num_hidden_layers) * TOKENS
    beside = (
        WHOLE * n if cards == 1 else 0
    )  # what is trained is a copy; of sharded ones the first waits in the host
    learning = (WHOLE + WHOLE + MOMENTS) * n / cards + beside + passing
    adapted = WHOLE * n / cards + (WHOLE + WHOLE + MOMENTS) * a / cards + passing
    # Of PPO policy and critic learn; the policy's copy that answers, the last good one, parent, reference and reward
    # model are whole. With adapters all of them share one base, which ddp does not split.
    ppo = 2 * (WHOLE + WHOLE + MOMENTS) * n / cards + 5 * WHOLE * n + passing
    shared = passing + WHOLE * n + (2 * (WHOLE + WHOLE + MOMENTS) + 2 * WHOLE) * a
    gathered = WHOLE * ends if cards > 1 else 0
    return [gigabytes(size) for size in (learning + gathered, adapted + gathered, ppo + gathered, shared)]


def main() -> None:
    counted, ran = (products(SMALL, 2, 128, empty=empty) for empty in (True, False))
    print(
        f"A small one, 2 rows of 128 tokens: {ran:,} operations when it runs, {counted:,} when counted without content,"
    )
    print(f"{2 * 128 * formula(SMALL, 128):,} by the formula 6 N + 12 L d T a token.\n")
    costs, held = {}, {}
    rows = []
    for model in MODELS:
        costs[model.name] = products(model, 1, 1024, empty=True) / 1024
        held[model.name] = [activations(model, checkpointed=c) for c in (False, True)]
        rows.append([
            model.name, f"{model.weights / 1e9:.2f}", f"{model.adapters / 1e6:.0f}", f"{costs[model.name] / 1e9:.1f}",
            f"{costs[model.name] / formula(model, 1024):.3f}", *(f"{size / 1e6:.2f}" for size in held[model.name]),
        ])  # fmt: skip
    heads = ["model", "weights, 10⁹", f"of adapters of rank {RANK}, 10⁶", "GFLOP a token", "÷ formula"]
    table([*heads, "activations, MB a token", "checkpointed"], rows)

    rows = [
        [model.name, str(cards), *memory(model, cards, *held[model.name])]
        for model in MODELS
        for cards in CARDS
    ]
    table(
        ["model", "GPUs", "supervised, all weights", "adapters", "PPO, all weights", "PPO, adapters (ddp)"],
        rows,
    )

    rows = []
    for model in MODELS:
        for cards in CARDS:
            speed = PEAK * SHARE * cards
            learn = costs[model.name] * 4 / 3  # activations are computed again
            looked = costs[model.name] / 3  # a pass without its way back
            tokens = EPISODES * (PROMPT + ANSWER)
            passes = tokens * (2 * EPOCHS * learn + 5 * looked) / speed
            answering = (
                ANSWER * (WHOLE + 2 * HALF) * model.weights / BANDWIDTH
            )  # each GPU reads all weights a token
            rows.append([
                model.name, str(cards), duration(1e9 * learn / speed), duration(answering), duration(passes),
                duration(answering + passes),
            ])  # fmt: skip
    heads = ["model", "GPUs", "supervised, 10⁹ tokens", "PPO, an update: answering", "passes", "together"]
    table(heads, rows)


if __name__ == "__main__":
    main()
