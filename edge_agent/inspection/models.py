"""Verified bundle with the artifact chosen for each stage, and the models that inspect a frame."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from edge_agent.bundle import archive, reader, signature, version_history
from edge_agent.bundle import manifest as bundles
from edge_agent.config.config import Config
from edge_agent.inspection.gate import Gate
from edge_agent.inspection.runtime import ChosenArtifact, choose
from edge_agent.inspection.segmenter import Segmenter
from edge_agent.messages import events

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Models:
    """Both stages that inspect a frame, and the bundle data that its events contain."""

    class_names: tuple[str, ...]
    ref: events.BundleRef
    gate: Gate
    segmenter: Segmenter


@dataclass(frozen=True, slots=True, eq=False)
class LoadedBundle:
    """Verified bundle with the artifact chosen for each stage."""

    bundle: bundles.Bundle
    gate: ChosenArtifact
    segmenter: ChosenArtifact

    @property
    def ref(self) -> events.BundleRef:
        """Return the bundle reference for events."""
        manifest = self.bundle.manifest
        return events.BundleRef(
            name=manifest.name,
            version=manifest.version,
            sha256=self.bundle.sha256,
            gate=self.gate.artifact.label,
            segmenter=self.segmenter.artifact.label,
        )

    @property
    def models(self) -> Models:
        """Return new models that use the chosen artifacts."""
        manifest = self.bundle.manifest
        return Models(
            manifest.class_names,
            self.ref,
            Gate(manifest.gate.input, self.gate),
            Segmenter(manifest.segmenter.input, self.segmenter, manifest.regions),
        )

    def log(self) -> None:
        """Log the chosen and refused artifacts of both stages."""
        for name, choice in (("gate", self.gate), ("segmenter", self.segmenter)):
            for refusal in choice.refused:
                _log.info("%s: %s not used: %s", name, refusal.label, refusal.reason)
            _log.info(
                "%s: %s, %s, %.1f ms",
                name,
                choice.artifact.label,
                choice.runtime.name,
                choice.run_ms,
            )


def trust_of(config: Config) -> signature.Trust:
    """Return the trust settings of the configuration; raises ConfigError for an unusable key."""
    return signature.trust(
        config.agent.trusted_keys,
        "agent.trusted_keys",
        unsigned_allowed=config.agent.unsigned_bundles == "allow",
    )


def chosen(config: Config, bundle: bundles.Bundle, stage: bundles.Stage) -> ChosenArtifact:
    """Choose the stage's artifact by the configuration; raises BundleError if none can be used."""
    return choose(
        bundle,
        stage,
        precision=config.agent.precision,
        threads=config.threads,
        providers=config.agent.providers,
    )


def prepare_stages(
    config: Config, *, allow_older: bool = False, folder: Path | None = None
) -> LoadedBundle:
    """Load and verify the bundle and choose its artifacts; takes a second or two.

    Writes nothing to disk, so it may run beside a running agent.

    Args:
        config: Configuration of the agent.
        allow_older: Accept a version older than the last one used.
        folder: Folder of the bundle, if it is not the configured one.

    Raises:
        ConfigError: A trusted key cannot be used.
        BundleError: The bundle is invalid or cannot run here.
    """
    trust = trust_of(config)
    with archive.opened(folder or Path(config.agent.bundle), trust) as opened:
        return _prepared(config, reader.load(opened, trust), allow_older=allow_older)


def _prepared(config: Config, bundle: bundles.Bundle, *, allow_older: bool) -> LoadedBundle:
    manifest = bundle.manifest
    signed = f"signed with key {bundle.signed_by}" if bundle.signed_by else "signature not checked"
    _log.info("bundle: %s version %d, %s", manifest.name, manifest.version, signed)
    version_history.check(config.state_dir, bundle, allow_older=allow_older)
    return LoadedBundle(
        bundle, chosen(config, bundle, manifest.gate), chosen(config, bundle, manifest.segmenter)
    )
