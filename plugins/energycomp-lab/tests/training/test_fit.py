"""A run is the same run however often it is cut; what it averages, saves and refuses is checked by hand."""

import json
import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from energycomp.errors import CheckpointError, EnergycompError, InputError, NonFiniteError
from energycomp.seeds import seeded, torch_seed
from energycomp_lab.training import Finished, FitConfig, FitResult, Loss, Recipe, Step, Validation, ema_weights, fit

DATA = torch.linspace(-1, 1, 100).reshape(50, 2)
TINY: dict[str, Any] = {"steps": 12, "batch_size": 8, "learning_rate": 1e-2, "save_every": 5}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = seeded(0)
        self.first = nn.Linear(2, 8)
        self.dropout = nn.Dropout(0.1)
        self.last = nn.Linear(8, 2)
        self.null = nn.Parameter(torch.zeros(2))
        self.register_buffer("calls", torch.tensor(0))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))

    def head(self, sample: Tensor) -> Tensor:
        self.calls += 1
        return self.last(self.dropout(torch.tanh(self.first(sample))))


def denoise(module: Tiny, batch: Tensor, step: Step) -> Tensor:
    noise = torch.randn(batch.shape, generator=step.generator)
    sample = batch + noise
    if torch.rand((), generator=step.generator) < 0.3:
        sample = sample + module.null
    return (module.head(sample) - batch).square().mean()


class StopError(Exception):
    """Ends a run in the middle of a step."""


def at_call(number: int, act: Any) -> Loss:
    """The loss, which `act` changes at one call."""
    calls = 0

    def loss(module: Tiny, batch: Tensor, step: Step) -> Tensor:
        nonlocal calls
        calls += 1
        return act(denoise(module, batch, step)) if calls == number else denoise(module, batch, step)

    return loss


def stop_at(call: int) -> Loss:
    def stop(_: Tensor) -> Tensor:
        raise StopError

    return at_call(call, stop)


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def run(
    module: nn.Module,
    loss: Loss,
    out: Path,
    *,
    data: Any = DATA,
    on_sample: Any = None,
    validation: Any = None,
    **changes: Any,
) -> FitResult:
    config = FitConfig(**{**TINY, **changes})
    return fit(module, loss, data, config, out=out, on_sample=on_sample, validation=validation, progress=False)


def train(out: Path, loss: Loss = denoise, **changes: Any) -> tuple[Tiny, FitResult]:
    module = Tiny()
    return module, run(module, loss, out, **changes)


def checkpoints(out: Path) -> list[str]:
    return sorted(path.stem for path in out.glob("checkpoint-*.safetensors"))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"schedule": "constant", "warmup_fraction": 0.3},
        {"mixed_precision": "bf16"},
        {"micro_batches": 4, "warmup_fraction": 0.0},
        {"num_workers": 1},
        {"batch_size": 48},
        {"steps": 10, "warmup_fraction": 0.1},
    ],
    ids=str,
)
def test_a_resumed_run_is_bit_identical(tmp_path: Path, changes: dict[str, Any]) -> None:
    whole, expected = train(tmp_path / "whole", **changes)
    with pytest.raises(StopError):
        train(tmp_path / "cut", stop_at(8 * changes.get("micro_batches", 1)), **changes)
    with (tmp_path / "cut" / "log.jsonl").open("a") as log:
        log.write('{"step": 10, "loss": 1.0}\n{"st')  # of a run that was killed between its log and its checkpoint
    with torch_seed(99):
        module, result = train(tmp_path / "cut", **changes)
    assert same(module.state_dict(), whole.state_dict())
    assert same(result.ema_state, expected.ema_state)
    assert (result.step, result.loss) == (expected.step, expected.loss)
    logs = [[json.loads(line) for line in (out / "log.jsonl").open()] for out in (tmp_path / "whole", tmp_path / "cut")]
    assert [{**line, "seconds": 0} for line in logs[0]] == [{**line, "seconds": 0} for line in logs[1]]


def test_ema_is_the_average_by_hand(tmp_path: Path) -> None:
    seen: list[Tensor] = []

    def loss(module: nn.Linear, batch: Tensor, step: Step) -> Tensor:
        seen.append(module.weight.detach().clone())
        return (module(batch) - batch).square().mean()

    module = nn.Linear(2, 2)
    result = run(module, loss, tmp_path, ema_decay=0.4)
    average = seen[0]
    for step, weight in enumerate([*seen[1:], module.weight.detach()], start=0):
        decay = min((1 + step) / (10 + step), 0.4) if step else 0.0
        average = decay * average + (1 - decay) * weight
    torch.testing.assert_close(result.ema_state["weight"], average)
    assert same(ema_weights(result.checkpoint), result.ema_state)


