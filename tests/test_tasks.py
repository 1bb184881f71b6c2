"""Every proxy task: answers follow from what was read, chance is as stated, splits are apart."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from task_cases import ALL_TASK_CASES, TASK_CASES, write_text
from task_oracles import ORACLES

from hybridsim.errors import SpecError
from hybridsim.train.tasks import IGNORED, TASKS, Batch, Task, language_task, parse_task


def over(cases: list[tuple[str, str, dict[str, Any]]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("kind", "given"), [(k, g) for _, k, g in cases], ids=[n for n, _, _ in cases]
    )


def has_guess(kind: str, given: dict[str, Any]) -> bool:
    """Whether a value's being shown tells it from others; every byte of a text is."""
    if kind == "text":
        return False
    task = parse_task({"kind": kind, **given})
    return task.guess != task.chance


CASES = over(ALL_TASK_CASES)
CASES_READ_WHERE_THEY_STAND = over([c for c in ALL_TASK_CASES if TASKS[c[1]].reads_at == "each"])
CASES_WITH_A_GUESS = over([c for c in ALL_TASK_CASES if has_guess(c[1], c[2])])
NEAR = 5  # tokens just read, of which a query is made
Z = 5  # standard errors within which an average must lie; every test is of fixed numbers


@pytest.fixture(scope="session")
def text_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("text") / "text.txt")


@pytest.fixture
def task(kind: str, given: dict[str, Any], text_path: Path) -> Task:
    path = {"path": str(text_path)} if kind == "text" else {}
    return parse_task({"kind": kind, **path, **given})


def solved(task: Task, batch: Batch, near: int | None = None) -> torch.Tensor:
    """What the oracle says at every scored position; 0 elsewhere, and -1 where it does not know.

    It is given nothing but the tokens up to the position, or the `near` last of them.
    """
    said = torch.zeros_like(batch.answers)
    for row, at in (batch.answers != IGNORED).nonzero().tolist():
        upto = task.length if task.reads_at == "last" else at + 1
        read = batch.tokens[row, :upto].tolist()
        answer = ORACLES[task.kind](task, read[-near:] if near else read, at)
        said[row, at] = -1 if answer is None else answer
    return said


def test_every_task_has_cases_and_an_oracle() -> None:
    assert set(TASK_CASES) == set(TASKS) == set(ORACLES)
    for kind, found in TASKS.items():
        assert found.kind == kind
        assert found.source
        assert found.stresses
        assert found.__doc__ is not None
        assert "Source: " in found.__doc__


@CASES
def test_batches_have_the_shape_and_the_tokens_that_the_task_states(task: Task) -> None:
    batch = task.sample(0, 0, 16)
    for part in (batch.tokens, batch.targets, batch.answers):
        assert part.shape == (16, task.length)
        assert part.dtype == torch.int64
    is_target, is_scored = batch.targets != IGNORED, batch.answers != IGNORED
    assert 0 <= batch.tokens.min() <= batch.tokens.max() < task.vocab_size
    assert 0 <= batch.targets[is_target].min() <= batch.targets[is_target].max() < task.vocab_size
    assert torch.equal(batch.answers[is_scored], batch.targets[is_scored])
    assert is_scored.any(dim=1).all()


@CASES
def test_an_oracle_that_reads_only_the_past_is_always_right(task: Task) -> None:
    batch = task.sample(1, 0, 12, split="held_out")
    assert task.score(solved(task, batch), batch.answers).tolist() == [1.0] * 12


@CASES
def test_without_the_context_the_oracle_fails(task: Task) -> None:
    batch = task.sample(1, 0, 12)
    score = float(task.score(solved(task, batch, near=NEAR), batch.answers).mean())
    if task.kind == "memorization":
        assert score == 1.0  # the one task whose answers are in the weights
    else:
        assert score < (0.8 if task.kind == "grammar" else 0.5)  # endings of words are local


