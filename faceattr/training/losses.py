"""How the losses of several heads become one: by name, all respecting what a batch lacks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import keras
from keras import ops

from faceattr.data.dataset import class_prior
from faceattr.model.build import feature_map, head, pool
from faceattr.tasks import refuse_unknown
from faceattr.training.config import Auxiliary, Settings


def masked_losses(
    heads: Iterable[str], label_smoothing: float = 0.0
) -> dict[str, keras.losses.Loss]:
    """One loss per head, for ``compile(loss=…)`` and a ``sample_weight`` of masks by task."""
    how = {"label_smoothing": label_smoothing, "reduction": "mean_with_sample_weight"}
    return {name: keras.losses.CategoricalCrossentropy(**how) for name in heads}


def compile_masked(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    *,
    label_smoothing: float = 0.0,
    weights: Mapping[str, float] | None = None,
) -> None:
    """Compile a model of `faceattr.model.build` for masked batches; losses weigh 1 by default."""
    heads = list(model.output)
    model.compile(
        optimizer=optimizer,
        loss=masked_losses(heads, label_smoothing),
        loss_weights={name: (weights or {}).get(name, 1.0) for name in heads},
        # Plain `metrics` would score an all-zero row as class 0.
        weighted_metrics={name: ["accuracy"] for name in heads},
    )


def with_auxiliary(network: keras.Model, auxiliary: Sequence[Auxiliary]) -> keras.Model:
    """The network with the heads of auxiliary losses beside its own; its layers are shared.

    Whoever saves `network` leaves them behind. Without auxiliary losses it is `network` itself.
    """
    outputs = dict(network.output)
    for extra in auxiliary:
        refuse_unknown("task", [extra.task], network.output, "for an auxiliary loss")
        pooled = pool(feature_map(network, extra.layer, extra.task), "avg", extra.head)
        classes = network.output[extra.task].shape[-1]
        outputs[extra.head] = head(extra.head, classes)(pooled)
    return keras.Model(network.input, outputs) if auxiliary else network


SMALLEST = 1e-30  # probability whose logarithm and its gradient are still float32
LOSS_FLOOR = 1e-2  # added to a loss: the logarithm's pull, 1 / loss, would explode near 0
UNCERTAINTY_RATE = 0.01  # of Adam: a few hundred steps from one weight to one ten times as large


class WeightedSum(keras.layers.Layer):
    """The weighted sum, the default: hard to beat with well chosen weights (Xin et al. 2022)."""

    def __init__(self, weights: Mapping[str, float], tasks: int, seed: int) -> None:
        super().__init__(dtype="float32")
        self._weights = dict(weights)

    def call(self, losses, present):
        """One scalar of the mean masked losses by task.

        Args:
            losses: By task, the mean over the rows that know it, 0 without any.
            present: By task, 1 where some row knows it, else 0.
        """
        names = list(losses)
        terms = self.terms(ops.stack([losses[name] for name in names]), names)
        weights = [self._weights.get(name, 1.0) for name in names]
        return ops.sum(terms * ops.stack([present[name] for name in names]) * ops.array(weights))

    def terms(self, losses, names):
        """What each task adds, ``(tasks,)``, before weights and presence."""
        return losses

    def optimizers(self) -> dict[str, keras.optimizers.Optimizer]:
        """An optimiser for what this layer learns itself, by a pattern for the variables' paths."""
        return {}


class LogSum(WeightedSum):
    """The sum of logarithms, that is the product: no task dominates by its scale."""

    def terms(self, losses, names):
        return ops.log(losses + LOSS_FLOOR)


class Uncertainty(WeightedSum):
    """Learned weights ``exp(-s) * loss + s / 2`` (Kendall et al. 2018, for classification).

    They have a rate of their own: at that of a network that is fine-tuned they would hardly move.
    """

    def __init__(self, weights: Mapping[str, float], tasks: int, seed: int) -> None:
        super().__init__(weights, tasks, seed)
        self.log_variance = self.add_weight(shape=(tasks,), initializer="zeros", name="uncertainty")

    def terms(self, losses, names):
        return ops.exp(-self.log_variance) * losses + self.log_variance / 2

    def optimizers(self) -> dict[str, keras.optimizers.Optimizer]:
        return {re.escape(self.log_variance.path): keras.optimizers.Adam(UNCERTAINTY_RATE)}


