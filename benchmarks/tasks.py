"""How fast proxy tasks make their sequences, beside a training step that uses them.

    python benchmarks/tasks.py [cuda]

Prints, for each task's default settings, the time of a batch of 64 and the tokens a second, and
what share of a step of two layers of softmax attention (width 64, same batch) that time is.
"""

from __future__ import annotations

import platform
import statistics
import sys
import time
from collections.abc import Callable

import torch

from hybridsim.origin import versions
from hybridsim.train.tasks import TASKS, Task, language_task

BATCH, WIDTH, HEADS, REPEATS = 64, 64, 2, 10


def seconds(work: Callable[[], object], device: str) -> float:
    """Return the median time of a call, the device's work included."""
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def training_step(task: Task, device: str) -> Callable[[], None]:
    """Return one forward and backward pass of a small transformer encoder on the task's batch."""
    layer = torch.nn.TransformerEncoderLayer(
        WIDTH, HEADS, 2 * WIDTH, dropout=0.0, batch_first=True, norm_first=True
    )
    mixers = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).to(device)
    embed = torch.nn.Embedding(task.vocab_size, WIDTH).to(device)
    batch = task.sample(0, 0, BATCH, device)
    mask = torch.nn.Transformer.generate_square_subsequent_mask(task.length, device=device)

    def step() -> None:
        hidden = mixers(embed(batch.tokens), mask=mask, is_causal=True)
        logits = (hidden @ embed.weight.T).flatten(0, 1)
        torch.nn.functional.cross_entropy(logits, batch.targets.flatten()).backward()

    return step


def main() -> None:
    device = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    where = torch.cuda.get_device_name() if device == "cuda" else platform.processor()
    print(f"{where}, {torch.get_num_threads()} threads, {versions()}")
    print(f"{'task':18}  {'length':>6}  {'ms a batch':>10}  {'tokens/s':>11}  {'of a step':>9}")
    for kind, made in TASKS.items():
        task = language_task(__file__, length=128) if kind == "text" else made()  # type: ignore[call-arg]
        once = seconds(lambda task=task: task.sample(0, 0, BATCH, device), device)
        step = seconds(training_step(task, device), device)
        rate = BATCH * task.length / once
        print(f"{kind:18}  {task.length:6}  {once * 1e3:10.2f}  {rate:11,.0f}  {once / step:9.1%}")


if __name__ == "__main__":
    main()
