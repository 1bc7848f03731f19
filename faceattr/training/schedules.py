"""The course of a phase: all tasks in every step, or one task at a time."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
from keras import ops

from faceattr.data.dataset import LabeledDataset, mask
from faceattr.model.vgg16 import shared_name
from faceattr.training.batches import MaskedBatches, steps_per_epoch
from faceattr.training.checkpoint import read_back
from faceattr.training.config import Phase, Settings
from faceattr.training.feature_cache import Frozen
from faceattr.training.losses import Sum, compiled


def ties(network: keras.Model) -> list[list[keras.Variable]]:
    """The parameters that correspond to each other in the trunks and learn: a list for each."""
    by_place = defaultdict(list)
    for layer in network.layers:
        if shared_name(layer.name) != layer.name:
            for variable in layer.trainable_variables:
                by_place[shared_name(layer.name), variable.name].append(variable)
    return list(by_place.values())


def ties_of(
    network: keras.Model, phase: Phase, settings: Settings, steps: int
) -> list[SoftSharing]:
    """What ties the trunks in a phase; nothing where tasks share one or it does not learn.

    Args:
        network: What the phase trains, after it was opened.
        phase: The phase.
        settings: Of the run.
        steps: Of an epoch.
    """
    if not (settings.tie and ties(network)):
        return []
    schedule = phase.schedule(1.0, phase.epochs * steps)
    return [SoftSharing(network, settings.tie, lambda step: float(schedule(step)), steps)]


def proximal_step(tied: list[keras.Variable], strength: float) -> None:
    """Draw corresponding parameters towards their mean.

    Each becomes the W that minimises ``|W - now|^2 + strength * |W - mean|^2``, which leaves
    the mean where it is.

    Args:
        tied: Variables of one shape.
        strength: 0 changes nothing, infinity makes them equal to the bit.
    """
    mean = ops.mean(ops.stack([variable.value for variable in tied]), axis=0)
    share_left = 1 / (1 + strength)
    for variable in tied:
        variable.assign(mean + share_left * (variable - mean))


def apart(tied: list[list[keras.Variable]]) -> float:
    """How far the trunks are from their mean, relative to their size."""
    distance = size = 0.0
    for variables in tied:
        stacked = ops.stack([variable.value for variable in variables])
        distance += float(ops.sum((stacked - ops.mean(stacked, axis=0)) ** 2))
        size += float(ops.sum(stacked**2))
    return math.sqrt(distance / size)


class SoftSharing(keras.callbacks.Callback):
    """Pulls the trunks together after every step and logs how far apart an epoch leaves them.

    Args:
        network: The network with a trunk per task.
        strength: See `proximal_step`; it falls with the learning rate.
        rate_share: By step of the phase, the rate's share of its highest value.
        steps: Steps of an epoch.
    """

    def __init__(
        self,
        network: keras.Model,
        strength: float,
        rate_share: Callable[[int], float],
        steps: int,
    ) -> None:
        super().__init__()
        self._tied, self._strength = ties(network), strength
        self._rate_share, self._steps = rate_share, steps
        self._step = 0

    def on_epoch_begin(self, epoch: int, logs=None) -> None:
        self._step = epoch * self._steps

    def on_train_batch_end(self, batch: int, logs=None) -> None:
        read_back(self.model)
        share = self._rate_share(self._step)
        self._step += 1
        if share > 0:
            for tied in self._tied:
                proximal_step(tied, self._strength * share)

    def on_epoch_end(self, epoch: int, logs=None) -> None:
        if self._tied and logs is not None:
            logs["trunks_apart"] = apart(self._tied)


Callbacks = Sequence[keras.callbacks.Callback]
MakeBatches = Callable[..., MaskedBatches]


def task_schedule(
    network: keras.Model,
    phase: Phase,
    settings: Settings,
    train: LabeledDataset,
    epochs_before: int,
    frozen: Frozen | None = None,
    draws: Sequence[int] = (),
    combine: Sum | None = None,
) -> Joint | Alternating:
    """Prepare a phase.

    Args:
        network: A model of `faceattr.model.build`; from here on only what the phase says learns.
        phase: The phase.
        settings: Of the run.
        train: Training rows.
        epochs_before: Epochs of earlier phases, which count for the order of the batches.
        frozen: What was computed of the network's lower part; None trains on crops.
        draws: As for `faceattr.training.trainer.fit`.
        combine: Makes one loss of those of a joint step, and keeps what it has learnt from phase
            to phase; None where Keras' own sum will do.
    """
    phase.open(network)

    def batches(rows: LabeledDataset, epoch: int, size: int, **more) -> MaskedBatches:
        return MaskedBatches(
            rows,
            size,
            batch_size=settings.batch_size,
            augmentation=settings.augmentation,
            mixed_by=(settings.mixup, settings.cutmix),
            seed=(settings.seed, *draws),
            epoch=epochs_before + epoch,
            features=frozen.copies[size] if frozen else None,
            **more,
        )

    learning = frozen.learning if frozen else network
    if settings.schedule == "alternating":
        return Alternating(learning, phase, settings, train, batches, draws)
    return Joint(learning, phase, settings, train, batches, combine)


class Joint:
    """Every step is one on the combined losses of all heads, through Keras' `fit`."""

    def __init__(
        self,
        network: keras.Model,
        phase: Phase,
        settings: Settings,
        train: LabeledDataset,
        batches: MakeBatches,
        combine: Sum | None = None,
    ) -> None:
        self._train, self._batches, self._mix = train, batches, settings.mix
        steps = steps_per_epoch(len(train), settings.batch_size)
        optimizer = phase.make_optimizer(steps, combine.optimizers() if combine else {})
        self._ties = ties_of(network, phase, settings, steps)
        self._trainee = compiled(network, optimizer, settings, combine)
        optimizer.build(self._trainee.trainable_variables)

    @property
    def state(self) -> list[keras.Variable]:
        """What a checkpoint needs besides the network."""
        return list(self._trainee.optimizer.variables)

    def run(self, start: int, end: int, size: int, callbacks: Callbacks) -> None:
        """Train the epochs from `start` up to `end`, with crops of one size."""
        self._trainee.fit(
            self._batches(self._train, start, size, mix=self._mix),
            initial_epoch=start,
            epochs=end,
            shuffle=False,
            verbose=0,
            callbacks=[*self._ties, *callbacks],
        )