@CASES_READ_WHERE_THEY_STAND
def test_the_answer_is_no_token_just_read(task: Task) -> None:
    """Repeating what is read at the position, or a little before it, is no way to the answer."""
    batch = task.sample(2, 0, 256)
    for back in range(3):
        repeated = batch.tokens.roll(back, dims=1)
        scores = task.score(repeated, batch.answers)
        limit = 0.5 if back else max(task.chance, task.guess) + Z * standard_error(scores)
        assert float(scores.mean()) <= limit


def standard_error(scores: torch.Tensor) -> float:
    return float(scores.std() / math.sqrt(len(scores))) + 1e-12


@CASES
def test_the_best_constant_scores_chance(task: Task) -> None:
    """The best of one half of the sequences is tried on the other; every answer is as frequent."""
    batch = task.sample(3, 0, 2048, split="held_out")
    answers, others = batch.answers[:1024], batch.answers[1024:]
    counts = torch.bincount(answers[answers != IGNORED], minlength=task.vocab_size)
    best = torch.full_like(others, int(counts.argmax()))
    scores = task.score(best, others)
    assert float(scores.mean()) == pytest.approx(task.chance, abs=Z * standard_error(scores))
    if task.kind != "text":
        assert int((counts > 0).sum()) == round(1 / task.chance)
        shares = counts[counts > 0].double() / counts.sum()
        spread = math.sqrt(task.chance * (1 - task.chance) / len(answers))
        assert float((shares - task.chance).abs().max()) <= Z * spread


@CASES_WITH_A_GUESS
def test_picking_any_value_shown_scores_the_guess(task: Task) -> None:
    """Candidates are the tokens before the queries that are ever an answer."""
    batch = task.sample(4, 0, 512)
    answered = torch.zeros(task.vocab_size, dtype=torch.bool)
    answered[batch.answers[batch.answers != IGNORED]] = True
    scores = torch.tensor(
        [guessed(task, *rows, answered) for rows in zip(batch.tokens, batch.answers, strict=True)],
        dtype=torch.float64,
    )
    assert float(scores.mean()) == pytest.approx(task.guess, abs=Z * standard_error(scores))


def guessed(
    task: Task, tokens: torch.Tensor, answers: torch.Tensor, answered: torch.Tensor
) -> float:
    is_scored = answers != IGNORED
    before = tokens[: getattr(task, "context_length", int(is_scored.nonzero()[0]))]
    shown = Counter(before[answered[before]].tolist())
    hits = [shown[answer] / shown.total() for answer in answers[is_scored].tolist()]
    return sum(hits) / len(hits)


@CASES
def test_no_sequence_is_in_both_splits_or_twice(task: Task) -> None:
    train = {tuple(row) for seed in (0, 1) for row in task.sample(seed, 0, 1500).tokens.tolist()}
    held_out = {
        tuple(row)
        for seed in (0, 1)
        for row in task.sample(seed, 0, 1500, split="held_out").tokens.tolist()
    }
    assert not train & held_out
    if task.kind != "text":  # windows of a short text may start at the same byte
        assert len(train) == len(held_out) == 3000


def test_windows_of_a_text_stay_in_their_part(text_path: Path) -> None:
    task, text = language_task(str(text_path), length=64), text_path.read_bytes()
    border = round(0.9 * len(text))
    for split, part in (("train", text[:border]), ("held_out", text[border:])):
        batch = task.sample(0, 0, 50, split=split)  # type: ignore[arg-type]
        for tokens, targets in zip(batch.tokens, batch.targets, strict=True):
            assert bytes(tokens.tolist()) + bytes([int(targets[-1])]) in part


@CASES
def test_a_sequence_does_not_depend_on_how_batches_are_cut(task: Task) -> None:
    whole = task.sample(7, 1, 12, split="held_out")
    parts = [task.sample(7, index, 4, split="held_out") for index in (3, 4, 5)]
    for name in ("tokens", "targets", "answers"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(p, name) for p in parts]))


@CASES
def test_seeds_indices_and_splits_give_other_sequences(task: Task) -> None:
    first = task.sample(0, 0, 4).tokens
    for other in (
        task.sample(1, 0, 4),
        task.sample(0, 1, 4),
        task.sample(0, 0, 4, "cpu", "held_out"),
    ):
        assert not torch.equal(first, other.tokens)


