"""A verified bundle with the artifact chosen for each stage, and the models that judge a frame."""

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
    """What inspects a frame, and what its events say of it. A frame is judged by one of these."""

    class_names: tuple[str, ...]
    ref: events.BundleRef
    gate: Gate
    segmenter: Segmenter


@dataclass(frozen=True, slots=True, eq=False)
class LoadedBundle:
    """A verified bundle with the artifact chosen for each stage."""

    bundle: bundles.Bundle
    gate: ChosenArtifact
    segmenter: ChosenArtifact

    @property
    def ref(self) -> events.BundleRef:
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
        manifest = self.bundle.manifest
        return Models(
            manifest.class_names,
            self.ref,
            Gate(manifest.gate.input, self.gate),
            Segmenter(manifest.segmenter.input, self.segmenter, manifest.regions),
        )

    def log(self) -> None:
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
    """Raises ConfigError for a key that cannot be used."""
    return signature.trust(
        config.agent.trusted_keys,
        "agent.trusted_keys",
        unsigned_allowed=config.agent.unsigned_bundles == "allow",
    )


def chosen(config: Config, bundle: bundles.Bundle, stage: bundles.Stage) -> ChosenArtifact:
    """As the configuration wants it. Raises BundleError where nothing of the stage can run here."""
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
    """Load, verify and choose. Raises ConfigError or BundleError; takes a second or two.

    `folder`: of the bundle, where it is not the configuration's. Keeps nothing on the disk: it may
    be done beside a running agent.
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
