"""What an all-zero target does with and without a mask; run: `python docs/masking.py`.

1,797 handwritten digits (scikit-learn carries them), two tasks: which digit it is, and
whether it is even. Every training picture knows one of the two, never both.
"""

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from faceattr.training.losses import compile_masked


def two_headed() -> keras.Model:
    pixels = keras.Input((64,))
    backbone = keras.layers.Dense(64, activation="relu")(pixels)
    digit = keras.layers.Dense(10, activation="softmax", name="digit")(backbone)
    parity = keras.layers.Dense(2, activation="softmax", name="parity")(backbone)
    return keras.Model(pixels, {"digit": digit, "parity": parity})


digits = load_digits()
x, digit = digits.data.astype("float32") / 16, digits.target
x_train, x_val, digit_train, digit_val = train_test_split(x, digit, test_size=0.3, random_state=0)
y = {"digit": np.eye(10)[digit_train], "parity": np.eye(2)[digit_train % 2]}
knows_digit = np.random.default_rng(0).random(len(x_train)) < 0.5
y["digit"][~knows_digit] = 0  # unknown is an all-zero row
y["parity"][knows_digit] = 0
masks = {name: target.any(axis=1).astype("float32") for name, target in y.items()}

print(f"{'':22}{'digit':>8}{'parity':>8}   largest bias of the digit head")
for recipe in ("zero rows, no mask", "zero rows and a mask"):
    keras.utils.set_random_seed(0)
    model = two_headed()
    if recipe == "zero rows, no mask":
        model.compile("adam", {name: "categorical_crossentropy" for name in y})
        model.fit(x_train, y, epochs=60, verbose=0)
    else:
        compile_masked(model, keras.optimizers.Adam())
        model.fit(x_train, y, sample_weight=masks, epochs=60, verbose=0)
    answer = model.predict(x_val, verbose=0)
    right = [
        np.mean(answer["digit"].argmax(axis=1) == digit_val),
        np.mean(answer["parity"].argmax(axis=1) == digit_val % 2),
    ]
    bias = np.abs(model.get_layer("digit").get_weights()[1]).max()
    print(f"{recipe:22}{right[0]:8.1%}{right[1]:8.1%}   {bias:.2f}")
