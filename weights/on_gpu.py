"""The sixth model's run on one GPU: what `faceattr train` trains, with a loop of its own.

    python weights/on_gpu.py pack OPTIONS…    here: the rows and the start, for the GPU machine
    python weights/on_gpu.py train …          there, with KERAS_BACKEND=jax
    python weights/on_gpu.py finish OPTIONS…  here: the model file, with calibration and report

OPTIONS are those of `faceattr train` (recipe.toml: sixth). The network, losses, priors, optimiser,
augmentation and mixing are the package's; another are the loop, whose rate falls with the clock,
and that batches are made by many processes. The start, with its own crop size, is the teacher.
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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import shared_memory
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np

SHM = Path("/dev/shm/faceattr")
STEPS = 500  # of what the batches' plan calls an epoch
SIDE, TEACHER_SIDE = 64, 48  # of the crops; the start was trained on the smaller ones


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


def read_rows(data: Path, split: str, targets: Path | None = None):
    """Rows of a split; `targets` holds others than those of the labels."""
    from faceattr.data.dataset import LabeledDataset

    about = np.load(data / f"{split}.npz")
    crops = np.load(SHM / f"{split}.npy", mmap_mode="r")
    sources = about["names"][about["source"]]
    tasks = [name.split(":")[1] for name in about if name.startswith("target:")]
    found = {name: about[f"target:{name}"].astype("float32") for name in tasks}
    priors = {}
    for name in tasks:
        if f"prior:{name}" in about:
            priors[name] = about[f"prior:{name}"][about["source"]].astype("float32")
    if targets is not None:
        other = np.load(targets)
        found = {name: other[f"target:{name}"] for name in found}
        priors = {name: other[f"prior:{name}"] for name in priors}
    examples = [SimpleNamespace(source=str(name)) for name in sources]
    soft = tuple(found) if targets is not None else ()
    return LabeledDataset(
        crops, np.arange(len(crops)), found, examples, log_priors=priors, soft=soft
    )


# -- batches by many processes ------------------------------------------------------------------


class Ring:
    """Batches in shared memory: `slots` of them, filled by processes."""

    def __init__(self, form: dict[str, tuple[tuple[int, ...], str]], slots: int) -> None:
        self.form = form
        self.size = sum(int(np.prod(s)) * np.dtype(d).itemsize for s, d in form.values())
        self.memory = shared_memory.SharedMemory(create=True, size=self.size * slots)
        context = multiprocessing.get_context("spawn")
        self.free, self.filled = context.Queue(), context.Queue()
        for slot in range(slots):
            self.free.put(slot)

    def about(self):
        return self.memory.name, self.form, self.size, self.free, self.filled


def views(buffer, form, size: int, slot: int) -> dict[str, np.ndarray]:
    at, found = slot * size, {}
    for name, (shape, dtype) in form.items():
        found[name] = np.ndarray(shape, dtype, buffer, at)
        at += found[name].nbytes
    return found


def work(number, count, about, data, size, settings, round_, targets, go) -> None:
    """Fill slots with every `count`-th batch."""
    cv2.setNumThreads(0)
    from faceattr.training.batches import MaskedBatches

    go.wait()
    rows = read_rows(data, "train", targets)
    name, form, bytes_, free, filled = about
    memory = shared_memory.SharedMemory(name)
    epoch = 0
    while True:
        batches = MaskedBatches(rows, size, settings, seed=(round_, size), epoch=epoch, steps=STEPS)
        for step in range(number, STEPS, count):
            crops, targets_, masks = batches[step]
            slot = free.get()
            into = views(memory.buf, form, bytes_, slot)
            into["crops"][:] = crops
            for key, value in targets_.items():
                into[key][:] = value
            for key, value in masks.items():
                into[f"{key}:mask"][:] = value
            filled.put(slot)
        epoch += 1


class Workers:
    def __init__(self, form, data, size, settings, round_, targets, count) -> None:
        context = multiprocessing.get_context("spawn")
        self.ring = Ring(form, slots=2 * count + 6)
        self.go = context.Event()
        os.environ["KERAS_BACKEND"] = "numpy"  # of the processes: the GPU is not theirs
        self.all = [
            context.Process(
                target=work,
                args=(n, count, self.ring.about(), data, size, settings, round_, targets, self.go),
                daemon=True,
            )
            for n in range(count)
        ]
        for process in self.all:
            process.start()
        os.environ["KERAS_BACKEND"] = "jax"

    def end(self) -> None:
        for process in self.all:
            process.kill()
        for process in self.all:
            process.join()
        self.ring.memory.unlink()


def on_device(workers: Workers, ahead: int = 3):
    """Batches on the device, a few ahead of their use."""
    import jax

    ring, coming, stop = workers.ring, queue.Queue(ahead), threading.Event()

    def carry():
        while not stop.is_set():
            try:
                slot = ring.filled.get(timeout=1)
            except queue.Empty:
                continue
            values = views(ring.memory.buf, ring.form, ring.size, slot)
            # A copy: on a CPU, JAX would go on reading the slot.
            batch = jax.device_put({name: value.copy() for name, value in values.items()})
            jax.block_until_ready(batch)
            ring.free.put(slot)
            while not stop.is_set():
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
        import jax

        from faceattr.model.build import build
        from faceattr.training.config import WHOLE
        from faceattr.training.losses import masked_losses
        from faceattr.training.optimizers import ConvolutionMuon, unfreeze

        self.tasks, self.settings = tasks, settings
        self.losses = masked_losses((task.name for task in tasks), settings.loss_smoothing)
        how = {"weights": None, "norm": True, "dropout": args.dropout, "backbone": args.backbone}
        how |= {"pooling": args.pooling, "seed": settings.seed}
        dtype = "float32" if args.float32 else "mixed_bfloat16"
        self.model = build(tasks, dtype=dtype, **how)
        # XLA 0.11 answers wrongly in bfloat16 on a CPU, where this is tried out.
        self.answering = build(tasks, dtype="float32", **how)
        for model in (self.model, self.answering):
            unfreeze(model, WHOLE)
        self.optimizer = ConvolutionMuon(
            1.0,
            weight_decay=args.decay,
            adam_weight_decay=None,
            adam_lr_ratio=1 / 30,
            momentum=0.9,
            ns_steps=4,
        )
        self.optimizer.build(self.model.trainable_variables)
        value = lambda variables: [v.value for v in variables]  # noqa: E731
        tv, ntv = value(self.model.trainable_variables), value(self.model.non_trainable_variables)
        copy = lambda vs: [jax.numpy.array(v) for v in vs]  # noqa: E731
        self.state = (tv, ntv, value(self.optimizer.variables), copy(tv), copy(ntv))
        self.rate_at = next(
            i for i, v in enumerate(self.optimizer.variables) if v is self.optimizer._learning_rate
        )
        self.done, self.compiled, self.answers = 0, {}, {}

    def compile(self, form, answered) -> None:
        """Compile the step, and answers about crops of these sizes."""
        import jax

        abstract = lambda shape, dtype: jax.ShapeDtypeStruct(shape, dtype)  # noqa: E731
        like = jax.tree.map(lambda v: abstract(v.shape, v.dtype), self.state)
        scalar, size = abstract((), "float32"), form["crops"][0][1]
        batch = {name: abstract(*of) for name, of in form.items()}
        step = jax.jit(self._step, donate_argnums=(0,)).lower(like, batch, scalar, scalar)
        self.compiled[size] = step.compile()
        say(f"step for {size} pixels compiled")
        for size in answered:
            crops = abstract((1024, size, size, 3), "uint8")
            self.answers[size] = jax.jit(self._answer).lower(like[3], like[4], crops).compile()
            say(f"answers for {size} pixels compiled")

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

    def predict(self, crops, flips=(False,), batch: int = 1024):
        """Answers of the averaged weights, by task, the mean over flips."""
        _, _, _, etv, entv = self.state
        answer, size = self.answers[self.size], self.size
        found = {task.name: [] for task in self.tasks}
        waiting = []
        for start in range(0, len(crops), batch):
            part = np.asarray(crops[start : start + batch])
            if size != part.shape[1]:
                part = np.stack(
                    [cv2.resize(c, (size, size), interpolation=cv2.INTER_AREA) for c in part]
                )
            rows = len(part)
            part = np.concatenate([part, np.repeat(part[:1], batch - rows, axis=0)])
            said = [answer(etv, entv, part[:, :, ::-1] if f else part) for f in flips]
            waiting.append((rows, said))
        for rows, said in waiting:
            for name in found:
                found[name].append(np.mean([np.asarray(one[name]) for one in said], axis=0)[:rows])
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def run(self, workers, seconds, rate_of, until=1.0, begin=0.0, ema=0.999, every=40.0):
        """Train for the part of a round from share `begin` to share `until` of its seconds."""
        import jax.numpy as jnp

        self.size = size = workers.ring.form["crops"][0][1]
        step = self.compiled[size]
        coming, stop, thread = on_device(workers)
        began, shown, last_done, losses = None, time.time(), self.done, None
        while True:
            batch = coming.get()
            if began is None:
                began = shown = time.time()
            share = begin + (time.time() - began) / seconds
            if share >= until:
                break
            rate = jnp.float32(rate_of(share))
            kept = jnp.float32(min(ema, (1 + self.done) / (10 + self.done)))
            self.state, losses = step(self.state, batch, rate, kept)
            self.done += 1
            if self.done % 8 == 0 or self.done < 4:  # no more than a few steps ahead of the device
                losses["gender"].block_until_ready()
            if time.time() - shown > every:
                speed = (self.done - last_done) * self.settings.batch_size / (time.time() - shown)
                means = {name: round(float(of), 3) for name, of in losses.items()}
                say(
                    f"share {share:.3f} step {self.done} {speed:,.0f} crops/s rate "
                    f"{float(rate):.4f} {means} filled {workers.ring.filled.qsize()}"
                )
                if size in self.answers:
                    self.score()
                last_done, shown = self.done, time.time()
        if losses:
            losses["gender"].block_until_ready()
        stop.set()
        thread.join()

    def score(self, flips=(False,)):
        said, val, table = self.predict(self.val.crops, flips), self.val, {}
        for source in np.unique(val.sources):
            for name, target in val.targets.items():
                rows = np.flatnonzero((val.sources == source) & (target.max(axis=1) > 0))
                if not len(rows):
                    continue
                truth, answer = target[rows].argmax(axis=1), said[name][rows].argmax(axis=1)
                right = truth == answer
                balanced = np.mean([right[truth == c].mean() for c in np.unique(truth)])
                table[f"{source}/{name}"] = f"{right.mean():.3f}/{balanced:.3f}"
        say(table)

    def load(self, path: Path) -> None:
        """Begin with saved weights."""
        import jax

        _, _, ov, etv, entv = self.state
        values = read_weights(path, [*etv, *entv])
        tv, ntv = values[: len(etv)], values[len(etv) :]
        copy = lambda vs: [jax.numpy.array(v) for v in vs]  # noqa: E731
        self.state = (copy(tv), copy(ntv), ov, copy(tv), copy(ntv))

    def save(self, path: Path, pieces: int) -> None:
        """The averaged weights, in the order of the model's variables."""
        _, _, _, etv, entv = self.state
        write_weights(path, [np.asarray(v) for v in [*etv, *entv]], pieces)


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


