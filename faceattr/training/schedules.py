"""How a phase takes its steps: on all tasks at once, or on one task at a time; soft sharing."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from faceattr.data.dataset import LabeledDataset, mask
from faceattr.model.vgg16 import name_and_owner
from faceattr.training.batches import MaskedBatches, steps_per_epoch, wanted_shares
from faceattr.training.checkpoint import read_back
from faceattr.training.config import Phase, Settings
from faceattr.training.feature_cache import CachedPhase
from faceattr.training.losses import Sum, combination_for, compiled
from faceattr.training.optimizers import learning_rates, make_optimizer, unfreeze

Callbacks = Sequence[keras.callbacks.Callback]


@dataclass(frozen=True)
class PhaseInputs:
    """What a phase trains, on what.

    Args:
        epochs_before: Epochs of earlier phases, which count for the order of the batches.
        cached: Features of what the phase leaves as it is; None trains on crops.
        seed_salt: Of `faceattr.training.network.seed_salt`.
    """

    network: keras.Model
    phase: Phase
    settings: Settings
    train: LabeledDataset
    epochs_before: int = 0
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
        """Steps of an epoch."""
        return steps_per_epoch(len(self.train), self.settings.batch_size)

    def batches(self, rows: LabeledDataset, epoch: int, size: int, **more) -> MaskedBatches:
        """Endless batches of some training rows, beginning with an epoch of this phase."""
        return MaskedBatches(
            rows,
            size,
            batch_size=self.settings.batch_size,
            augmentation=self.settings.augmentation,
            mixed_by=(self.settings.mixup, self.settings.cutmix),
            seed=self.seed,
            epoch=self.epochs_before + epoch,
            features=self.cached.repeats[size] if self.cached else None,
            **more,
        )

    def soft_sharing(self, steps: int) -> list[SoftSharing]:
        """What draws the backbones together; nothing where tasks share one or it does not learn."""
        strength = self.settings.sharing_strength
        if not (strength and corresponding_variables(self.trainable)):
            return []
        rates = learning_rates(self.phase, 1.0, self.phase.epochs * steps)
        return [SoftSharing(self.trainable, strength, lambda step: float(rates(step)), steps)]


def task_schedule(inputs: PhaseInputs, combine: Sum | None = None) -> Joint | Alternating:
    """Prepare a phase: from here on only what it says learns.

    Args:
        combine: Makes one loss of those of a joint step, and keeps what it has learnt from phase
            to phase; None where Keras' own sum will do.
    """
    unfreeze(inputs.network, inputs.phase)
    if inputs.settings.schedule == "alternating":
        return Alternating(inputs)
    return Joint(inputs, combine)


class Joint:
    """Every step is one on the combined losses of all heads, through Keras' `fit`."""

    def __init__(self, inputs: PhaseInputs, combine: Sum | None = None) -> None:
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
        sampling = self._inputs.settings.task_sampling
        self._model.fit(
            self._inputs.batches(self._inputs.train, start, size, task_sampling=sampling),
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
        known = np.stack([mask(targets[name]) > 0 for name in names], axis=1)
        shares = wanted_shares(inputs.settings.task_sampling, names, known)
        steps = [max(1, round(share * inputs.steps)) for share in shares]
        self._steps = dict(zip(names, steps, strict=True))
        self._models = {name: self._model_of(name) for name in names}
        self._soft_sharing = inputs.soft_sharing(sum(steps))

    def _model_of(self, name: str) -> keras.Model:
        """The network with one task's heads; its layers are the network's own."""
        settings, network = self._inputs.settings, self._inputs.trainable
        own = [name, *(one.head for one in settings.auxiliary if one.task == name)]
        outputs = {head: network.output[head] for head in own}
        optimizer = make_optimizer(self._inputs.phase, self._steps[name])
        combine = combination_for(settings, [name])
        model = compiled(keras.Model(network.input, outputs), optimizer, settings, combine)
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
            name: iter(self._inputs.batches(rows, epoch, size, steps=self._steps[name]))
            for name, rows in self._rows.items()
        }
        with ThreadPoolExecutor(1) as pool:
            coming = [pool.submit(next, batches[name]) for name in order[:1]]
            for name, following in zip(order, [*order[1:], None], strict=True):
                batch = coming.pop().result()
                if following is not None:
                    coming.append(pool.submit(next, batches[following]))
                yield str(name), batch


def corresponding_variables(network: keras.Model) -> list[list[keras.Variable]]:
    """The variables that have the same place in the tasks' backbones and learn, by place."""
    by_place = defaultdict(list)
    for layer in network.layers:
        base, owner = name_and_owner(layer.name)
        for variable in layer.trainable_variables if owner else ():
            by_place[base, variable.name].append(variable)
    return list(by_place.values())


def proximal_step(variables: list[keras.Variable], strength: float) -> None:
    """Draw corresponding variables towards their mean.

    Each becomes the W that minimises ``|W - now|^2 + strength * |W - mean|^2``, which leaves
    the mean where it is.

    Args:
        variables: Of one shape.
        strength: 0 changes nothing, infinity makes them equal to the bit.
    """
    mean = ops.mean(ops.stack([variable.value for variable in variables]), axis=0)
    share_left = 1 / (1 + strength)
    for variable in variables:
        variable.assign(mean + share_left * (variable - mean))


def divergence(places: list[list[keras.Variable]]) -> float:
    """How far the backbones are from their mean, relative to their size."""
    distance = size = 0.0
    for variables in places:
        stacked = ops.stack([variable.value for variable in variables])
        distance += float(ops.sum((stacked - ops.mean(stacked, axis=0)) ** 2))
        size += float(ops.sum(stacked**2))
    return math.sqrt(distance / size)


class SoftSharing(keras.callbacks.Callback):
    """Takes a proximal step after every step and logs how far apart an epoch leaves the backbones.

    Args:
        network: The network with a backbone per task.
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
        self._places, self._strength = corresponding_variables(network), strength
        self._rate_share, self._steps = rate_share, steps
        self._step = 0

    def on_epoch_begin(self, epoch: int, logs=None) -> None:
        self._step = epoch * self._steps

    def on_train_batch_end(self, batch: int, logs=None) -> None:
        read_back(self.model)
        share = self._rate_share(self._step)
        self._step += 1
        if share > 0:
            for variables in self._places:
                proximal_step(variables, self._strength * share)

    def on_epoch_end(self, epoch: int, logs=None) -> None:
        if self._places and logs is not None:
            logs["backbones_apart"] = divergence(self._places)