class Alternating:
    """Every step is one task's, on rows that know it, with an optimiser of its own.

    The trunk is trained by all. A step leaves the other heads as they are to the last bit,
    weight decay and momentum included, because their optimisers do not step. The tasks'
    steps are shuffled within an epoch, so that none is always last.
    """

    def __init__(
        self,
        network: keras.Model,
        phase: Phase,
        settings: Settings,
        train: LabeledDataset,
        batches: MakeBatches,
        draws: Sequence[int] = (),
    ) -> None:
        self._network, self._batches = network, batches
        self._seed = (settings.seed, *draws)
        names = [name for name, target in train.targets.items() if target.any()]
        names = [name for name in names if network.get_layer(name).trainable]
        self._rows = {name: train.only(name) for name in names}
        known = np.stack([mask(train.targets[name]) > 0 for name in names], axis=1)
        shares = settings.mix.wanted(names, known)
        steps = steps_per_epoch(len(train), settings.batch_size)
        self._steps = {n: max(1, round(s * steps)) for n, s in zip(names, shares, strict=True)}
        self._members = {name: self._member(name, phase, settings) for name in names}
        self._ties = ties_of(network, phase, settings, sum(self._steps.values()))

    def _member(self, name: str, phase: Phase, settings: Settings) -> keras.Model:
        """The network with one task's heads; its layers are the network's own."""
        own = [name, *(one.head for one in settings.auxiliary if one.task == name)]
        outputs = {head: self._network.output[head] for head in own}
        member = compiled(
            keras.Model(self._network.input, outputs),
            phase.make_optimizer(self._steps[name]),
            settings,
        )
        member.optimizer.build(member.trainable_variables)
        return member

    @property
    def state(self) -> list[keras.Variable]:
        """What a checkpoint needs besides the network."""
        return [v for member in self._members.values() for v in member.optimizer.variables]

    def run(self, start: int, end: int, size: int, callbacks: Callbacks) -> None:
        """Train the epochs from `start` up to `end`, with crops of one size."""
        told = keras.callbacks.CallbackList([*self._ties, *callbacks], model=self._network)
        self._network.stop_training = False
        told.on_train_begin()
        for epoch in range(start, end):
            told.on_epoch_begin(epoch)
            told.on_epoch_end(epoch, self._epoch(epoch, size, told))
            if self._network.stop_training:
                break
        told.on_train_end()

    def _epoch(
        self, epoch: int, size: int, told: keras.callbacks.CallbackList
    ) -> Mapping[str, float]:
        logs: dict[str, float] = {}
        for member in self._members.values():
            member.reset_metrics()
        for step, (name, batch) in enumerate(self._turns(epoch, size)):
            told.on_train_batch_begin(step)
            found = self._members[name].train_on_batch(*batch, return_dict=True)
            logs |= {f"{name}_{what}": float(value) for what, value in found.items()}
            told.on_train_batch_end(step, logs)
        return logs

    def _turns(self, epoch: int, size: int) -> Iterator[tuple[str, tuple]]:
        """Each step's task and batch; the next batch is made while a step is computed."""
        order = np.repeat(list(self._steps), list(self._steps.values()))
        np.random.default_rng([*self._seed, epoch]).shuffle(order)
        batches = {
            name: iter(self._batches(rows, epoch, size, steps=self._steps[name]))
            for name, rows in self._rows.items()
        }
        with ThreadPoolExecutor(1) as pool:
            coming = [pool.submit(next, batches[name]) for name in order[:1]]
            for name, following in zip(order, [*order[1:], None], strict=True):
                batch = coming.pop().result()
                if following is not None:
                    coming.append(pool.submit(next, batches[following]))
                yield str(name), batch
