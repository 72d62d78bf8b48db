"""Choice of `tf.distribute` strategy: one device, all GPUs, or several machines."""

from __future__ import annotations

import json
import os
from typing import Literal

import tensorflow as tf

from workshop.errors import WorkshopError

Name = Literal["one", "mirrored", "multiworker"]


def open_strategy(name: Name) -> tf.distribute.Strategy:
    """Return the strategy `name`; `multiworker` reads the variable TF_CONFIG.

    Raises WorkshopError if TF_CONFIG is missing or invalid.
    """
    if name == "one":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    try:
        given = json.loads(os.environ.get("TF_CONFIG", ""))
        workers, index = given["cluster"]["worker"], given["task"]["index"]
        valid = given["task"]["type"] == "worker" and 0 <= index < len(workers)
    except (ValueError, KeyError, TypeError):
        valid = False
    if not valid:
        raise WorkshopError(
            "--strategy multiworker: TF_CONFIG is missing or invalid; set it to "
            '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
        )
    return tf.distribute.MultiWorkerMirroredStrategy()


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Return True if this process writes the run folder."""
    resolver = strategy.cluster_resolver
    return resolver is None or not resolver.task_type or resolver.task_id == 0


def worker(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """Return the number of workers and the index of this worker."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return 1, 0
    return len(resolver.cluster_spec().as_dict()["worker"]), int(resolver.task_id)