def test_one_step_is_adamw_on_the_clipped_gradient(tmp_path: Path) -> None:
    module, reference = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)
    reference.load_state_dict(module.state_dict())

    def loss(module: nn.Linear, batch: Tensor, step: Step) -> Tensor:
        return 100 * module(batch).square().mean()

    recipe: dict[str, Any] = {"schedule": "constant", "warmup_fraction": 0.0, "weight_decay": 0.1, "max_grad_norm": 0.5}
    run(module, loss, tmp_path, **recipe, steps=1, batch_size=50)
    optimizer = torch.optim.AdamW(reference.parameters(), lr=1e-2, weight_decay=0.1)
    loss(reference, DATA, Step(0, 1, torch.Generator())).backward()
    nn.utils.clip_grad_norm_(reference.parameters(), 0.5)
    optimizer.step()
    torch.testing.assert_close(module.weight, reference.weight)


def test_each_epoch_shows_every_row_once_in_its_own_order(tmp_path: Path) -> None:
    rows: list[int] = []

    def loss(module: nn.Linear, batch: Tensor, step: Step) -> Tensor:
        rows.extend(batch[:, 0].long().tolist())
        return module(batch).square().mean()

    data = torch.stack([torch.arange(20.0), torch.zeros(20)], dim=1)
    run(nn.Linear(2, 1), loss, tmp_path, data=data, steps=10, batch_size=4)
    first, second = rows[:20], rows[20:]
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second


def test_checkpoints_are_pruned_and_a_finished_run_returns_at_once(tmp_path: Path) -> None:
    _, result = train(tmp_path, save_every=2, keep=3)
    kept = ["checkpoint-000008", "checkpoint-000010", "checkpoint-000012"]
    assert checkpoints(tmp_path) == kept
    assert result.checkpoint == tmp_path / "checkpoint-000012.safetensors"
    assert {path.name for path in tmp_path.iterdir()} == {*(f"{name}.safetensors" for name in kept), "log.jsonl"}
    (tmp_path / "checkpoint-000005.safetensors").write_bytes(result.checkpoint.read_bytes())  # one too many
    module, again = train(tmp_path, stop_at(1), save_every=2, keep=3)
    assert checkpoints(tmp_path) == kept
    assert same(again.ema_state, result.ema_state)
    assert (again.loss, again.checkpoint) == (result.loss, result.checkpoint)
    assert not same(module.state_dict(), Tiny().state_dict())


def flipped(place: float) -> Any:
    """Flips a bit at a share of the file."""

    def flip(content: bytes) -> bytes:
        at = round(place * (len(content) - 1))
        return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]

    return flip


def other_loss(content: bytes) -> bytes:
    """A digit of the JSON in the header."""
    place = content.index(b'seconds\\": ') + len('seconds\\": ')
    return content[:place] + (b"1" if content[place : place + 1] != b"1" else b"2") + content[place + 1 :]


