import dataclasses
import errno
import itertools
import json
import math
import signal

import numpy as np
import pytest
import torch
from torch import nn

from tabatlas.errors import ConfigError, IntegrityError, Interrupted, ModelError, UsageError
from tabatlas.pretrain.task import VALIDATION_EPOCH
from tabatlas.provenance import read_json
from tabatlas.stream.order import Share
from tabatlas.stream.packed import PackedSource
from tabatlas.train import engine
from tabatlas.train.checkpoint import read_newest
from tabatlas.train.device import choose_device, seed_generator
from tabatlas.train.engine import Trainer, key_run
from tabatlas.train.metrics import Metrics
from tabatlas.train.owner import path_of
from tabatlas.train.ranks import Ranks
from tabatlas.train.schedule import build_optimizer, scale_rate
from tabatlas.train.settings import TrainingSettings
from tabatlas.train.step import Stepper
from tabatlas.train.tensors import digest_tensors, read_tensors, write_tensors

CPU = torch.device("cpu")


class Sum:
    """Learn the sum of a cell's log counts, with noise, so that every random draw matters."""

    def __init__(self, source):
        self.source = source
        self.model = nn.Sequential(nn.Linear(source.n_genes, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
        generator = torch.Generator().manual_seed(0)
        for parameter in self.model.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.1, generator=generator)
            else:
                nn.init.constant_(parameter, 0.5)
        self.seen, self.n_validated = [], 0
        self.signal_at = self.signal_in_validation = None

    def draw(self, minibatch, generator):
        self.seen.append(minibatch.joinid.tolist())
        if len(self.seen) == self.signal_at:
            signal.raise_signal(signal.SIGUSR1)
        x_ng = minibatch.densify(self.source.n_genes)
        return x_ng, torch.randn(len(minibatch), generator=generator, device=x_ng.device)

    def sizes(self, inputs):
        return (len(inputs[0]),)

    def loss(self, inputs, totals):
        x_ng, noise_n = inputs
        error_n = self.model(x_ng)[:, 0] - x_ng.mean(dim=1) - 0.1 * noise_n
        return error_n.square().sum() / totals[0]

    def validate(self, attend=iter):
        errors, device = [], self.model[0].weight.device
        for minibatch in attend(self.source.iterate(np.arange(20), 4)):
            x_ng = minibatch.to(device).densify(self.source.n_genes)
            with torch.inference_mode():
                errors.append(self.model(x_ng)[:, 0] - x_ng.mean(dim=1))
            self.n_validated += 1
            if self.n_validated == self.signal_in_validation:
                signal.raise_signal(signal.SIGALRM)
        return {"validation_loss": torch.cat(errors).square().mean().item()}


@pytest.fixture(scope="module")
def source(atlas):
    return PackedSource(atlas.pack, "train")


def make_trainer(source, folder, device=CPU, **knobs):
    chosen = TrainingSettings(**({"epochs": 4, "batch_size": 32} | knobs))
    order = source.order(chosen.batch_size, chosen.seed)
    task = Sum(source)
    task.model.to(device)
    return Trainer(task, source, order, chosen, device, folder)


def weights(trainer):
    return digest_tensors(trainer.task.model.state_dict())


def test_training_lowers_the_loss_and_keeps_the_best_weights(source, tmp_path):
    trainer = make_trainer(source, tmp_path, epochs=8)
    before = trainer.task.validate()["validation_loss"]
    progress = trainer.run()
    losses = [row["validation_loss"] for row in progress.metrics.rows() if "validation_loss" in row]
    assert len(losses) == 8
    assert progress.best_loss == min(losses) < 0.5 * before
    trainer.task.model.eval()
    assert trainer.task.validate()["validation_loss"] == pytest.approx(progress.best_loss)


def test_the_average_of_the_weights_is_what_is_validated_and_kept(source, tmp_path):
    """With `ema: 0` that is the last weights; else it lies behind them."""
    last, averaged = (
        make_trainer(source, tmp_path / str(ema), ema=ema, epochs=1) for ema in (0.0, 0.9)
    )
    scores = [trainer.run().metrics.rows()[-1]["validation_loss"] for trainer in (last, averaged)]
    # The trained weights stand in the checkpoint, the average in the model.
    stored = [read_newest(one.folder).tensors for one in (last, averaged)]
    assert torch.equal(stored[0]["model/0.weight"], stored[1]["model/0.weight"])
    assert torch.equal(stored[0]["model/0.weight"], last.task.model[0].weight)
    assert not torch.equal(stored[1]["model/0.weight"], averaged.task.model[0].weight)
    assert torch.equal(stored[1]["average/0.weight"], averaged.task.model[0].weight)
    averaged.task.model.eval()
    assert averaged.task.validate()["validation_loss"] == pytest.approx(scores[1])
    assert scores[0] != scores[1]


def test_every_step_and_every_epoch_has_its_row(source, tmp_path):
    trainer = make_trainer(source, tmp_path)
    rows = trainer.run().metrics.rows()
    steps = [row for row in rows if "loss" in row]
    n_steps = trainer.order.n_minibatches
    assert [row["step"] for row in steps] == list(range(4 * n_steps))
    assert [row["epoch"] for row in steps] == np.repeat(range(4), n_steps).tolist()
    epochs = [row for row in rows if "loss" not in row]
    assert [(row["epoch"], row["step"]) for row in epochs] == [
        (epoch, n_steps * (epoch + 1)) for epoch in range(4)
    ]
    mean = np.mean([row["loss"] for row in steps[:n_steps]])
    assert epochs[0]["train_loss"] == pytest.approx(mean, rel=0.05)  # sizes differ by one cell
    text = (tmp_path / "metrics.jsonl").read_text()
    assert [json.loads(line) for line in text.splitlines()] == rows


def test_metrics_are_cut_to_the_checkpoint(source, tmp_path):
    wanted = make_trainer(source, tmp_path / "whole").run()
    stopped = make_trainer(source, tmp_path / "stopped")
    stopped.task.signal_at = 7
    with pytest.raises(Interrupted):
        stopped.run()
    path = tmp_path / "stopped" / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": 7, "loss": 1}\n{"st')
    make_trainer(source, tmp_path / "stopped").run()
    assert path.read_bytes() == bytes(wanted.metrics.text)


def test_metrics_of_who_lost_the_run_get_no_name(tmp_path):
    def check():
        raise Interrupted("another owner")

    with pytest.raises(Interrupted):
        Metrics(bytearray(b"{}\n")).write(tmp_path, check)
    assert not list(tmp_path.iterdir())


def test_micro_batches_add_up_to_the_minibatch(source, tmp_path):
    """Where batch normalization does not see who is with whom; the noise is drawn for each."""

    def gradient(micro_batches):
        trainer = make_trainer(source, tmp_path / str(micro_batches), micro_batches=micro_batches)
        trainer.task.model[1].eval()
        trainer.task.draw = lambda minibatch, generator: (
            minibatch.densify(source.n_genes),
            torch.zeros(len(minibatch)),
        )
        ranks = Ranks(CPU)
        stepper = Stepper(trainer.task, trainer.optimizer, ranks, trainer.knobs)
        share = ranks.share(micro_batches)
        parts = list(itertools.islice(source.shuffle(trainer.order, 0, 0, share), share.n_own))
        inputs = [trainer.task.draw(one, None) for one in parts]
        loss = stepper.differentiate(inputs, [sum(map(len, parts))])
        return loss, [parameter.grad for parameter in trainer.task.model.parameters()]

    whole, parts = gradient(1), gradient(4)
    torch.testing.assert_close(whole, parts)


def test_running_statistics_move_once_to_the_mean_of_the_micro_batches(source, tmp_path):
    trainer = make_trainer(source, tmp_path, micro_batches=4)
    share = Share(0, 1, 4)
    parts = list(itertools.islice(source.shuffle(trainer.order, 0, 0, share), 4))
    model = trainer.task.model
    first, norm = model[0], model[1]
    means = [first(one.densify(source.n_genes)).mean(dim=0) for one in parts]
    wanted = norm.running_mean.lerp(torch.stack(means).mean(dim=0), norm.momentum)
    Stepper(trainer.task, trainer.optimizer, Ranks(CPU), trainer.knobs).take(parts, 0, 0)
    torch.testing.assert_close(norm.running_mean, wanted.detach())
    assert norm.num_batches_tracked == 1


def test_more_micro_batches_than_cells_are_refused(source, tmp_path):
    with pytest.raises(ConfigError, match="micro_batches: 64: a minibatch has fewer cells"):
        make_trainer(source, tmp_path, micro_batches=64)


def test_two_runs_give_the_same_bytes(source, tmp_path):
    runs = [make_trainer(source, tmp_path / name) for name in "ab"]
    progress = [run.run() for run in runs]
    assert weights(runs[0]) == weights(runs[1])
    assert progress[0] == progress[1]


@pytest.mark.parametrize("signal_at", [1, 5, 6, 9])
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(source, tmp_path, signal_at):
    undisturbed = make_trainer(source, tmp_path / "whole")
    wanted = undisturbed.run()
    stopped = make_trainer(source, tmp_path / "stopped")
    stopped.task.signal_at = signal_at
    with pytest.raises(Interrupted, match=f"SIGUSR1 at step {signal_at}"):
        stopped.run()
    resumed = make_trainer(source, tmp_path / "stopped")
    assert resumed.run() == wanted
    assert weights(resumed) == weights(undisturbed)
    assert stopped.task.seen + resumed.task.seen == undisturbed.task.seen


def test_a_signal_breaks_off_a_validation_which_the_next_run_repeats(source, tmp_path):
    undisturbed = make_trainer(source, tmp_path / "whole")
    wanted = undisturbed.run()
    assert undisturbed.task.n_validated == 4 * 5  # epochs, minibatches
    stopped = make_trainer(source, tmp_path / "stopped")
    stopped.task.signal_in_validation = 5 + 2
    end_of_epoch = 2 * stopped.order.n_minibatches
    with pytest.raises(Interrupted, match=f"time limit, which is near at step {end_of_epoch};"):
        stopped.run()
    assert stopped.task.n_validated == 5 + 2
    resumed = make_trainer(source, tmp_path / "stopped")
    assert resumed.run() == wanted
    assert weights(resumed) == weights(undisturbed)
    assert resumed.task.n_validated == 3 * 5
    assert stopped.task.seen + resumed.task.seen == undisturbed.task.seen


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_on_a_gpu_resumes_with_the_same_cells_and_losses(source, tmp_path, precision):
    gpu, knobs = torch.device("cuda"), {"precision": precision, "micro_batches": 2}
    wanted = make_trainer(source, tmp_path / "whole", gpu, **knobs).run().metrics.rows()
    stopped = make_trainer(source, tmp_path / "stopped", gpu, **knobs)
    stopped.task.signal_at = 7
    with pytest.raises(Interrupted):
        stopped.run()
    found = make_trainer(source, tmp_path / "stopped", gpu, **knobs).run().metrics.rows()
    assert [row.get("cells") for row in found] == [row.get("cells") for row in wanted]
    for row, one in zip(found, wanted, strict=True):
        key = "loss" if "loss" in row else "validation_loss"
        assert row[key] == pytest.approx(one[key], rel=1e-3)


def test_interrupted_ends_with_the_code_that_means_resumable():
    assert Interrupted.exit_code == 75


def test_a_finished_run_is_not_trained_again(source, tmp_path):
    first = make_trainer(source, tmp_path)
    wanted = first.run()
    again = make_trainer(source, tmp_path)
    assert again.run() == wanted
    assert again.task.seen == []
    assert weights(again) == weights(first)


def test_zero_epochs_leave_the_weights_as_they_were_drawn(source, tmp_path):
    trainer = make_trainer(source, tmp_path, epochs=0)
    drawn = weights(trainer)
    progress = trainer.run()
    assert weights(trainer) == drawn
    assert progress.metrics.rows() == []


def test_patience_ends_the_run(source, tmp_path):
    trainer = make_trainer(source, tmp_path, epochs=50, patience=2, learning_rate=1e-6)
    trainer.task.validate = lambda _: {"validation_loss": 1.0 + trainer.progress.epoch}
    assert trainer.run().epoch == 3


def test_a_loss_that_is_no_number_stops_and_keeps_its_cells(source, tmp_path):
    trainer = make_trainer(source, tmp_path, micro_batches=2)
    joinids = [one.joinid.tolist() for one in source.shuffle(trainer.order, 0, 0, Share(0, 1, 2))]
    trainer.task.loss = lambda inputs, totals: trainer.task.model[0].weight.sum() * math.nan
    with pytest.raises(ModelError, match=r"loss is nan .* at epoch 0, step 0"):
        trainer.run()
    kept = read_json(tmp_path / "not-finite-0-rank0.json")
    assert (kept["epoch"], kept["step"], kept["joinids"]) == (0, 0, joinids[:2])


def test_a_full_disk_does_not_hide_a_loss_that_is_no_number(source, tmp_path, monkeypatch):
    def refuse(value, path):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(engine, "write_json", refuse)
    trainer = make_trainer(source, tmp_path)
    trainer.task.loss = lambda inputs, totals: trainer.task.model[0].weight.sum() * math.nan
    with pytest.raises(ModelError, match=r"loss is nan .* could not be kept .*No space left"):
        trainer.run()


def test_who_was_taken_over_keeps_no_cells_of_a_loss_that_is_no_number(source, tmp_path):
    trainer = make_trainer(source, tmp_path)

    def lose(inputs, totals):
        path_of(tmp_path, 2).touch()
        return trainer.task.model[0].weight.sum() * math.nan

    trainer.task.loss = lose
    with pytest.raises(Interrupted, match="taken for dead"):
        trainer.run()
    assert not list(tmp_path.glob("not-finite*"))


def test_a_score_that_is_no_number_stops_too(source, tmp_path):
    trainer = make_trainer(source, tmp_path)
    trainer.task.validate = lambda _: {"validation_loss": 1.0, "validation_macro_f1": math.nan}
    with pytest.raises(ModelError, match="the validation macro f1 is nan after epoch 0"):
        trainer.run()


def test_a_gpu_without_room_says_which_knob_makes_some(source, tmp_path):
    def fail(inputs, totals):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore")

    trainer = make_trainer(source, tmp_path)
    trainer.task.loss = fail
    with pytest.raises(ConfigError, match=r"batch_size: 32: .* 2 GiB\.\)\. Raise micro_batches"):
        trainer.run()


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(source, tmp_path, caplog):
    wanted = make_trainer(source, tmp_path / "whole")
    wanted.run()
    stopped = make_trainer(source, tmp_path / "stopped")
    stopped.task.signal_at = 2 * stopped.order.n_minibatches + 1
    with pytest.raises(Interrupted):
        stopped.run()
    older, newest = sorted((tmp_path / "stopped").glob("checkpoint-*"))
    flip(newest)
    resumed = make_trainer(source, tmp_path / "stopped")
    assert resumed.run() == wanted.progress
    assert weights(resumed) == weights(wanted)
    assert f"{newest}: not a readable model file" in caplog.text
    assert resumed.task.seen[0] == stopped.task.seen[2 * stopped.order.n_minibatches]
    assert int(older.name.split("-")[1]) == 2 * stopped.order.n_minibatches


def test_where_every_checkpoint_is_damaged_nothing_starts_from_zero(source, tmp_path):
    make_trainer(source, tmp_path).run()
    for path in tmp_path.glob("checkpoint-*"):
        flip(path)
    again = make_trainer(source, tmp_path)
    with pytest.raises(IntegrityError, match="all of its checkpoints"):
        again.run()
    assert again.task.seen == []


def test_an_infinite_gradient_leaves_the_weights_alone(source, tmp_path):
    trainer = make_trainer(source, tmp_path)
    loss = trainer.task.loss
    trainer.task.loss = lambda inputs, totals: Overflow.apply(loss(inputs, totals))
    with pytest.raises(ModelError, match=r"the gradient's norm (inf|nan)"):
        trainer.run()
    trained = trainer.task.model.state_dict()
    assert all(torch.isfinite(tensor).all() for tensor in trained.values())
    parameters = dict(make_trainer(source, tmp_path / "new").task.model.named_parameters())
    assert all(torch.equal(trained[name], one) for name, one in parameters.items())


class Overflow(torch.autograd.Function):
    """The identity, with a gradient that is too large."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * math.inf


def test_tensors_come_back_as_they_were_written(tmp_path):
    tensors = {
        "a": torch.arange(6.0).reshape(2, 3).T,
        "b": torch.tensor(3),
        "c": torch.zeros(0),
        "d": torch.tensor([True, False]),
    }
    write_tensors(tensors, {"epoch": 3}, tmp_path / "x.safetensors")
    found, state = read_tensors(tmp_path / "x.safetensors")
    assert state == {"epoch": 3}
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_equal_tensors_give_equal_bytes(tmp_path):
    for name in "xy":
        write_tensors({"b": torch.ones(3), "a": torch.zeros(2)}, {}, tmp_path / name)
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_a_pickle_is_no_model_file(tmp_path):
    torch.save({"a": torch.ones(3)}, tmp_path / "model.safetensors")
    with pytest.raises(IntegrityError, match="not a readable model file"):
        read_tensors(tmp_path / "model.safetensors")


def test_only_weight_matrices_decay():
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))
    decayed, plain = build_optimizer(model, 1e-3, 0.1).param_groups
    assert [tuple(one.shape) for one in decayed["params"]] == [(5, 4)]
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert len(plain["params"]) == 3


def test_the_learning_rate_rises_then_falls_to_nothing():
    rates = [scale_rate(step, 100, 0.1) for step in range(101)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert np.all(np.diff(rates[10:]) < 0)
    assert rates[100] == pytest.approx(0)


def test_a_gpu_that_is_asked_for_and_absent_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="device: cuda"):
        choose_device("cuda", 1)
    assert choose_device("auto", 1).type == "cpu"


def test_draws_depend_on_their_key_alone():
    first, again, other = (
        torch.rand(4, generator=seed_generator("cpu", *key)).tolist()
        for key in ((0, 1), (0, 1), (1, 0))
    )
    assert first == again
    assert first != other


def test_no_two_places_share_their_draws():
    """Weights are drawn at (seed,), cells of validation at (seed, `VALIDATION_EPOCH`, number)."""
    places = [(), *itertools.product((0, 1), (0, 256), (0, 3)), (VALIDATION_EPOCH, 3)]
    seeds = [seed_generator("cpu", 7, *place).initial_seed() for place in places]
    assert len(set(seeds)) == len(places)


def test_the_engine_runs_with_settings_that_are_no_pydantic_class(source, tmp_path):
    """It must work where pydantic is missing: it reads attributes, nothing else."""
    wanted = make_trainer(source, tmp_path / "pydantic")
    knobs = wanted.knobs.model_dump()
    plain = dataclasses.make_dataclass("Plain", knobs)(**knobs)
    found = Trainer(Sum(source), source, wanted.order, plain, CPU, tmp_path / "plain")
    assert found.run() == wanted.run()
    assert weights(found) == weights(wanted)


def test_knobs_of_speed_keep_the_checkpoints():
    def key(**knobs):
        return key_run("pretrain", TrainingSettings(**knobs).model_dump(), CPU, {})

    assert key(loader_threads=4, loader_bytes=1, checkpoint_minutes=1, hang_minutes=1) == key()
    assert key(micro_batches=2) != key()
    assert key(batch_size=7) != key()