@CASES
def test_the_curriculum_ends_at_the_task_and_begins_easier(task: Task) -> None:
    assert task.curriculum(1.0) == task
    sizes = []
    for progress in (0.0, 0.25, 0.5, 0.75):
        easier = task.curriculum(progress)
        assert easier.vocab_size == task.vocab_size
        batch = easier.sample(0, 0, 4)
        assert task.score(solved(easier, batch), batch.answers).tolist() == [1.0] * 4
        sizes.append((easier.length, getattr(easier, "max_hops", 0)))
    assert sizes == sorted(sizes)
    assert task.curriculum(0.0) != task
    with pytest.raises(SpecError, match=r"^progress=1\.5: must be in \[0, 1\]$"):
        task.curriculum(1.5)


@CASES
@pytest.mark.gpu
def test_a_gpu_gives_the_same_numbers(task: Task) -> None:
    for split in ("train", "held_out"):
        on_cpu = task.sample(9, 2, 64, "cpu", split)  # type: ignore[arg-type]
        on_gpu = task.sample(9, 2, 64, "cuda", split)  # type: ignore[arg-type]
        for name in ("tokens", "targets", "answers"):
            assert getattr(on_gpu, name).is_cuda
            assert torch.equal(getattr(on_cpu, name), getattr(on_gpu, name).cpu())


# Zoology's settings: (length, pairs), V = 8192; proxies' and papers' tables, arXiv 2312.04927.
ZOOLOGY = [(64, 4), (128, 8), (256, 16), (512, 64), (256, 32), (256, 64), (64, 16), (1024, 256)]


@pytest.mark.parametrize(("length", "pairs"), ZOOLOGY)
def test_published_settings_of_zoology_are_settings(length: int, pairs: int) -> None:
    task = TASKS["mqar"](vocab_size=8192, length=length, num_pairs=pairs, random_non_queries=True)  # type: ignore[call-arg]
    batch = task.sample(0, 0, 2)
    assert (batch.answers != IGNORED).sum(1).tolist() == [pairs, pairs]
    assert float(task.score(solved(task, batch), batch.answers).mean()) == 1.0


def test_queries_gather_behind_the_context_as_the_power_law_says() -> None:
    task = parse_task({"kind": "mqar", "num_pairs": 1, "length": 12, "power_a": 0.3})
    places = (task.sample(0, 0, 20000).answers != IGNORED).nonzero()[:, 1]
    shares = [float((places == 2 + 2 * g).double().mean()) for g in range(5)]
    weights = [g ** (0.3 - 1) for g in range(1, 6)]
    wanted = [w / sum(weights) for w in weights]
    assert shares == pytest.approx(wanted, abs=Z * math.sqrt(0.25 / 20000))


def test_a_model_that_never_overwrites_keeps_what_was_not_updated() -> None:
    task = parse_task({"kind": "forgetting_recall", "num_pairs": 16, "num_updates": 12})
    batch = task.sample(0, 0, 8)
    first = [dict(zip(row[:32:2], row[1:32:2], strict=True)) for row in batch.tokens.tolist()]
    said = torch.tensor(
        [
            [old.get(t, 0) for t in row]
            for old, row in zip(first, batch.tokens.tolist(), strict=True)
        ]
    )
    assert task.score(said, batch.answers).tolist() == [1 - 12 / 16] * 8


def one_hop(task: Any, read: list[int]) -> int:
    """Follow one edge, however many are asked for."""
    nodes = read[: 2 * task.num_nodes]
    return dict(zip(nodes[::2], nodes[1::2], strict=True))[read[-1]]


def right_hand_side(task: Any, read: list[int]) -> int:
    """Say what the variable was set to, be it a value or not."""
    return read[next(i for i in range(len(read)) if read[i] == 1 and read[i + 1] == read[-1]) + 2]


