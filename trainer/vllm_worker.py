"""Answers by vLLM, in a process of its own: `python -I vllm_worker.py FOLDER OPTIONS`, of an interpreter that has it.

It needs nothing of this project, so that vLLM may live with other versions of PyTorch and transformers than the trainer.
One line of JSON comes on standard input for each order, one goes back for each, with the CPU seconds spent so far:

- {"load": true}: take the weights in FOLDER, which has a config.json and a model.safetensors; they are removed then.
- {"prompts": [[token, …], …], "seeds": [int, …], "temperature": t, "tokens": most, "end": token, "first": null or
  [log-weight, …]}: draw an answer to each, {"answers": [[token, …], …], "logprobs": [[log π, …], …]}.

It ends with its input, and so with whoever started it, whatever it is at; FOLDER is gone then.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

GRACE_S = 3.0
"""Seconds from the end of the input to the end of this process, if it is at work."""
ORDERS: queue.Queue[str | None] = queue.Queue()
# What vLLM and its libraries print, from their import on, must not get among the answers.
OUT = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine here, and not in a third process


def listen() -> None:
    """Pass orders on, and see to it that nothing outlives their end."""
    for line in sys.stdin:
        ORDERS.put(line)
    ORDERS.put(None)
    shutil.rmtree(sys.argv[1], ignore_errors=True)
    time.sleep(GRACE_S)
    os._exit(0)


threading.Thread(target=listen, daemon=True).start()

import torch  # noqa: E402 - after the above, as it takes seconds
import vllm  # noqa: E402
from vllm.platforms import current_platform  # noqa: E402
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor  # noqa: E402

STEP = 8192
"""Tokens of prompts that a CPU reads in one step."""


class First(AdapterLogitsProcessor):  # type: ignore[misc]
    """Adds log-weights to an answer's first token."""

    weights: torch.Tensor | None = None
    """Of all requests that are made while it is set [V]."""

    def is_argmax_invariant(self) -> bool:
        """Say that the likeliest token may be another."""
        return False

    def new_req_logits_processor(self, params: vllm.SamplingParams) -> Any:  # noqa: ARG002 - vLLM's
        """Return what changes a request's logits, where they are changed."""
        weights = First.weights
        if weights is None:
            return None

        def add(said: list[int], logits: torch.Tensor) -> torch.Tensor:
            return logits if said else logits + weights.to(logits.device)

        return add


def start(folder: str, options: dict[str, Any]) -> vllm.LLM:
    """Start the engine on a folder's model."""
    on_cpu = current_platform.is_cpu()
    # How much is for keys and values is said; of the share of a GPU that vLLM would else take, a trainer needs most.
    options["gpu_memory_utilization"] = 0.01
    if on_cpu:
        # There an output head is packed anew when it is loaded, and no longer the embedding: it must come by itself.
        options["hf_overrides"] = {"tie_word_embeddings": False}
        # A prompt that is read in two steps turns its seed's generator back, which a CPU's cannot do.
        options["enable_chunked_prefill"] = False
        options["max_num_batched_tokens"] = max(options["max_model_len"], STEP)
    return vllm.LLM(
        model=folder,
        skip_tokenizer_init=True,
        generation_config="vllm",  # what a model's own says of temperature and penalties is not asked for
        enforce_eager=on_cpu,
        logprobs_mode="processed_logprobs",  # those of the distribution that is drawn from
        logits_processors=[First],
        disable_log_stats=True,
        seed=0,
        **options,
    )


def draw(engine: vllm.LLM, order: dict[str, Any]) -> dict[str, Any]:
    """Return answers and what their tokens' log-probabilities were."""
    First.weights = None if order["first"] is None else torch.tensor(order["first"])
    wishes = [
        vllm.SamplingParams(
            temperature=order["temperature"],
            max_tokens=order["tokens"],
            stop_token_ids=[order["end"]],
            ignore_eos=True,  # the template says what ends an answer
            logprobs=0,
            seed=seed,
            detokenize=False,
        )
        for seed in order["seeds"]
    ]
    found = engine.generate(
        [{"prompt_token_ids": prompt} for prompt in order["prompts"]], wishes, use_tqdm=False
    )
    answers = [list(one.outputs[0].token_ids) for one in found]
    logprobs = [
        [at[token].logprob for at, token in zip(one.outputs[0].logprobs, answer, strict=True)]
        for one, answer in zip(found, answers, strict=True)
    ]
    return {"answers": answers, "logprobs": logprobs}


def main() -> None:
    """Serve one trainer until its end."""
    engine, folder = None, sys.argv[1]
    while (line := ORDERS.get()) is not None:
        order, said = json.loads(line), {}
        if "load" not in order:
            said = draw(engine, order)
        elif engine is None:
            engine = start(folder, json.loads(sys.argv[2]))
        else:
            engine.collective_rpc("reload_weights", kwargs={"weights_path": folder})
            engine.reset_prefix_cache()  # what it remembers of prompts is of the weights before
        if "load" in order:
            (Path(folder) / "model.safetensors").unlink(missing_ok=True)
        print(json.dumps(said | {"cpu_s": time.process_time()}), file=OUT, flush=True)


if __name__ == "__main__":
    main()
