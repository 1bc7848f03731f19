"""The two biases of alternating between tasks; run: `python docs/alternation.py`.

Handwritten digits (scikit-learn carries them), turned by a random quarter, and two tasks that
pull a small backbone apart: which digit it is, and how far it was turned. No picture knows both.
Every way sees as many pictures; accuracies are those after the last step.
"""

from collections.abc import Callable, Iterator

import keras
import numpy as np
from sklearn.datasets import load_digits

from faceattr.training.batches import wanted_shares
from faceattr.training.config import TaskSampling
from faceattr.training.losses import compile_masked

TASKS = {"digit": 10, "turn": 4}
BATCH, STEPS, SEEDS, VAL = 32, 800, 3, 540
BLOCK = 100  # steps, as many as an epoch over 3,200 pictures has
Plan = Callable[[dict[str, np.ndarray], np.random.Generator], Iterator[str]]


def network() -> keras.Model:
    pixels = keras.Input((64,))
    backbone = keras.layers.Dense(24, activation="relu")(pixels)
    backbone = keras.layers.Dense(24, activation="relu")(backbone)
    heads = {
        name: keras.layers.Dense(n, activation="softmax", name=name)(backbone)
        for name, n in TASKS.items()
    }
    return keras.Model(pixels, heads)


MODEL = network()
MEMBERS = {name: keras.Model(MODEL.input, {name: MODEL.output[name]}) for name in TASKS}
STATE = []
for model in (MODEL, *MEMBERS.values()):
    compile_masked(model, keras.optimizers.Adam(3e-3))
    model.optimizer.build(model.trainable_variables)
    STATE += [(variable, variable.numpy()) for variable in model.optimizer.variables]


def pictures(seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    digits = load_digits()
    generator = np.random.default_rng(seed)
    order, turns = generator.permutation(len(digits.images)), generator.integers(4, size=1797)
    turned = [np.rot90(digits.images[i], turns[i]).ravel() / 16 for i in order]
    answers = {"digit": digits.target[order], "turn": turns[order]}
    return np.array(turned, "float32"), {n: np.eye(TASKS[n])[a] for n, a in answers.items()}


def shuffled(mix: TaskSampling) -> Plan:
    """faceattr's order: shares by the mix, shuffled."""

    def plan(rows, generator):
        known = np.repeat(np.eye(2, dtype=bool), [len(own) for own in rows.values()], axis=0)
        counts = np.round(wanted_shares(mix, list(rows), known) * STEPS).astype(int)
        return iter(generator.permutation(np.repeat(list(rows), counts)))

    return plan


def in_blocks(last: str) -> Plan:
    """The naive order: a while on one set, then a while on the other."""

    def plan(rows, generator):
        order = [*(name for name in rows if name != last), last]
        return iter(np.tile(np.repeat(order, BLOCK), STEPS // (2 * BLOCK)))

    return plan


def joint_step(x: np.ndarray, y: dict, rows: dict, generator: np.random.Generator) -> None:
    """Half a batch of each task, in one step on both."""
    drawn = np.concatenate([generator.choice(own, BATCH // 2) for own in rows.values()])
    halves = np.repeat([1.0, 0.0], BATCH // 2)
    masks = {"digit": halves, "turn": 1 - halves}
    targets = {name: y[name][drawn] * masks[name][:, None] for name in TASKS}
    MODEL.train_on_batch(x[drawn], targets, sample_weight=masks)


def accuracies(sizes: dict[str, int], plan: Plan | None, seed: int) -> list[float]:
    """Train from the start, joint where there is no plan, and score what was set aside."""
    keras.utils.set_random_seed(seed)
    MODEL.set_weights(network().get_weights())
    for variable, value in STATE:
        variable.assign(value)
    x, y = pictures(seed)
    starts = {"digit": VAL, "turn": VAL + sizes["digit"]}
    rows = {name: np.arange(starts[name], starts[name] + n) for name, n in sizes.items()}
    generator = np.random.default_rng(seed)
    for name in plan(rows, generator) if plan else [None] * STEPS:
        if name is None:
            joint_step(x, y, rows, generator)
        else:
            drawn = generator.choice(rows[name], BATCH)
            MEMBERS[name].train_on_batch(x[drawn], {name: y[name][drawn]}, np.ones(BATCH))
    answers = MODEL.predict(x[:VAL], verbose=0)
    return [float(np.mean(answers[n].argmax(1) == y[n][:VAL].argmax(1))) for n in TASKS]


def table(sizes: dict[str, int], ways: dict[str, Plan | None]) -> None:
    title = f"{sizes['digit']} digits, {sizes['turn']} turns"
    print(f"\n{title:32}{'digit':>14}{'turn':>14}")
    for name, plan in ways.items():
        found = 100 * np.array([accuracies(sizes, plan, seed) for seed in range(SEEDS)])
        digit, turn = (f"{own.mean():.1f} ± {own.std(ddof=1):.1f}" for own in found.T)
        print(f"{name:32}{digit:>14}{turn:>14}")


if __name__ == "__main__":
    keras.config.disable_interactive_logging()
    table(
        {"digit": 600, "turn": 600},
        {
            "joint": None,
            "alternating, shuffled": shuffled(TaskSampling()),
            "in blocks, digits last": in_blocks("digit"),
            "in blocks, turns last": in_blocks("turn"),
        },
    )
    table(
        {"digit": 1100, "turn": 110},
        {
            "joint, --mix equal": None,
            "alternating, --mix equal": shuffled(TaskSampling()),
            "alternating, --mix 2": shuffled(TaskSampling(2.0)),
            "alternating, --mix natural": shuffled(TaskSampling(1.0)),
        },
    )