def last_pushed(task: Any, read: list[int]) -> int:
    """Forget that elements were popped."""
    pushes = [i for i in range(0, len(read) - 2, 3) if read[i] == 1 and read[i + 1] == read[-1]]
    return read[pushes[-1] + 2]


def local_endings(task: Any, read: list[int]) -> int:
    """Know the endings that words have of their own, and nothing of phrases."""
    return ORACLES["grammar"](task, read[-1:], 0) or 0


# The share of one hop, or none, in what is asked is exact; the others are bounded.
SHORTCUTS = [
    ("pointer_chase", {"max_hops": 4}, one_hop, 1 / 4),
    ("variable_tracking", {"num_hops": 3}, right_hand_side, 1 / 4),
    ("stacks", {"num_stacks": 4}, last_pushed, None),
    ("grammar", {"num_types": 8}, local_endings, None),
]


@pytest.mark.parametrize(("kind", "given", "shortcut", "wanted"), SHORTCUTS)
def test_a_shortcut_past_what_the_task_stresses_does_not_solve_it(
    kind: str, given: dict[str, Any], shortcut: Any, wanted: float | None
) -> None:
    task = parse_task({"kind": kind, **given})
    batch = task.sample(0, 0, 256)
    said = torch.zeros_like(batch.answers)
    for row, at in (batch.answers != IGNORED).nonzero().tolist():
        said[row, at] = shortcut(task, batch.tokens[row, : at + 1].tolist())
    scores = task.score(said, batch.answers)
    assert float(scores.mean()) < 0.7
    if wanted is not None:
        assert float(scores.mean()) == pytest.approx(wanted, abs=Z * standard_error(scores))


def test_phrases_of_the_grammar_outlast_any_distance_by_a_power_law() -> None:
    batch = parse_task({"kind": "grammar", "length": 1024}).sample(0, 0, 512)
    spans = [span for row in batch.tokens.tolist() for span in phrase_spans(row)]
    share = {}
    for distance in (16, 64, 256):
        seen = [end - start for start, end in spans if start + distance < len(batch.tokens[0])]
        share[distance] = sum(span > distance for span in seen) / len(seen)
    # Tails fall as n^(-1/2): to a half where the distance is four times as long.
    assert share[64] / share[16] == pytest.approx(0.5, rel=0.1)
    assert share[256] / share[64] == pytest.approx(0.5, rel=0.1)


def phrase_spans(row: list[int]) -> list[tuple[int, float]]:
    """Return where each phrase of a sequence begins and ends, infinity where it does not."""
    opened: list[int] = []
    spans: list[tuple[int, float]] = []
    for at, token in enumerate(row):
        if token == 1:
            opened.append(at)
        elif token == 2:
            spans.append((opened.pop(), at))
    return spans + [(start, math.inf) for start in opened]


def test_hops_are_those_asked_for_and_equally_frequent() -> None:
    task = parse_task({"kind": "pointer_chase", "min_hops": 2, "max_hops": 4})
    marks = task.sample(0, 0, 2000).tokens[:, 32:56:3] - 48
    counts = torch.bincount(marks.flatten(), minlength=6).tolist()
    assert counts[:2] == [0, 0]
    assert counts[5:] == [0]
    assert counts[2:5] == pytest.approx([16000 / 3] * 3, abs=Z * math.sqrt(16000 * 2 / 9))