class RandomWeights(WeightedSum):
    """New random weights at every step (Lin et al. 2022): the baseline to beat."""

    def __init__(self, weights: Mapping[str, float], tasks: int, seed: int) -> None:
        super().__init__(weights, tasks, seed)
        self._generator = keras.random.SeedGenerator(seed)

    def terms(self, losses, names):
        # Softmax of normal numbers, written out: Keras' own warns where there is one task.
        drawn = ops.exp(keras.random.normal((len(names),), seed=self._generator))
        return drawn / ops.mean(drawn) * losses


# A new combination is one more line here and one more choice of `Settings.combine`.
COMBINATIONS = {
    "sum": WeightedSum,
    "log": LogSum,
    "uncertainty": Uncertainty,
    "random": RandomWeights,
}


class CombinedLosses(keras.Model):
    """A network whose heads' masked losses are combined by a layer; it shares all weights.

    Keras sums the losses of the heads and multiplies them with constants; anything else needs
    `compute_loss`. Auxiliary losses are added to those of their tasks first. The loss by task that
    it reports is that of the task's own head, the mean over all labelled rows of an epoch.
    """

    def __init__(
        self,
        network: keras.Model,
        combine: WeightedSum,
        label_smoothing: float = 0.0,
        auxiliary: Sequence[Auxiliary] = (),
    ) -> None:
        super().__init__(network.input, network.output)
        self.combine = combine
        self._auxiliary = tuple(auxiliary)
        self._losses_by_head = masked_losses(network.output, label_smoothing)
        self._means = {
            name: keras.metrics.Mean(f"{name}_loss") for name in _task_heads(network, auxiliary)
        }

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        def loss_of(head: str, task: str):
            answers = y_pred[head]
            if (prior := class_prior(task)) in y:
                answers = with_prior(answers, y[prior])
            loss = self._losses_by_head[head]
            return loss(y[task], answers, sample_weight=sample_weight[task])

        losses, present = {}, {}
        for task, mean in self._means.items():
            labelled = ops.sum(sample_weight[task])
            losses[task] = loss_of(task, task)
            present[task] = ops.cast(labelled > 0, "float32")
            mean.update_state(losses[task], sample_weight=labelled)
        for extra in self._auxiliary:
            losses[extra.task] += extra.weight * loss_of(extra.head, extra.task)
        return self.combine(losses, present)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        own, targets = ({task: of[task] for task in self._means} for of in (y_pred, y))
        return super().compute_metrics(x, targets, own, sample_weight)


def with_prior(probabilities, log_prior):
    """Answers under a uniform prior as they are under one of logarithms, both ``(n, classes)``."""
    logits = ops.log(ops.maximum(probabilities, SMALLEST))
    return ops.softmax(logits + ops.cast(log_prior, logits.dtype))


def _task_heads(network: keras.Model, auxiliary: Sequence[Auxiliary]) -> list[str]:
    """The names of the heads that are no auxiliary ones."""
    extra = {one.head for one in auxiliary}
    return [name for name in network.output if name not in extra]


def combination_for(settings: Settings, tasks: Sequence[str]) -> WeightedSum | None:
    """What makes one loss of those of `tasks`; None where Keras' own sum will do.

    Of several tasks Keras would report a mean over batches, in which those without a row that knows
    a task count as a loss of 0.
    """
    auxiliary = any(one.task in tasks for one in settings.auxiliary)
    is_own = settings.combine != "sum" or auxiliary or set(settings.priors) & set(tasks)
    if len(tasks) == 1 and not is_own:
        return None
    kind = COMBINATIONS[settings.combine]
    return kind(settings.loss_weights, len(tasks), settings.seed)


def compiled(
    network: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    settings: Settings,
    combine: WeightedSum | None = None,
) -> keras.Model:
    """What is to be fitted: the network itself where Keras' own sum will do, or a model around it.

    `network` has all heads of a joint step, or those of one task. `combine` has learnt already.
    """
    auxiliary = [one for one in settings.auxiliary if one.head in network.output]
    tasks = _task_heads(network, auxiliary)
    combine = combine or combination_for(settings, tasks)
    if combine is None:
        weights, smoothing = settings.loss_weights, settings.loss_smoothing
        compile_masked(network, optimizer, label_smoothing=smoothing, weights=weights)
        return network
    model = CombinedLosses(network, combine, settings.loss_smoothing, auxiliary)
    model.compile(optimizer, weighted_metrics={name: ["accuracy"] for name in tasks})
    return model
