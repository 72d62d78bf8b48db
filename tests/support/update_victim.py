"""Stages a bundle or runs an agent, and dies at the step it is told to. For test_update_crash.

A request is a line of JSON on stdin, its answer one on stdout. Each is done in a fork, which is
what dies: Python and the libraries are imported once. Two things differ from the product: nothing
waits for a poll, and the trial's two bundles are judged in the fork itself (by the same functions),
since another interpreter at nice 19 would take a second each time.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_agent import agent as agents
from edge_agent.config import config as configs
from edge_agent.errors import EdgeError
from edge_agent.update import failpoints, record, shadow, trial_process, trial_worker, updater
from edge_agent.update.bundle_store import BundleStore
from edge_agent.update.staging import stage

CRASHED = 99


class InThisProcess:
    """A Sandbox without a process."""

    def __init__(self, begin: trial_process.TrialRequest, go_on: Callable[[], None]) -> None:
        self._ready, self._models = trial_worker.open_models(begin)

    def __enter__(self) -> InThisProcess:
        return self

    def __exit__(self, *_: object) -> None: ...

    def ready(self) -> trial_process.TrialReady:
        return self._ready

    def look(self, frame: Any) -> Any:
        assert self._models is not None
        return trial_worker.compare(self._models, frame.image, frame.frame_id, 0)


def act(request: dict[str, Any], steps: Path) -> None:
    number = 0

    def at(step: str) -> None:
        nonlocal number
        with steps.open("a", encoding="utf-8") as file:
            file.write(step + "\n")
        if number == request["crash"]:
            os._exit(CRASHED)
        number += 1

    with failpoints.armed(at):
        act_to_its_end(request)


def act_to_its_end(request: dict[str, Any]) -> None:
    config = configs.load(Path(request["config"]))
    if request["act"] == "stage":
        stage(config, BundleStore(config.state_dir), Path(request["bundle"]))
        return
    agent = agents.Agent(config)

    def end_it() -> None:
        """When the update is through and some frames after it are."""
        while BundleStore(config.state_dir).read().phase != "idle":
            time.sleep(0.02)
        seen = agent.health().frames_inspected
        while agent.health().frames_inspected < seen + 4:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end_it, daemon=True).start()
    summary = agent.run()
    # The steps after the record is idle are its too, and on a busy machine it may be amid them.
    agent._updater.join()
    Path(request["summary"]).write_text(json.dumps(summary), encoding="utf-8")


def main() -> None:
    updater._POLL_S = 0.02
    record.ATTEMPTS = 4
    shadow.TrialProcess = InThisProcess  # type: ignore[misc, assignment]
    agents._DRAIN_S = 0.1
    for line in sys.stdin:
        request = json.loads(line)
        steps, summary = Path(request["steps"]), Path(request["summary"])
        for path in (steps, summary):
            path.write_text("", encoding="utf-8")
        child = os.fork()
        if child == 0:
            try:
                act(request, steps)
                os._exit(0)
            except EdgeError as error:
                print(error, file=sys.stderr, flush=True)
                os._exit(2)
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(
            json.dumps(
                {
                    "code": code,
                    "steps": steps.read_text(encoding="utf-8").splitlines(),
                    "summary": json.loads(summary.read_text(encoding="utf-8") or "null"),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