def test_the_score_counts_scored_positions_only() -> None:
    task = TASKS["mqar"]()  # type: ignore[call-arg]
    answers = torch.tensor([[IGNORED, 5, 6, IGNORED], [IGNORED] * 4])
    said = torch.tensor([[0, 5, 7, 0], [1, 2, 3, 4]])
    scores = task.score(said, answers).tolist()
    assert scores[0] == 0.5
    assert math.isnan(scores[1])


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("mqar", {"num_pairs": 128}, r"num_pairs=128: must be below vocab_size / 2 = 128"),
    ("mqar", {"num_pairs": 33}, r"length=128: must be at least 132"),
    ("mqar", {"vocab_size": 257}, r"vocab_size=257: must be even"),
    ("mqar", {"power_a": 0.0}, r"power_a=0\.0: must be above 0"),
    ("mqar", {"pairs": 3}, r"pairs: no such field.*known: length, num_pairs"),
    ("forgetting_recall", {"num_updates": 17}, r"num_updates=17: must be at most num_pairs=16"),
    ("in_context_recall", {"length": 4}, r"length=4: must be at least 6"),
    ("noisy_recall", {"noise_fraction": 1.0}, r"noise_fraction=1\.0: must be in \[0, 1\)"),
    ("noisy_recall", {"vocab_size": 19}, r"vocab_size=19: must be at least 20"),
    ("fuzzy_recall", {"motif_tokens": 5}, r"motif_tokens=5: must be in \[1, 4\]"),
    ("selective_copy", {"length": 32}, r"length=32: must be at least 33"),
    ("compression", {"vocab_size": 2}, r"vocab_size=2: must be at least 3"),
    ("memorization", {"facts_seed": -1}, r"facts_seed=-1: must be at least 0"),
    ("palindrome", {"length": "long"}, r"length=long: expected an integer"),
    ("stacks", {"num_stacks": 128}, r"vocab_size=128: must be at least 133"),
    ("pointer_chase", {"max_hops": 16}, r"vocab_size=64: must be at least 65"),
    ("pointer_chase", {"name_tokens": 3}, r"name_tokens=3: 110592 names; at most 65536"),
    ("pointer_chase", {"num_nodes": 49}, r"num_nodes=49: must be at most 48, the names"),
    ("variable_tracking", {"num_hops": 20}, r"vocab_size=128: must be at least 255"),
    ("needle", {"num_queries": 2}, r"num_keys=1: must be at least 2"),
    ("grammar", {"num_types": 1}, r"num_types=1: must be at least 2"),
    ("text", {}, r"path='': no such file; give a text's path"),
    ("mqra", {}, r"kind=mqra: no such task; did you mean 'mqar'\?"),
]


@pytest.mark.parametrize(("kind", "given", "message"), WRONG)
def test_settings_out_of_range_are_one_line(kind: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=rf"^proxy\.task\.{message}") as caught:
        parse_task({"kind": kind, **given}, "proxy.task")
    assert "\n" not in str(caught.value)


def test_a_text_shorter_than_a_window_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("x" * 1000)
    with pytest.raises(SpecError, match="length=256: must be below 100, the bytes of the text's"):
        language_task(str(tmp_path / "short.txt"))


def test_a_changed_text_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("a" * 5000)
    task = language_task(str(path))
    assert set(task.sample(0, 0, 2).tokens.flatten().tolist()) == {ord("a")}
    path.write_text("b" * 5001)
    assert set(task.sample(0, 0, 2).tokens.flatten().tolist()) == {ord("b")}


def test_held_out_sequences_of_a_tiny_task_are_refused() -> None:
    task = parse_task({"kind": "palindrome", "vocab_size": 4, "length": 16})
    task.sample(0, 0, 4)
    with pytest.raises(SpecError, match=r"length=16: palindrome has 2\^8 sequences"):
        task.sample(0, 0, 4, split="held_out")


def test_arguments_of_sample_are_checked() -> None:
    task = TASKS["mqar"]()  # type: ignore[call-arg]
    with pytest.raises(SpecError, match="split=test: no such choice"):
        task.sample(0, 0, 4, split="test")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="seed=-1: must be at least 0"):
        task.sample(-1, 0, 4)
    with pytest.raises(SpecError, match="batch_size=0: must be at least 1"):
        task.sample(0, 0, 0)


def test_tasks_of_one_vocabulary_and_length_share_a_batch() -> None:
    shape = {"vocab_size": 256, "length": 384}
    batches = [
        parse_task({"kind": kind, **shape}).sample(0, 0, 4) for kind in TASKS if kind != "text"
    ]
    tokens = torch.cat([batch.tokens for batch in batches])
    assert tokens.shape == (4 * (len(TASKS) - 1), 384)
