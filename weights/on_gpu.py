"""The seventh model's run on one GPU: what `faceattr train` trains, with a loop of its own.

    python weights/on_gpu.py ages MANIFEST…   here: what exact ages say of the age groups
    python weights/on_gpu.py pack OPTIONS…    here: the rows and the start, for the GPU machine
    python weights/on_gpu.py train …          there, with KERAS_BACKEND=jax
    python weights/on_gpu.py finish OPTIONS…  here: the model file, with calibration and report

OPTIONS are those of `faceattr train` (recipe.toml: seventh). The network, losses, priors,
optimiser, augmentation and mixing are the package's; another are the loop, whose rate falls with
the clock, and that batches are made by many processes.

A model answers the rows that taught it with what their labels said. So the train rows are cut into
folds, a teacher learns from all folds but one and answers that one, and the student learns from
all rows, with labels and these answers mixed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import pickle
import queue
import shutil
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import shared_memory
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np

from faceattr.training.config import Settings

SHM = Path("/dev/shm/faceattr")
FOLDS = 3  # of the train rows: what was taught by two of them answers the third
ROUNDS = (*range(FOLDS), None)  # the fold that a teacher does not see; the student sees all
STEPS = 500  # of what the batches' plan calls an epoch
SIDE = 64  # of the crops
ASKED = 1024  # crops at once


# -- rows ------------------------------------------------------------------------------------


def unpack(data: Path) -> None:
    """Decode the packed crops into shared memory."""
    SHM.mkdir(exist_ok=True)
    for split in ("train", "val"):
        about, codes = np.load(data / f"{split}.npz"), np.fromfile(data / f"{split}.bin", "uint8")
        ends, side = np.cumsum(about["length"]), int(about["side"])
        form = (len(ends), side, side, 3)
        crops = np.lib.format.open_memmap(SHM / f"{split}.npy", "w+", "uint8", form)
        with ThreadPoolExecutor(16) as pool:
            decoded = pool.map(decode, np.split(codes, ends[:-1]), chunksize=256)
            for place, face in enumerate(decoded):
                crops[place] = face
        crops.flush()


def decode(code: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(cv2.imdecode(code, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def read_rows(data: Path, split: str, targets: Path | None = None, without: int | None = None):
    """Rows of a split; `targets` holds others than those of the labels, and the rows of fold
    `without` are left out."""
    from faceattr.data.dataset import LabeledDataset

    about = np.load(data / f"{split}.npz")
    crops = np.load(SHM / f"{split}.npy", mmap_mode="r")
    given = np.load(targets) if targets else about
    by_kind = {"target": {}, "prior": {}}
    for name in given.files:
        kind, _, task = name.partition(":")
        if kind in by_kind:
            by_kind[kind][task] = given[name].astype("float32")
    sources = about["names"][about["source"]]
    rows = LabeledDataset(
        crops,
        np.arange(len(crops)),
        by_kind["target"],
        [SimpleNamespace(source=str(name)) for name in sources],
        log_priors=by_kind["prior"],
    )
    return rows if without is None else rows.take(np.flatnonzero(about["fold"] != without))


# -- batches by many processes ------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """A part of the training: which batches it sees."""

    settings: Settings
    targets: Path | None
    without: int | None  # the fold that it does not see


def views(buffer, form, size: int, slot: int) -> dict[str, np.ndarray]:
    at, found = slot * size, {}
    for name, (shape, dtype) in form.items():
        found[name] = np.ndarray(shape, dtype, buffer, at)
        at += found[name].nbytes
    return found


def work(number, count, memory, form, slot_size, free, filled, data, stages, now) -> None:
    """Fill slots with every `count`-th batch of the stage that it is."""
    cv2.setNumThreads(0)
    from faceattr.training.batches import MaskedBatches

    memory, at, rows_of = shared_memory.SharedMemory(memory), -1, None
    while True:
        if now.value == -1:
            time.sleep(0.02)
            continue
        if now.value != at:
            at, epoch, step = now.value, 0, number
            stage = stages[at]
            if rows_of != (stage.targets, stage.without):
                rows_of = stage.targets, stage.without
                rows = read_rows(data, "train", *rows_of)
        if step == number:
            batches = MaskedBatches(
                rows, SIDE, stage.settings, seed=(at, SIDE), epoch=epoch, steps=STEPS
            )
        crops, targets, masks = batches[step]
        slot = free.get()
        into = views(memory.buf, form, slot_size, slot)
        into["crops"][:] = crops
        for key, value in targets.items():
            into[key][:] = value
        for key, value in masks.items():
            into[f"{key}:mask"][:] = value
        filled.put((at, slot))
        step += count
        if step >= STEPS:
            epoch, step = epoch + 1, number


class Workers:
    """Processes that fill a ring of batches in shared memory, for one stage after the other."""

    def __init__(self, form: dict[str, tuple[tuple[int, ...], str]], data, stages, count) -> None:
        self.form, slots = form, 3 * count + 6
        self.size = sum(int(np.prod(s)) * np.dtype(d).itemsize for s, d in form.values())
        self.memory = shared_memory.SharedMemory(create=True, size=self.size * slots)
        context = multiprocessing.get_context("spawn")
        self.free, self.filled, self.now = context.Queue(), context.Queue(), context.Value("i", -1)
        for slot in range(slots):
            self.free.put(slot)
        os.environ["KERAS_BACKEND"] = "numpy"  # of the processes: the GPU is not theirs
        about = self.memory.name, form, self.size, self.free, self.filled, data, stages, self.now
        self.all = [
            context.Process(target=work, args=(number, count, *about), daemon=True)
            for number in range(count)
        ]
        for process in self.all:
            process.start()
        os.environ["KERAS_BACKEND"] = "jax"

    def to_device(self, ahead: int = 3):
        """Batches of the present stage on the device, a few ahead of their use."""
        import jax

        coming, stop = queue.Queue(ahead), threading.Event()

        def carry():
            while not stop.is_set():
                try:
                    stage, slot = self.filled.get(timeout=1)
                except queue.Empty:
                    continue
                if stage == self.now.value:
                    values = views(self.memory.buf, self.form, self.size, slot)
                    # A copy: on a CPU, JAX would go on reading the slot.
                    batch = jax.device_put({name: of.copy() for name, of in values.items()})
                    jax.block_until_ready(batch)
                self.free.put(slot)
                while stage == self.now.value and not stop.is_set():
                    try:
                        coming.put(batch, timeout=1)
                        break
                    except queue.Full:
                        continue

        thread = threading.Thread(target=carry, daemon=True)
        thread.start()
        return coming, stop, thread


# -- the step --------------------------------------------------------------------------------


def say(*what) -> None:
    print(f"[{time.time() - START:6.1f}]", *what, flush=True)


class Trainer:
    def __init__(self, tasks, settings, args) -> None:
        from faceattr.model.build import build
        from faceattr.training.config import WHOLE
        from faceattr.training.losses import masked_losses
        from faceattr.training.optimizers import ConvolutionMuon, unfreeze

        self.tasks, self.settings = tasks, settings
        self.losses = masked_losses((task.name for task in tasks), settings.loss_smoothing)
        how = {"weights": None, "norm": True, "pooling": "max"}
        how |= {"dropout": args.dropout, "seed": settings.seed}
        dtype = "float32" if args.float32 else "mixed_bfloat16"
        self.model = build(tasks, dtype=dtype, **how)
        # XLA 0.11 answers wrongly in bfloat16 on a CPU, where this is tried out.
        self.answering = build(tasks, dtype="float32", **how)
        for model in (self.model, self.answering):
            unfreeze(model, WHOLE)
        self.optimizer = ConvolutionMuon(
            1.0,
            weight_decay=0.0,
            adam_weight_decay=None,
            adam_lr_ratio=1 / 30,
            momentum=0.9,
            ns_steps=4,
        )
        self.optimizer.build(self.model.trainable_variables)
        tv = values_of(self.model.trainable_variables)
        ntv, ov = values_of(self.model.non_trainable_variables), values_of(self.optimizer.variables)
        self.fresh = copied(ov)
        self.state = (tv, ntv, ov, copied(tv), copied(ntv))
        self.rate_at = next(
            i for i, v in enumerate(self.optimizer.variables) if v is self.optimizer._learning_rate
        )
        self.done = 0

    def compile(self, form) -> None:
        """Compile the step and the answers."""
        import jax

        abstract = lambda shape, dtype: jax.ShapeDtypeStruct(shape, dtype)  # noqa: E731
        like = jax.tree.map(lambda v: abstract(v.shape, v.dtype), self.state)
        scalar = abstract((), "float32")
        batch = {name: abstract(*of) for name, of in form.items()}
        step = jax.jit(self._step, donate_argnums=(0,)).lower(like, batch, scalar, scalar)
        self.step = step.compile()
        say("step compiled")
        crops = abstract((ASKED, SIDE, SIDE, 3), "uint8")
        self.answer = jax.jit(self._answer).lower(like[3], like[4], crops).compile()
        say("answers compiled")

    def _loss(self, tv, ntv, batch):
        from faceattr.training.losses import with_prior

        said, ntv = self.model.stateless_call(tv, ntv, batch["crops"], training=True)
        total, found = 0.0, {}
        for task in self.tasks:
            name, answers = task.name, said[task.name]
            if f"{name}:prior" in batch:
                answers = with_prior(answers, batch[f"{name}:prior"])
            loss = self.losses[name]
            found[name] = loss(batch[name], answers, sample_weight=batch[f"{name}:mask"])
            total = total + found[name]
        return total, (ntv, found)

    def _step(self, state, batch, rate, kept):
        import jax

        tv, ntv, ov, etv, entv = state
        (_, (ntv, found)), gradients = jax.value_and_grad(self._loss, has_aux=True)(tv, ntv, batch)
        ov = list(ov)
        ov[self.rate_at] = rate
        tv, ov = self.optimizer.stateless_apply(ov, gradients, tv)
        mean = lambda e, v: e + (1 - kept) * (v - e) if v.dtype == "float32" else v  # noqa: E731
        etv = [mean(e, v) for e, v in zip(etv, tv, strict=True)]
        entv = [mean(e, v) for e, v in zip(entv, ntv, strict=True)]
        return (list(tv), list(ntv), list(ov), etv, entv), found

    def _answer(self, tv, ntv, crops):
        said, _ = self.answering.stateless_call(tv, ntv, crops, training=False)
        return said

    def predict(self, crops, flips=(False,)):
        """Answers of the averaged weights, by task, the mean over flips."""
        _, _, _, etv, entv = self.state
        found = {task.name: [] for task in self.tasks}
        waiting = []
        for start in range(0, len(crops), ASKED):
            part = np.asarray(crops[start : start + ASKED])
            rows = len(part)
            part = np.concatenate([part, np.repeat(part[:1], ASKED - rows, axis=0)])
            said = [self.answer(etv, entv, part[:, :, ::-1] if f else part) for f in flips]
            waiting.append((rows, said))
        for rows, said in waiting:
            for name in found:
                found[name].append(np.mean([np.asarray(one[name]) for one in said], axis=0)[:rows])
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def run(self, workers, stage, seconds, rate_of, begin, until, ema, every):
        """Train for the part of a round from share `begin` to share `until` of its seconds.

        Returns:
            The losses of the last batch, by task.
        """
        import jax.numpy as jnp

        workers.now.value = stage
        coming, stop, thread = workers.to_device()
        began = None
        while True:
            batch = coming.get()
            if began is None:
                began, shown, last = time.time(), time.time(), self.done
            share = begin + (time.time() - began) / seconds
            if share >= until:
                break
            rate = jnp.float32(rate_of(share))
            kept = jnp.float32(min(ema, (1 + self.done) / (10 + self.done)))
            self.state, losses = self.step(self.state, batch, rate, kept)
            self.done += 1
            if self.done % 8 == 0 or self.done < 4:  # no more than a few steps ahead of the device
                losses["gender"].block_until_ready()
            if time.time() - shown > every:
                speed = (self.done - last) * self.settings.batch_size / (time.time() - shown)
                say(
                    f"stage {stage} share {share:.3f} step {self.done} {speed:,.0f} crops/s rate "
                    f"{float(rate):.4f} filled {workers.filled.qsize()}"
                )
                self.score(losses)
                last, shown = self.done, time.time()
        losses["gender"].block_until_ready()
        stop.set()
        thread.join()
        return losses

    def score(self, losses, flips=(False,)):
        said, val, table, right_of = self.predict(self.val.crops, flips), self.val, {}, {}
        for name, target in val.targets.items():
            known = target.max(axis=1) > 0
            truth, right = target.argmax(axis=1), target.argmax(axis=1) == said[name].argmax(axis=1)
            right_of[name] = right[known].mean()
            for source in np.unique(val.sources[known]):
                rows = known & (val.sources == source)
                balanced = np.mean([right[rows & (truth == c)].mean() for c in set(truth[rows])])
                table[f"{source}/{name}"] = f"{right[rows].mean():.3f}/{balanced:.3f}"
        say(table)
        loss_of = {name: round(float(of), 3) for name, of in losses.items()}
        say(loss_of)
        self.log.append([time.time() - self.began, self.done, loss_of, right_of])

    def log_to(self, path: Path) -> None:
        """What `score` saw, as Keras' CSVLogger would have written it."""
        names = sorted(task.name for task in self.tasks)
        losses = ",".join(f"{name}_loss" for name in names)
        accuracies = ",".join(f"val_{name}_accuracy" for name in names)
        lines = [f"epoch,phase,size,seconds,steps,{losses},loss,{accuracies}"]
        for number, (seconds, done, loss_of, right_of) in enumerate(self.log, 1):
            of = [*(loss_of[name] for name in names), round(sum(loss_of.values()), 3)]
            of += [round(float(right_of[name]), 4) for name in names]
            lines.append(f"{number},whole,{SIDE},{seconds:.1f},{done},{','.join(map(str, of))}")
        path.write_text("\n".join(lines) + "\n")

    def load(self, path: Path) -> None:
        """Begin anew with saved weights."""
        _, _, _, etv, entv = self.state
        values = read_weights(path, [*etv, *entv])
        tv, ntv = values[: len(etv)], values[len(etv) :]
        self.state = tuple(map(copied, (tv, ntv, self.fresh, tv, ntv)))
        self.done, self.began, self.log = 0, time.time(), []

    def save(self, path: Path, pieces: int) -> None:
        """The averaged weights, in the order of the model's variables."""
        _, _, _, etv, entv = self.state
        write_weights(path, [np.asarray(v) for v in [*etv, *entv]], pieces)