DAMAGES: dict[str, Any] = {
    "truncated": lambda content: content[:-1],
    "longer": lambda content: content[:-1] + b"}" * 2,
    "empty": lambda _: b"",
    "other loss": other_loss,
    **{f"flipped at {place}": flipped(place) for place in (0.0, 0.3, 0.8, 1.0)},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_altered_checkpoint_is_passed_over_with_a_warning(tmp_path: Path, damage: str) -> None:
    whole, result = train(tmp_path)
    result.checkpoint.write_bytes(DAMAGES[damage](result.checkpoint.read_bytes()))
    with pytest.raises(CheckpointError, match=r"checkpoint-000012\.safetensors"):
        ema_weights(result.checkpoint)
    with pytest.warns(UserWarning, match=r"Passing over.*checkpoint-000012"):
        module, _ = train(tmp_path)
    assert same(module.state_dict(), whole.state_dict())
    ema_weights(result.checkpoint)


def test_every_flipped_bit_of_a_header_is_refused(tmp_path: Path) -> None:
    _, result = train(tmp_path)
    content = result.checkpoint.read_bytes()
    length = 8 + int.from_bytes(content[:8], "little")
    for place in [*range(9), *range(9, length, 61), *range(length - 12, length)]:
        for bit in (0, 3, 6):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            result.checkpoint.write_bytes(damaged)
            with pytest.raises(CheckpointError):
                ema_weights(result.checkpoint)


def test_moments_of_parameters_that_had_a_gradient_and_of_those_that_had_none(tmp_path: Path) -> None:
    class Late(Tiny):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3).to(memory_format=torch.channels_last)

    def loss(module: Late, batch: Tensor, step: Step) -> Tensor:
        error = denoise(module, batch, step)
        late = module.conv(batch.new_ones(1, 1, 4, 4)).square().mean() if step.number >= 6 else 0.0
        return error + late

    def cut(module: Late, batch: Tensor, step: Step) -> Tensor:
        if step.number == 5:
            raise StopError
        return loss(module, batch, step)

    with torch_seed(0):
        modules = [Late() for _ in range(2)]
    modules[1].load_state_dict(modules[0].state_dict())
    start = {name: tensor.clone() for name, tensor in modules[0].state_dict().items()}
    run(modules[0], loss, tmp_path / "whole")
    with pytest.raises(StopError):
        run(modules[1], cut, tmp_path / "cut")
    modules[1].load_state_dict(start)
    run(modules[1], loss, tmp_path / "cut")
    assert same(modules[0].state_dict(), modules[1].state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 13}, "steps: got 13, the checkpoint has 12"),
        ({"batch_size": 4}, "batch_size: got 4, the checkpoint has 8"),
        ({"learning_rate": 0.5}, "learning_rate: got 0.5"),
        ({"seed": 1}, "seed: got 1"),
        ({"mixed_precision": "bf16"}, "mixed_precision: got 'bf16'"),
        ({"micro_batches": 2}, "micro_batches: got 2"),
    ],
)
def test_other_hyperparameters_do_not_resume(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    train(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        train(tmp_path, **changes)


def test_other_modules_and_data_do_not_resume(tmp_path: Path) -> None:
    train(tmp_path)
    module = Tiny()
    module.last = nn.Linear(8, 3)
    module.extra = nn.Parameter(torch.zeros(1))
    with pytest.raises(CheckpointError, match=r"extra only in the module.*last\.bias: got \(\(3,\)"):
        run(module, denoise, tmp_path)
    with pytest.raises(CheckpointError, match="samples: got 49, the checkpoint has 50"):
        run(Tiny(), denoise, tmp_path, data=DATA[:49])
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "out", Path("/proc/out")):
        with pytest.raises(EnergycompError, match="Cannot make"):
            train(out)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_the_step(tmp_path: Path, bad: float) -> None:
    with pytest.raises(NonFiniteError, match="At step 7 the loss is"):
        train(tmp_path, at_call(7, lambda loss: loss * bad))
    assert checkpoints(tmp_path) == ["checkpoint-000005"]


def test_a_gradient_that_is_not_finite_names_the_step(tmp_path: Path) -> None:
    module = nn.Linear(2, 2)
    before = module.weight.detach().clone()
    with pytest.raises(NonFiniteError, match="At step 1 the gradient norm is"):
        run(module, lambda module, batch, step: (module.weight * 0).sum().sqrt(), tmp_path)
    assert torch.equal(module.weight, before)


def test_ctrl_c_completes_the_step_and_saves(tmp_path: Path) -> None:
    def interrupt(loss: Tensor) -> Tensor:
        signal.raise_signal(signal.SIGINT)
        return loss

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", at_call(7, interrupt))
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler
    assert checkpoints(tmp_path / "cut") == ["checkpoint-000005", "checkpoint-000007"]
    module, _ = train(tmp_path / "cut")
    whole, _ = train(tmp_path / "whole")
    assert same(module.state_dict(), whole.state_dict())


def test_on_sample_sees_the_average_and_changes_nothing(tmp_path: Path) -> None:
    seen: dict[int, dict[str, Tensor]] = {}

    def on_sample(module: nn.Module, step: int) -> None:
        assert not module.training
        assert not torch.is_grad_enabled()
        torch.rand(3)
        seen[step] = {name: tensor.clone() for name, tensor in module.state_dict().items()}

    sampled, result = train(tmp_path / "sampled", sample_every=4, on_sample=on_sample)
    plain, _ = train(tmp_path / "plain")
    assert sorted(seen) == [4, 8, 12]
    assert same(seen[12], result.ema_state)
    assert same(sampled.state_dict(), plain.state_dict())
    assert sampled.training


def measured(values: dict[int, float], **options: Any) -> Validation:
    """Six evaluations in twelve steps, whose values are given."""
    return Validation(lambda module, step: values[step], evaluations=6, **options)


@pytest.mark.parametrize(
    ("values", "end", "best"),
    [
        ((0.1, 0.2, 0.3, 0.4, 0.5, 0.6), 12, 12),
        ((0.1, 0.5, 0.3, 0.4, 0.495, 0.4), 12, 10),  # about as good as the best, and later
        ((0.1, 0.5, 0.3, 0.4, 0.2, 0.6), 10, 4),  # worse for three evaluations
        ((0.1, 0.5, 0.3, 0.4, 0.5, 0.2), 12, 10),
    ],
)
def test_a_run_ends_with_the_weights_of_its_best_evaluation(
    tmp_path: Path, values: tuple[float, ...], end: int, best: int
) -> None:
    validation = measured(dict(zip(range(2, 13, 2), values, strict=True)), patience=3)
    _, result = train(tmp_path / "whole", validation=validation, keep=1)
    assert (result.step, result.standing.step) == (end, best)
    assert checkpoints(tmp_path / "whole") == [f"checkpoint-{step:06d}" for step in sorted({best, end})]
    assert same(result.ema_state, ema_weights(result.checkpoint))
    with pytest.raises(StopError):
        train(tmp_path / "cut", stop_at(8), validation=validation, keep=1)
    _, resumed = train(tmp_path / "cut", validation=validation, keep=1)
    assert same(resumed.ema_state, result.ema_state)
    assert (resumed.step, resumed.standing) == (result.step, result.standing)
    _, again = train(tmp_path / "cut", stop_at(1), validation=validation, keep=1)
    assert same(again.ema_state, result.ema_state)
    lines = [json.loads(line) for line in (tmp_path / "cut" / "log.jsonl").open()]
    assert {line["step"]: line["validation"] for line in lines if "validation" in line}[best] == values[best // 2 - 1]
    (tmp_path / "cut" / f"checkpoint-{best:06d}.safetensors").unlink()
    with pytest.raises(NonFiniteError, match="At step 2 the validation is nan"):
        train(tmp_path / "nan", validation=measured({2: math.nan}))
    if best < end < 12:  # goes on from a checkpoint of a run whose best one is elsewhere
        assert train(tmp_path / "cut", validation=validation)[1].step == 12


def test_so_many_minutes_are_steps_that_stay(tmp_path: Path) -> None:
    module = Tiny()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items() if name != "calls"}
    seen: list[dict[str, Tensor]] = []

    def loss(module: Tiny, batch: Tensor, step: Step) -> Tensor:
        if step.number == 0:
            seen.append({name: tensor.clone() for name, tensor in module.state_dict().items() if name in before})
        return denoise(module, batch, step)

    places: list[Path] = []
    finished = Finished({"README.md": "a card"})
    recipe = Recipe(
        model=module,  # type: ignore[arg-type]
        module=module,
        loss=loss,
        data=DATA,
        config=FitConfig(**TINY),
        finish=lambda out: places.append(out) or finished,
    )
    result = recipe.run(tmp_path, minutes=0.002, progress=False)
    assert result.step > 1
    assert result.finished is finished
    assert same(seen[-1], before)  # what was timed has left no trace
    assert same(module.state_dict(), result.ema_state)
    assert recipe.run(tmp_path, minutes=0.9, progress=False).step == result.step
    assert places == [tmp_path, tmp_path]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps"),
        ({"batch_size": 51}, "50 samples; expected at least batch_size=51"),
        ({"micro_batches": 3}, "micro_batches=3 on 1 processes"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"schedule": "cosine"}, "one_cycle"),
        ({"mixed_precision": "fp16"}, "bf16"),
        ({"keep": 0}, "keep"),
        ({"steps": "many"}, "steps"),
        ({"save_every": 0}, "save_every"),
        ({"num_workers": -1}, "num_workers"),
        ({"warmup_fraction": 1.0}, "warmup_fraction"),
        ({"sample_every": 0}, "sample_every"),
        ({"micro_batches": True}, "micro_batches"),
        ({"loss": lambda module, batch, step: module.head(batch)}, r"tensor of shape \(8, 2\); expected a scalar"),
        ({"loss": lambda module, batch, step: 1.0}, "returned float; expected a scalar"),
    ],
)
def test_bad_input(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        train(tmp_path / "out", **changes)
    assert not list(tmp_path.glob("out/*"))


def test_a_loss_is_told_the_step_of_the_run(tmp_path: Path) -> None:
    told: list[tuple[int, float]] = []

    def loss(module: Tiny, batch: Tensor, step: Step) -> Tensor:
        told.append((step.number, step.fraction))
        return denoise(module, batch, step)

    with pytest.raises(StopError):
        train(tmp_path, stop_at(8))
    train(tmp_path, loss)
    assert told == [(number, number / 12) for number in range(5, 12)]


def test_nothing_is_judged_before_a_share_of_a_run() -> None:
    validation = measured({}, begin=0.5)
    assert [step for step in range(1, 13) if validation.is_due(step, 12)] == [6, 8, 10, 12]