def taught(rows, trainer, args, into: Path) -> None:
    """Write down the rows' targets with the answers of the trainer's averaged weights."""
    from faceattr.training.distill import with_answers

    answers = trainer.predict(rows.crops, flips=(False, True))
    sure, shares = json.loads(args.sure), json.loads(args.distill)
    new = with_answers(rows, answers, sure, shares)
    for name in rows.targets:
        before, after = (part.targets[name].max(axis=1) > 0 for part in (rows, new))
        say(f"teacher {name}: {after.sum() - before.sum():,} of {(~before).sum():,}")
    np.savez(
        into,
        **{f"target:{name}": of.astype("float32") for name, of in new.targets.items()},
        **{f"prior:{name}": of.astype("float32") for name, of in new.log_priors.items()},
    )


def form_of(tasks, settings, size: int):
    form = {"crops": ((settings.batch_size, size, size, 3), "uint8")}
    for task in tasks:
        classes = (settings.batch_size, len(task.classes))
        form[task.name], form[f"{task.name}:mask"] = (classes, "float32"), (classes[:1], "float32")
        if task.name in settings.priors:
            form[f"{task.name}:prior"] = (classes, "float32")
    return form


def train(given) -> None:
    parser = argparse.ArgumentParser()
    add = parser.add_argument
    add("--data", type=Path, default=Path("/tmp/data"))
    add("--output", type=Path, default=Path("/tmp/out"))
    add("--rate", type=float, default=0.015)
    add("--decay", type=float, default=0.0)
    add("--dropout", type=float, default=0.2)
    add("--ema", type=float, default=0.999)
    add("--backbone", default="vgg16")
    add("--pooling", default="max")
    add("--workers", type=int, default=15)
    add("--mixed", type=float, default=0.8, help="share of the time in which crops are mixed")
    add("--sure", default='{"expression": 0.6, "gender": 0.8, "age_group": 0.5}')
    add("--distill", default='{"expression": 0.3, "gender": 0.1, "age_group": 0.3}')
    add("--float32", action="store_true")
    add("--every", type=float, default=30.0)
    args = parser.parse_args(given)
    args.output.mkdir(parents=True, exist_ok=True)
    with open(args.data / "settings.pkl", "rb") as file:
        tasks, settings = pickle.load(file)
    plain = replace(
        settings, mixup=0.0, augmentation=replace(settings.augmentation, erase=0.05, blur=0.15)
    )
    side, soft = SIDE, args.output / "taught.npz"
    mixed, last = (
        Workers(form_of(tasks, settings, side), args.data, side, how, number, soft, args.workers)
        for number, how in enumerate((settings, plain))
    )
    import jax

    say("devices", jax.devices())
    trainer = Trainer(tasks, settings, args)
    trainer.compile(form_of(tasks, settings, side), (TEACHER_SIDE, side))
    ready = args.data / "ready"  # the seconds at which the training ends
    while not ready.is_file():
        time.sleep(0.2)
    end = float(ready.read_text())
    unpack(args.data)
    say("unpacked")
    rows, trainer.val = (read_rows(args.data, split) for split in ("train", "val"))
    trainer.load(args.data / "start")
    trainer.size = TEACHER_SIDE
    trainer.score()
    taught(rows, trainer, args, soft)
    mixed.go.set()
    seconds, rate = end - time.time(), cosine(args.rate, 0.03)
    say(f"{seconds:.0f} s of training")
    trainer.run(mixed, seconds, rate, until=args.mixed, ema=args.ema, every=args.every)
    last.go.set()
    mixed.end()
    trainer.run(last, seconds, rate, begin=args.mixed, ema=args.ema, every=args.every)
    say("done", trainer.done, "steps")
    trainer.save(args.output / "end", 2)
    (args.output / "done").write_text(str(trainer.done))
    trainer.score()
    trainer.score(flips=(False, True))
    last.end()
    os._exit(0)


# -- before and after, where the pictures are ----------------------------------------------------


def run_train(given: list[str], fit) -> None:
    """`faceattr train` with another function in place of its training."""
    import faceattr.training.train as command
    from faceattr.cli import main
    from faceattr.training.distill import Distillation

    command.fit = fit
    # The teacher is asked on the GPU machine, about crops of its own size.
    command._distilled = lambda rows, *of: rows
    Distillation.check = lambda *of: None
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
    for name, of in rows.log_priors.items():
        first = [np.flatnonzero(source == number)[0] for number in range(len(names))]
        known[f"prior:{name}"] = of[first]
    np.concatenate(codes).tofile(into / f"{split}.bin")
    np.savez_compressed(
        into / f"{split}.npz",
        length=lengths,
        side=rows.crops.shape[1],
        names=names,
        source=source,
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
    {"pack": pack, "train": train, "finish": finish}[sys.argv[1]](sys.argv[2:])
