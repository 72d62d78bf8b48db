"""Staging: a bundle from outside becomes the candidate of an update."""

from __future__ import annotations

from pathlib import Path

from edge_agent.bundle import archive, reader, version_history
from edge_agent.bundle.archive import manifest_sha256
from edge_agent.bundle.manifest import Bundle
from edge_agent.config.config import Config
from edge_agent.inspection.models import chosen, trust_of
from edge_agent.update import record as update
from edge_agent.update.bundle_store import BundleStore, slot_of
from edge_agent.update.record import UpdateError, UpdateRecord


def check_fit(config: Config, source: Path) -> None:
    """Check signature, files and golden outputs of a bundle on this machine. Raises BundleError.

    It runs the bundle's networks, so it must not be called in the agent's process.
    """
    trust = trust_of(config)
    with archive.opened(source, trust) as folder:
        bundle = reader.load(folder, trust)
        for stage in (bundle.manifest.gate, bundle.manifest.segmenter):
            chosen(config, bundle, stage)


def stage(config: Config, slots: BundleStore, source: Path, *, force: bool = False) -> UpdateRecord:
    """Verify a bundle, copy it into the store and record it; run none of its networks.

    Args:
        config: The agent's configuration.
        slots: The store and record of the update.
        source: The bundle's folder or archive.
        force: Permit a version that is not above the one that ran here.

    Returns:
        The record with the new candidate.

    Raises:
        BundleError: The bundle is damaged, or its signature is not trusted.
        UpdateError: The record does not allow it, or the version is too low.
    """
    configured_sha256 = manifest_sha256(Path(config.agent.bundle))

    def candidate(record: UpdateRecord, bundle: Bundle) -> UpdateRecord:
        slot = slot_of(bundle, forced=force)
        if record.active is None and bundle.sha256 == configured_sha256:
            raise UpdateError(f"update: {slot} is what runs; stage another bundle")
        if not force:
            _check_rises(config.state_dir, bundle)
        return update.staged(record, slot)

    trust = trust_of(config)
    with archive.opened(source, trust) as folder:
        return slots.stage(folder, trust, candidate)


def _check_rises(state_dir: Path, bundle: Bundle) -> None:
    """Raise UpdateError unless the version is above the highest that ran here."""
    name, version = bundle.manifest.name, bundle.manifest.version
    ran = version_history.highest(state_dir).get(name)
    if ran is None or version > ran.version or bundle.sha256 == ran.sha256:
        return
    raise UpdateError(
        f"update: {name} version {version} does not rise above {ran.version}, which ran here; "
        "export it under a higher version, or stage it with --force"
    )
