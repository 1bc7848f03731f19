"""The training loop: phase by phase, in steps on all tasks at once or on one at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import keras
import numpy as np

from faceattr.data.dataset import LabeledDataset, add_log_priors, is_known, smooth_labels
from faceattr.data.manifest import Example
from faceattr.evaluation.metrics import score_model
from faceattr.progress import SILENT, Progress
from faceattr.tasks import Task, refuse_unknown
from faceattr.training.batches import MaskedBatches, is_by_source, steps_per_epoch, wanted_shares
from faceattr.training.checkpoint import Checkpoints, EpochCheckpoint
from faceattr.training.config import NATURAL, UNIFORM, Network, Phase, Settings, TaskSampling
from faceattr.training.devices import batches_are_shared, check_batch_size
from faceattr.training.feature_cache import CachedPhase, FeatureCache, hash_of
from faceattr.training.losses import WeightedSum, combination_for, compiled, with_auxiliary
from faceattr.training.network import seed_salt
from faceattr.training.optimizers import (
    SoftSharing,
    check_branches,
    corresponding_variables,
    learning_rates,
    make_optimizer,
    unfreeze,
)

Callbacks = Sequence[keras.callbacks.Callback]


@dataclass(frozen=True)
class TrainingStarted:
    """What a run is going to do: epochs of all phases, of so many steps; shown before them.

    `balanced` says that the balanced accuracy on val chooses the best epoch.
    """

    tasks: tuple[str, ...]
    epochs: int
    steps: int
    balanced: bool = False


def check(model: keras.Model, settings: Settings, examples: Sequence[Example] = ()) -> None:
    """Refuse settings that do not fit network and sources, before anything slow begins."""
    check_batch_size(settings.batch_size)
    trainee = with_auxiliary(model, settings.auxiliary)
    for phase in settings.phases:
        check_branches(trainee, phase.branch_rates)
        unfreeze(trainee, phase)
    heads = list(model.output)
    refuse_unknown("task", settings.loss_weights, heads, "to weigh")
    refuse_unknown("task", settings.priors, heads, "to give a prior")
    check_sources(heads, settings, examples)


def check_sources(heads: Collection[str], settings: Settings, examples: Sequence[Example]) -> None:
    """Refuse what settings say of sources that have no such rows."""
    # What has no split yet trains, or some of it does.
    sources = sorted({one.source for one in examples if one.split in ("train", "")})
    sampling, known = settings.task_sampling, {name for one in examples for name in one.labels}
    tasks = [name for name in heads if name in known] or list(heads)
    if is_by_source(sampling, tasks, sources) and settings.schedule == "alternating":
        raise ValueError(
            "--schedule alternating gives every step to one task, so its --mix is by task. "
            f"Received shares of sources: {dict(sampling.shares or {})}"
        )
    for name in ("source_smoothing", "source_weights"):
        purpose = f"for {name}; a face of several sources is of the first"
        refuse_unknown("source", getattr(settings, name), sources, purpose)
    silent = {source for source, weight in settings.source_weights.items() if not weight}
    rows = [one for one in examples if one.split in ("train", "")] if silent else []
    for name in tasks:
        teach = {one.source for one in rows if one.labels.get(name)}
        if teach and teach <= silent:
            raise ValueError(f"Every row of {name} weighs 0 (--source-weight), so none teaches it.")
    named = {prior for prior in settings.priors.values() if isinstance(prior, str)}
    if strangers := sorted(named - {UNIFORM, NATURAL, *sources}):
        raise ValueError(
            f"A prior is {UNIFORM}, {NATURAL}, the name of a source ({', '.join(sources)}) "
            f"or shares by class. Received: {', '.join(strangers)}"
        )


def check_classes(tasks: Sequence[Task], train: LabeledDataset) -> None:
    """Raise ValueError where a task or one of its classes has no training row that counts."""
    for task in tasks:
        counts = train.targets[task.name][train.masks[task.name] > 0].sum(axis=0)
        missing = [name for name, count in zip(task.classes, counts, strict=True) if not count]
        if missing:
            raise ValueError(
                f"Task {task.name!r} has no training row of {', '.join(missing)} that counts (rows "
                "of a source with --source-weight 0 do not), so that could not be learnt. Add "
                f"some, or call the task otherwise (for example my_{task.name}=…) to have a head "
                "of just your own classes."
            )


def fit(
    model: keras.Model,
    tasks: Sequence[Task],
    train: LabeledDataset,
    val: LabeledDataset,
    settings: Settings,
    folder: Path,
    *,
    network: Network | None = None,
    resume: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    features: Path | None = None,
    progress: Progress = SILENT,
) -> None:
    """Train a model in place; it ends with the weights of its best epoch.

    Each phase begins with the best epoch of those before. After each epoch `folder` holds a
    checkpoint (network, optimiser, dropout's state, best score), the best weights and the log
    so far. A resumed run goes on behind the last whole epoch with the same state and the same
    batches as an unbroken one.

    Args:
        model: A model of `faceattr.model.build`, with `tasks` as its heads.
        val: Validation rows; they choose the best epoch.
        network: How the model was built: a resumed run must have it in common, and the model
            file that it starts from decides, beside the seed, which rows come when and how they
            are changed.
        features: Folder for features of what does not learn (`faceattr.training.feature_cache`);
            without one every crop is computed anew.
        progress: Is shown every `Epoch`, before its checkpoint is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    train = add_log_priors(train, settings.priors)  # of the labels themselves
    if settings.source_smoothing:
        train = smooth_labels(train, settings.source_smoothing, settings.label_smoothing)
    train = replace(train, balance=settings.balance, source_weights=settings.source_weights)
    model = with_auxiliary(model, settings.auxiliary)
    names, salt = [task.name for task in tasks], seed_salt(network) if network else ()
    combine = combination_for(settings, names) if settings.schedule == "joint" else None
    own = combine.variables if combine else ()
    checkpoints = Checkpoints(folder, model, settings.phases, own)
    position = checkpoints.begin(_identity(model, tasks, train, val, settings, network), resume)
    cache = None
    if features is not None and settings.augment_repeats:
        cache = FeatureCache(features, settings, train, val, salt, progress)
    side = train.crops.shape[1]
    epochs = settings.epochs_before(len(settings.phases))
    per_epoch = steps_per_epoch(len(train), settings.batch_size)
    run = TrainingStarted(tuple(names), epochs, per_epoch, settings.chosen_by_balanced)
    steps = _Steps(run, progress)
    for number, phase in enumerate(settings.phases):
        if number < position.phase or (number == position.phase and position.is_phase_done(phase)):
            continue
        if number > position.phase or not position.epochs:
            position = replace(position, phase=number, epochs=0, waited=0)
            checkpoints.restore_best(position)
        cached = cache.prepare_phase(model, number) if cache else None
        inputs = PhaseInputs(model, phase, settings, train, number, cached, salt)
        steps.reach(settings.epochs_before(number) + position.epochs)
        schedule = task_schedule(inputs, combine)
        # The rows' features and what learns above them give the whole network's answers.
        rows = cached.val if cached else val
        score = partial(batches_are_shared(False)(score_model), inputs.trainable, tasks, rows)
        epoch_end = EpochCheckpoint(
            settings, side, schedule.state, score, position, checkpoints, progress
        )
        for start, end, size in phase.size_stages(side, position.epochs):
            if not epoch_end.position.has_waited(phase):
                watching = [*epoch_end.averages, epoch_end, steps, *callbacks]
                with batches_are_shared(True):
                    schedule.run(start, end, size, watching)
        position = epoch_end.position
    steps.reach(epochs)
    checkpoints.restore_best(position)


def _identity(model, tasks, train, val, settings, network) -> dict[str, object]:
    """What a resumed run must have in common with the one that it goes on with."""
    return {
        "tasks": [asdict(task) for task in tasks],
        "network": asdict(network) if network else None,
        "start": hash_of(model.variables),
        "train": train.sha256(),
        "val": val.sha256(),
        "settings": asdict(settings),
    }


class _Steps(keras.callbacks.Callback):
    """Tells how many steps of a run are done."""

    def __init__(self, run: TrainingStarted, progress: Progress) -> None:
        super().__init__()
        progress.show(run)
        self._steps, self._done = run.steps, 0
        self._left = iter(progress.track(range(run.epochs * run.steps), "steps"))
        next(self._left, None)

    def reach(self, epochs: int) -> None:
        """So many epochs are behind the run: it was resumed, or a phase ended early."""
        while self._done < epochs * self._steps:
            self.on_train_batch_end(0)

    def on_train_batch_end(self, batch: int, logs=None) -> None:
        self._done += 1
        next(self._left, None)


@dataclass(frozen=True)
class PhaseInputs:
    """What a phase trains, on what; `number` is the phase's, from 0.

    `cached` has the features of what the phase leaves as it is; None trains on crops.
    """

    network: keras.Model
    phase: Phase
    settings: Settings
    train: LabeledDataset
    number: int = 0
    cached: CachedPhase | None = None
    seed_salt: Sequence[int] = ()

    @property
    def trainable(self) -> keras.Model:
        """The network, or the part of it that is trained on features."""
        return self.cached.trainable if self.cached else self.network

    @property
    def seed(self) -> tuple[int, ...]:
        return (self.settings.seed, *self.seed_salt)

    @property
    def steps(self) -> int:
        return steps_per_epoch(len(self.train), self.settings.batch_size)

    def batches(
        self, rows: LabeledDataset, epoch: int, size: int, steps: int | None = None
    ) -> MaskedBatches:
        """Endless batches of some training rows, beginning with an epoch of this phase."""
        settings = self.settings
        if steps is not None:  # of one task, which has a share of the steps and not of a batch
            settings = replace(settings, task_sampling=TaskSampling())
        return MaskedBatches(
            rows,
            size,
            settings,
            seed=self.seed,
            epoch=settings.epochs_before(self.number) + epoch,
            features=self.cached.repeats[size] if self.cached else None,
            steps=steps,
        )

    def soft_sharing(self, steps: int) -> list[SoftSharing]:
        """What draws the backbones together; nothing where tasks share one or it does not learn."""
        strength = self.settings.sharing_strength
        if not (strength and corresponding_variables(self.trainable)):
            return []
        rates = learning_rates(self.phase, 1.0, self.phase.epochs * steps)
        return [SoftSharing(self.trainable, strength, lambda step: float(rates(step)), steps)]


def task_schedule(inputs: PhaseInputs, combine: WeightedSum | None = None) -> Joint | Alternating:
    """Prepare a phase: from here on only what it says learns.

    `combine` makes one loss of those of a joint step, and keeps what it has learnt from phase to
    phase; None where Keras' own sum will do.
    """
    unfreeze(inputs.network, inputs.phase)
    if inputs.settings.schedule == "alternating":
        return Alternating(inputs)
    return Joint(inputs, combine)


class Joint:
    """Every step is one on the combined losses of all heads, through Keras' `fit`."""

    def __init__(self, inputs: PhaseInputs, combine: WeightedSum | None = None) -> None:
        self._inputs = inputs
        others = combine.optimizers() if combine else {}
        optimizer = make_optimizer(inputs.phase, inputs.steps, others)
        self._soft_sharing = inputs.soft_sharing(inputs.steps)
        self._model = compiled(inputs.trainable, optimizer, inputs.settings, combine)
        optimizer.build(self._model.trainable_variables)

    @property
    def state(self) -> list[keras.Variable]:
        """What a checkpoint needs besides the network."""
        return list(self._model.optimizer.variables)

    def run(self, start: int, end: int, size: int, callbacks: Callbacks) -> None:
        """Train the epochs from `start` up to `end`, with crops of one size."""
        self._model.fit(
            self._inputs.batches(self._inputs.train, start, size),
            initial_epoch=start,
            epochs=end,
            shuffle=False,
            verbose=0,
            callbacks=[*self._soft_sharing, *callbacks],
        )


class Alternating:
    """Every step is one task's, on rows that know it, with an optimiser of its own.

    The backbone is trained by all. A step leaves the other heads as they are to the last bit,
    weight decay and momentum included, because their optimisers do not step. The tasks'
    steps are shuffled within an epoch, so that none is always last.
    """

    def __init__(self, inputs: PhaseInputs) -> None:
        self._inputs = inputs
        targets, network = inputs.train.targets, inputs.trainable
        names = [name for name, target in targets.items() if target.any()]
        names = [name for name in names if network.get_layer(name).trainable]
        self._rows = {name: inputs.train.only(name) for name in names}
        known = np.stack([is_known(targets[name]) for name in names], axis=1)
        shares = wanted_shares(inputs.settings.task_sampling, names, known)
        ends = np.round(np.cumsum(shares) * inputs.steps).astype(int)  # sum to all the steps
        steps = np.maximum(1, np.diff(ends, prepend=0)).tolist()
        self._steps = dict(zip(names, steps, strict=True))
        self._models = {name: self._model_of(name) for name in names}
        self._soft_sharing = inputs.soft_sharing(sum(steps))

    def _model_of(self, name: str) -> keras.Model:
        """The network with one task's heads; its layers are the network's own."""
        settings, network = self._inputs.settings, self._inputs.trainable
        own = [name, *(one.head for one in settings.auxiliary if one.task == name)]
        part = keras.Model(network.input, {head: network.output[head] for head in own})
        optimizer = make_optimizer(self._inputs.phase, self._steps[name])
        model = compiled(part, optimizer, settings)
        optimizer.build(model.trainable_variables)
        return model

    @property
    def state(self) -> list[keras.Variable]:
        """What a checkpoint needs besides the network."""
        return [v for model in self._models.values() for v in model.optimizer.variables]

    def run(self, start: int, end: int, size: int, callbacks: Callbacks) -> None:
        """Train the epochs from `start` up to `end`, with crops of one size."""
        network = self._inputs.trainable
        told = keras.callbacks.CallbackList([*self._soft_sharing, *callbacks], model=network)
        network.stop_training = False
        told.on_train_begin()
        for epoch in range(start, end):
            told.on_epoch_begin(epoch)
            told.on_epoch_end(epoch, self._epoch(epoch, size, told))
            if network.stop_training:
                break
        told.on_train_end()

    def _epoch(
        self, epoch: int, size: int, told: keras.callbacks.CallbackList
    ) -> Mapping[str, float]:
        logs: dict[str, float] = {}
        for model in self._models.values():
            model.reset_metrics()
        for step, (name, batch) in enumerate(self._turns(epoch, size)):
            told.on_train_batch_begin(step)
            found = self._models[name].train_on_batch(*batch, return_dict=True)
            logs |= {f"{name}_{what}": float(value) for what, value in found.items()}
            told.on_train_batch_end(step, logs)
        return logs

    def _turns(self, epoch: int, size: int) -> Iterator[tuple[str, tuple]]:
        """Each step's task and batch; the next batch is made while a step is computed."""
        order = np.repeat(list(self._steps), list(self._steps.values()))
        np.random.default_rng([*self._inputs.seed, epoch]).shuffle(order)
        batches = {
            name: iter(self._inputs.batches(rows, epoch, size, self._steps[name]))
            for name, rows in self._rows.items()
        }
        with ThreadPoolExecutor(1) as pool:
            coming = [pool.submit(next, batches[name]) for name in order[:1]]
            for name, following in zip(order, [*order[1:], None], strict=True):
                batch = coming.pop().result()
                if following is not None:
                    coming.append(pool.submit(next, batches[following]))
                yield str(name), batch