def values_of(variables):
    return [v.value for v in variables]


def copied(values):
    import jax

    return [jax.numpy.array(v) for v in values]


def write_weights(path: Path, values, pieces: int) -> None:
    """Weights as files of a bounded size: kernels in half precision, the rest in single."""
    floats = [v for v in values if v.dtype == "float32"]
    kernels = np.concatenate([v.ravel() for v in floats if v.ndim == 4]).astype("float16")
    others = np.concatenate([v.ravel() for v in floats if v.ndim != 4])
    np.save(path.with_name(f"{path.name}-rest.npy"), others)
    for number, piece in enumerate(np.array_split(kernels, pieces)):
        np.save(path.with_name(f"{path.name}-{number}.npy"), piece)


def read_weights(path: Path, like):
    """What `write_weights` wrote; what is no float stays as it is."""
    pieces = sorted(path.parent.glob(f"{path.name}-[0-9].npy"))
    kernels = np.concatenate([np.load(piece) for piece in pieces]).astype("float32")
    others, found = np.load(path.with_name(f"{path.name}-rest.npy")), []
    for v in like:
        if v.dtype != "float32":
            found.append(np.asarray(v))
        elif v.ndim == 4:
            found.append(kernels[: v.size].reshape(v.shape))
            kernels = kernels[v.size :]
        else:
            found.append(others[: v.size].reshape(v.shape))
            others = others[v.size :]
    return found


