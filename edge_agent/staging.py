"""A bundle from outside to the store, as the candidate of an update."""

from __future__ import annotations

from pathlib import Path

from edge_agent import bundle as bundles
from edge_agent import parcel, update, versions
from edge_agent.bundle import Bundle
from edge_agent.config import Config
from edge_agent.parcel import manifest_sha256
from edge_agent.slots import Slots, slot_of
from edge_agent.stages import chosen, trust_of
from edge_agent.update import Record, UpdateError


def check_fit(config: Config, source: Path) -> None:
    """Raises BundleError where it is not signed as it must be, not whole, or does not give the
    golden outputs on this machine. Runs its networks: not in the agent's own process."""
    trust = trust_of(config)
    with parcel.opened(source, trust) as folder:
        bundle = bundles.load(folder, trust)
        for stage in (bundle.manifest.gate, bundle.manifest.segmenter):
            chosen(config, bundle, stage)


def stage(config: Config, slots: Slots, source: Path, *, force: bool = False) -> Record:
    """Verified, copied, written down; runs nothing of it. Raises BundleError or UpdateError."""
    configured_sha256 = manifest_sha256(Path(config.agent.bundle))

    def candidate(record: Record, bundle: Bundle) -> Record:
        slot = slot_of(bundle, forced=force)
        if record.active is None and bundle.sha256 == configured_sha256:
            raise UpdateError(f"update: {slot} is what runs; stage another bundle")
        if not force:
            _check_rises(config.state_dir, bundle)
        return update.staged(record, slot)

    trust = trust_of(config)
    with parcel.opened(source, trust) as folder:
        return slots.stage(folder, trust, config.update.max_bytes, candidate)


def _check_rises(state_dir: Path, bundle: Bundle) -> None:
    name, version = bundle.manifest.name, bundle.manifest.version
    ran = versions.highest(state_dir).get(name)
    if ran is None or version > ran.version or bundle.sha256 == ran.sha256:
        return
    raise UpdateError(
        f"update: {name} version {version} does not rise above {ran.version}, which ran here; "
        "export it under a higher version, or stage it with --force"
    )
