"""Train one of the two networks on the simulated strip and keep the best weights."""

from __future__ import annotations

import json
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from edge_agent.preprocess import GATE_INPUT, SEGMENTER_INPUT
from training import networks
from training.losses import FocalTversky
from training.steel import TRAIN_SEEDS, VALIDATION_SEEDS, SteelBatches, SteelSet, render_set


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides what comes out, but for the machine's rounding."""

    stage: str
    width: float
    strips: int
    frames_per_strip: int
    epochs: int
    batch: int
    learning_rate: float
    seed: int


class _Dice(keras.metrics.Metric):  # type: ignore[misc]
    """Mean Dice per image over all class maps at threshold 0.5, images with a defect only."""

    def __init__(self, name: str = "dice") -> None:
        super().__init__(name=name)
        self.total = self.add_weight(name="total", initializer="zeros")
        self.count = self.add_weight(name="count", initializer="zeros")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        truth = tf.cast(y_true > 0.5, tf.float32)
        guess = tf.cast(y_pred > 0.5, tf.float32)
        true_px = tf.reduce_sum(truth, (1, 2, 3))
        both = tf.reduce_sum(truth * guess, (1, 2, 3))
        dice = 2 * both / tf.maximum(true_px + tf.reduce_sum(guess, (1, 2, 3)), 1)
        some = tf.cast(true_px > 0, tf.float32)
        self.total.assign_add(tf.reduce_sum(dice * some))
        self.count.assign_add(tf.reduce_sum(some))

    def result(self) -> Any:
        return self.total / tf.maximum(self.count, 1)


def _compiled(recipe: Recipe, steps: int) -> tuple[keras.Model, str, str]:
    schedule = keras.optimizers.schedules.CosineDecay(
        recipe.learning_rate, steps, warmup_steps=0, alpha=0.01
    )
    optimizer = keras.optimizers.Nadam(schedule)
    if recipe.stage == "gate":
        model = networks.gate(width=recipe.width)
        model.compile(
            optimizer,
            keras.losses.BinaryCrossentropy(from_logits=True),
            metrics=[keras.metrics.AUC(curve="PR", from_logits=True, name="average_precision")],
        )
        return model, "val_loss", "min"
    model = networks.segmenter(width=recipe.width)
    # Even weights and gamma 1 (soft Dice) rather than the seed's 0.7 / 0.3 / 0.75: false alarms
    # and misses weigh the same here, since the gate's threshold sets that balance.
    model.compile(
        optimizer,
        FocalTversky(alpha=0.5, beta=0.5, gamma=1.0, smooth=1.0, cross_entropy=1.0),
        metrics=[_Dice()],
    )
    return model, "val_dice", "max"


def _sets(recipe: Recipe) -> tuple[SteelSet, SteelSet]:
    spec = GATE_INPUT if recipe.stage == "gate" else SEGMENTER_INPUT
    # The segmenter sees suspects only; a fifth of the clean frames teaches it harmless marks.
    clean = 1.0 if recipe.stage == "gate" else 0.2
    first = recipe.seed % 100 * 10
    train = TRAIN_SEEDS[first : first + recipe.strips]
    validation = VALIDATION_SEEDS[first : first + max(1, min(12, recipe.strips // 8))]
    how: dict[str, Any] = {"clean_share": clean, "spec": spec, "masks": recipe.stage != "gate"}
    return (
        render_set(train, recipe.frames_per_strip, **how),
        render_set(validation, recipe.frames_per_strip, **how),
    )


def fit(recipe: Recipe, out: Path) -> dict[str, Any]:
    """Train, write `out` (.keras, no optimizer state) and `out`.json beside it; the figures.

    The weights kept are those of the best epoch on the validation strips.
    """
    began = time.monotonic()
    keras.utils.set_random_seed(recipe.seed)
    spec = GATE_INPUT if recipe.stage == "gate" else SEGMENTER_INPUT
    train, validation = _sets(recipe)
    common: dict[str, Any] = {
        "stage": recipe.stage,
        "spec": spec,
        "batch": recipe.batch,
        "seed": recipe.seed,
    }
    batches = SteelBatches(train, augment=True, **common)
    model, watch, mode = _compiled(recipe, len(batches) * recipe.epochs)
    best = out.with_suffix(".best.weights.h5")
    history = model.fit(
        batches,
        validation_data=SteelBatches(validation, augment=False, **common),
        epochs=recipe.epochs,
        verbose=1 if sys.stdout.isatty() else 2,
        callbacks=[
            keras.callbacks.ModelCheckpoint(
                best, monitor=watch, mode=mode, save_best_only=True, save_weights_only=True
            ),
            keras.callbacks.TerminateOnNaN(),
        ],
    )
    # A fresh, uncompiled model: the file then holds neither optimizer nor loss.
    build = networks.gate if recipe.stage == "gate" else networks.segmenter
    final = build(width=recipe.width)
    final.load_weights(best)
    final.save(out)
    best.unlink()
    epochs = {k: [round(float(v), 5) for v in values] for k, values in history.history.items()}
    at = int(np.argmin(epochs[watch]) if mode == "min" else np.argmax(epochs[watch]))
    figures = {
        "recipe": {name: getattr(recipe, name) for name in Recipe.__slots__},
        "parameters": final.count_params(),
        "train_frames": len(train.images),
        "train_defective": int(train.defective.sum()),
        "validation_frames": len(validation.images),
        "validation_defective": int(validation.defective.sum()),
        "best_epoch": at + 1,
        "validation": {k: v[at] for k, v in epochs.items() if k.startswith("val_")},
        "history": epochs,
        "duration_s": round(time.monotonic() - began),
        "versions": {
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
        },
    }
    out.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n")
    return figures