def cosine(highest: float, warmup: float):
    def rate(share: float) -> float:
        if share < warmup:
            return highest * max(share, 1e-4) / warmup
        at = (share - warmup) / (1 - warmup)
        return highest * (1 + np.cos(np.pi * min(at, 1.0))) / 2

    return rate


def form_of(tasks, settings):
    form = {"crops": ((settings.batch_size, SIDE, SIDE, 3), "uint8")}
    for task in tasks:
        classes = (settings.batch_size, len(task.classes))
        form[task.name], form[f"{task.name}:mask"] = (classes, "float32"), (classes[:1], "float32")
        if task.name in settings.priors:
            form[f"{task.name}:prior"] = (classes, "float32")
    return form


def arguments(given) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add = parser.add_argument
    add("--data", type=Path, default=Path("/tmp/data"))
    add("--output", type=Path, default=Path("/tmp/out"))
    add("--rate", type=float, default=0.015)
    add("--dropout", type=float, default=0.3)
    add("--ema", type=float, default=0.999)
    add("--workers", type=int, default=15)
    add("--teaching", type=float, default=0.15, help="share of the time that each teacher learns")
    add("--mixed", type=float, default=0.8, help="share of a round with the recipe's mixing")
    add("--mixup-at-last", type=float, default=0.2, help="after that")
    add("--sure", default='{"expression": 0.6, "gender": 0.8, "age_group": 0.5}')
    add("--distill", default='{"expression": 0.5, "gender": 0.2, "age_group": 0.4}')
    add("--float32", action="store_true")
    add("--every", type=float, default=25.0)
    return parser.parse_args(given)


def train(given) -> None:
    args = arguments(given)
    args.output.mkdir(parents=True, exist_ok=True)
    with open(args.data / "settings.pkl", "rb") as file:
        tasks, settings = pickle.load(file)
    student = args.output / "taught.npz"
    stages, form = stages_of(settings, args.mixup_at_last, student), form_of(tasks, settings)
    workers = Workers(form, args.data, stages, args.workers)
    import jax

    say("devices", jax.devices())
    trainer = Trainer(tasks, settings, args)
    trainer.compile(form)
    ready = args.data / "ready"  # the seconds at which the training ends
    while not ready.is_file():
        time.sleep(0.2)
    end = float(ready.read_text())
    unpack(args.data)
    say("unpacked")
    rows, trainer.val = (read_rows(args.data, split) for split in ("train", "val"))
    folds = np.load(args.data / "train.npz")["fold"]
    answers = {name: np.zeros_like(of) for name, of in rows.targets.items()}
    teaching, rate = args.teaching * (end - time.time()), cosine(args.rate, 0.03)
    for number, fold in enumerate(ROUNDS):
        if fold is None:
            taught(rows, answers, args, student)
        seconds = max(end - time.time(), 10) if fold is None else teaching
        say(f"{seconds:.0f} s of training without fold {fold}")
        trainer.load(args.data / "start")
        for part, (begin, until) in enumerate(((0, args.mixed), (args.mixed, 1))):
            stage = 2 * number + part
            losses = trainer.run(workers, stage, seconds, rate, begin, until, args.ema, args.every)
        trainer.score(losses)
        name = "end" if fold is None else f"teacher{fold}"
        trainer.save(args.output / name, 2)
        trainer.log_to(args.output / f"{name}.csv")
        if fold is not None:
            places = np.flatnonzero(folds == fold)
            for task, said in trainer.predict(rows.crops[places], (False, True)).items():
                answers[task][places] = said
    (args.output / "done").write_text(str(trainer.done))
    trainer.score(losses, flips=(False, True))
    for process in workers.all:
        process.kill()
    workers.memory.unlink()
    os._exit(0)


def stages_of(settings: Settings, mixup_at_last: float, student: Path) -> list[Stage]:
    """Two for each round: mixed as the recipe says, then less changed."""
    milder = replace(settings.augmentation, erase=0.05, blur=0.15)
    last = replace(settings, mixup=mixup_at_last, cutmix=0.0, augmentation=milder)
    return [
        Stage(how, student if fold is None else None, fold)
        for fold in ROUNDS
        for how in (settings, last)
    ]


def taught(rows, answers, args, into: Path) -> None:
    """Write down the rows' targets with the answers of those who did not learn from them."""
    from faceattr.training.distill import with_answers

    new = with_answers(rows, answers, json.loads(args.sure), json.loads(args.distill))
    for name, before in rows.targets.items():
        known, knows = before.max(axis=1) > 0, new.targets[name].max(axis=1) > 0
        right = (before.argmax(axis=1) == answers[name].argmax(axis=1))[known].mean()
        say(f"teachers: {name}: {right:.1%} as the labels; {knows.sum() - known.sum():,} more")
    np.savez(
        into,
        **{f"target:{name}": of.astype("float32") for name, of in new.targets.items()},
        **{f"prior:{name}": of.astype("float32") for name, of in new.log_priors.items()},
    )


# -- before and after, where the pictures are ----------------------------------------------------


YEARS = 3.0  # how far an age may be off: the standard deviation of a normal distribution


def ages(manifests: list[str]) -> None:
    """Beside each manifest `manifest-ages.csv`, with the groups' shares in columns of votes."""
    import pandas as pd
    from scipy.stats import norm

    from faceattr.data.class_folders import age_starts
    from faceattr.tasks import AGE_GROUP

    bounds = [-np.inf, *age_starts()[1:], np.inf]
    for path in map(Path, manifests):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        age, train = table.age.astype(float) + 0.5, table.split == "train"
        for group, start, end in zip(AGE_GROUP.classes, bounds[:-1], bounds[1:], strict=True):
            share = norm.cdf((end - age) / YEARS) - norm.cdf((start - age) / YEARS)
            said = [f"{of:.3f}" if known else "" for of, known in zip(share, train, strict=True)]
            table[f"age_group:{group}"] = said
        table.to_csv(path.with_name("manifest-ages.csv"), index=False)


def run_train(given: list[str], fit) -> None:
    """`faceattr train` with another function in place of its training."""
    import faceattr.training.train as command
    from faceattr.cli import main

    command.fit = fit
    sys.exit(main(["train", *given]))


def pack(given: list[str]) -> None:
    """Write the rows and the start to the folder `packed`."""

    def fit(model, tasks, train, val, settings, folder, **of) -> None:
        into = Path("packed")
        into.mkdir(exist_ok=True)
        for split, rows in (("train", train), ("val", val)):
            pack_rows(into, split, rows)
        with open(into / "settings.pkl", "wb") as file:
            pickle.dump((tuple(tasks), settings), file)
        same_scale(model)
        write_weights(into / "start", [np.asarray(v) for v in in_order(model)], 2)
        os._exit(0)

    run_train(given, fit)


def pack_rows(into: Path, split: str, rows) -> None:
    """Crops as WebP of quality 76, and what is known of them."""

    def encoded(place):
        face = cv2.cvtColor(rows.crops[place], cv2.COLOR_RGB2BGR)
        return cv2.imencode(".webp", face, [cv2.IMWRITE_WEBP_QUALITY, 76])[1].ravel()

    codes = [encoded(place) for place in rows.index]
    lengths = np.array([len(code) for code in codes])
    names, source = np.unique(rows.sources, return_inverse=True)
    known = {f"target:{name}": of.astype("float16") for name, of in rows.targets.items()}
    known |= {f"prior:{name}": of.astype("float16") for name, of in rows.log_priors.items()}
    # The same picture twice is in one fold.
    folds = np.array([zlib.crc32(code) % FOLDS for code in codes], "uint8")
    np.concatenate(codes).tofile(into / f"{split}.bin")
    np.savez_compressed(
        into / f"{split}.npz",
        length=lengths,
        side=rows.crops.shape[1],
        names=names,
        source=source.astype("uint8"),
        fold=folds,
        **known,
    )


def in_order(model):
    """The variables in the order of `write_weights`."""
    from faceattr.training.config import WHOLE
    from faceattr.training.optimizers import unfreeze

    unfreeze(model, WHOLE)
    return [*model.trainable_variables, *model.non_trainable_variables]


def same_scale(model) -> None:
    """Scale each kernel so that Muon's rate is the share of its norm that a step changes.

    The normalisation behind it makes up for that.
    """
    from faceattr.model.vgg16 import convolutions, norm_name

    for layer in convolutions(model):
        norm, kernel = model.get_layer(norm_name(layer.name)), layer.kernel.numpy()
        rows, columns = np.prod(kernel.shape[:3]), kernel.shape[3]
        step = 0.2 * np.sqrt(max(1, rows / columns)) * np.sqrt(min(rows, columns))
        scale = step / np.linalg.norm(kernel)
        variance = (norm.moving_variance.numpy() + norm.epsilon) * scale**2 - norm.epsilon
        layer.kernel.assign(kernel * scale)
        norm.moving_mean.assign(norm.moving_mean.numpy() * scale)
        norm.moving_variance.assign(np.maximum(variance, 1e-8))


def finish(given: list[str]) -> None:
    """Make the model file from `end-*.npy` and `log.csv`, which came back."""
    import faceattr.training.train as command

    command._distilled = lambda rows, *of: rows  # the teacher has answered in `pack`

    def fit(model, tasks, train, val, settings, folder, **of) -> None:
        variables = in_order(model)
        values = read_weights(Path("end"), [np.asarray(v) for v in variables])
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy("log.csv", folder)

    run_train(given, fit)


START = time.time()
if __name__ == "__main__":
    {"ages": ages, "pack": pack, "train": train, "finish": finish}[sys.argv[1]](sys.argv[2:])
