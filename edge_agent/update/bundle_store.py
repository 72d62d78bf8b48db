"""The disk of an update: bundles by their content, and the record of where an update stands.

Below `<state_dir>/update` lie `store/<sha256 of bundle.json>/`, `record.json` and two locks. What
has its name in the store is whole and was verified as it lies there; the record is written whole
or not at all. Both are on the disk (fsync) before anyone is told, a bundle before the record that
names it, and nothing is removed before the record that no longer names it is written.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from edge_agent import files as durable
from edge_agent.bundle import manifest as bundles
from edge_agent.bundle import reader, version_history
from edge_agent.bundle.manifest import MANIFEST, Bundle
from edge_agent.bundle.signature import MAX_BYTES, SIGNATURE, Trust
from edge_agent.errors import BundleError
from edge_agent.update import failpoints
from edge_agent.update.record import BundleSlot, UpdateError, UpdateRecord

_MAX_RECORD_BYTES = 1 << 16
MAX_BUNDLE_BYTES = 2 << 30
"""Of a bundle; all forms of two large networks take a tenth. The free disk is checked too."""
_SPARE_BYTES = 64 << 20
"""Left free on the disk, for the spool and the rest of the machine."""
_LOCK_WAIT_S = 5.0

_log = logging.getLogger(__name__)


class BundleStore:
    """Used by the agent and by the commands at once; each change is made under a lock."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._root = state_dir / "update"
        self._record, self._store = self._root / "record.json", self._root / "store"
        self._incoming = self._root / "incoming"

    def folder(self, slot: BundleSlot) -> Path:
        return self._store / slot.sha256

    @property
    def damaged(self) -> bool:
        """Whether the record is there and cannot be used; the next change makes it anew."""
        try:
            self._parsed()
        except ValueError:
            return True
        return False

    def mark(self) -> tuple[int, int] | None:
        """Another one after each change."""
        try:
            found = self._record.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def read(self) -> UpdateRecord:
        """As it stands; a damaged one is reported and made anew from what ran here."""
        try:
            return self._parsed()
        except ValueError as error:
            _log.error("%s: %s; made anew from the versions that ran here", self._record, error)
            return self._rebuilt()

    def change(self, to: Callable[[UpdateRecord], UpdateRecord]) -> UpdateRecord:
        """Write what `to` makes of the record, then drop the bundles that it no longer names.

        Raises UpdateError, also where the disk cannot be written: then nothing has changed.
        """
        try:
            self._make_folders()
            with self._locked("lock", _LOCK_WAIT_S, "the record is in use"):
                before, damaged = self._sound()
                after = to(before)
                if damaged or after != before:
                    self._write(after)
                self._prune(after)
                return after
        except OSError as error:
            raise _on_disk(error) from None

    def stage(
        self,
        source: Path,
        trust: Trust,
        to: Callable[[UpdateRecord, Bundle], UpdateRecord],
    ) -> UpdateRecord:
        """Bring a bundle into the store and write the record that `to` makes of it.

        Raises BundleError for a bundle that may not run here, UpdateError for the rest.
        """
        try:
            self._make_folders()
            with self._locked("staging.lock", 0, "another bundle is being staged"):
                bundle = self._copied(source, trust)
                with self._locked("lock", _LOCK_WAIT_S, "the record is in use"):
                    before, _ = self._sound()
                    after = to(before, bundle)
                    self._into_store(bundle, trust)
                    self._write(after)
                    self._prune(after)
                    return after
        except OSError as error:
            raise _on_disk(error) from None
        finally:
            shutil.rmtree(self._incoming, ignore_errors=True)

    def tidy(self) -> None:
        """Remove what a crash has left; nothing where there never was an update."""
        if not self._root.is_dir():
            return
        try:
            with self._locked("staging.lock", 0, "another bundle is being staged"):
                shutil.rmtree(self._incoming, ignore_errors=True)
        except (OSError, UpdateError) as error:
            _log.info("%s", error)
        self.change(lambda record: record)

    # Bundles.

    def _copied(self, source: Path, trust: Trust) -> Bundle:
        """Only what the manifest names is copied, and the copy is what is verified."""
        manifest = reader.load(source, trust).manifest
        files = [a.file for stage in (manifest.gate, manifest.segmenter) for a in stage.artifacts]
        files.append(manifest.golden)
        size = sum(file.size_bytes for file in files)
        if size > MAX_BUNDLE_BYTES:
            raise UpdateError(
                f"{source}: {size} bytes, more than {MAX_BUNDLE_BYTES}; export fewer artifacts"
            )
        free = shutil.disk_usage(self._root).free
        if size + _SPARE_BYTES > free:
            raise UpdateError(
                f"update: {self._root}: {free} bytes free, the bundle takes {size} and "
                f"{_SPARE_BYTES} stay free; make room"
            )
        shutil.rmtree(self._incoming, ignore_errors=True)
        self._make(self._incoming)
        copy = self._make(self._incoming / "bundle")
        limits = {file.name: file.size_bytes for file in files}
        limits |= {MANIFEST: bundles.MAX_MANIFEST_BYTES}
        if (source / SIGNATURE).exists():
            limits[SIGNATURE] = MAX_BYTES
        for name, limit in limits.items():
            failpoints.reach(f"copy {name}")
            _copy(source / name, copy / name, limit)
            self._own(copy / name)
        durable.sync_folder(copy)
        failpoints.reach("copied")
        return reader.load(copy, trust)

    def _into_store(self, bundle: Bundle, trust: Trust) -> None:
        place = self._store / bundle.sha256
        if place.exists():
            with contextlib.suppress(BundleError):
                if reader.load(place, trust).sha256 == bundle.sha256:
                    return
            # Damaged, or signed with a key that is no longer trusted.
            place.rename(self._incoming / "damaged")
        bundle.folder.rename(place)
        durable.sync_folder(self._store)
        failpoints.reach("in store")

    def _prune(self, record: UpdateRecord) -> None:
        for place in self._store.iterdir():
            if place.name not in record.kept:
                failpoints.reach("prune")
                # First out of the store: half a bundle must not have a whole one's name.
                gone = self._root / f"gone-{place.name}"
                shutil.rmtree(gone, ignore_errors=True)
                place.rename(gone)
        for gone in self._root.glob("gone-*"):
            shutil.rmtree(gone, ignore_errors=True)

    # The record.

    def _parsed(self) -> UpdateRecord:
        try:
            return durable.read_json(self._record, UpdateRecord, _MAX_RECORD_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return UpdateRecord()
        except OSError as error:
            raise ValueError(error.strerror) from None

    def _rebuilt(self) -> UpdateRecord:
        """The newest bundle in the store that is known to have run."""
        found = [
            (
                place.stat().st_mtime_ns,
                BundleSlot(sha256=ran.sha256, name=name, version=ran.version),
            )
            for name, ran in version_history.highest(self._state_dir).items()
            if (place := self._store / ran.sha256).is_dir()
        ]
        return UpdateRecord(active=max(found, key=lambda one: one[0])[1] if found else None)

    def _sound(self) -> tuple[UpdateRecord, bool]:
        """The record, and whether it was damaged; then the file is set aside."""
        try:
            return self._parsed(), False
        except ValueError:
            record = self.read()
            durable.set_aside(self._record)
            return record, True

    def _write(self, record: UpdateRecord) -> None:
        temporary = self._root / ".record.json.new"
        failpoints.reach(f"write {record.phase}")
        durable.write_json(temporary, record)
        self._own(temporary)
        failpoints.reach(f"replace {record.phase}")
        temporary.replace(self._record)
        durable.sync_folder(self._root)
        failpoints.reach(f"written {record.phase}")

    # Folders and locks.

    @contextlib.contextmanager
    def _locked(self, name: str, wait_s: float, busy: str) -> Iterator[None]:
        path = self._root / name
        with path.open("a") as file:
            self._own(path)
            until = time.monotonic() + wait_s
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= until:
                        raise UpdateError(f"update: {path}: {busy}; try again") from None
                time.sleep(0.02)
            yield

    def _make_folders(self) -> None:
        for folder in (self._state_dir, self._root, self._store):
            self._make(folder)

    def _make(self, folder: Path) -> Path:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            self._own(folder)
        return folder

    def _own(self, path: Path) -> None:
        """What root makes belongs to whom the state folder belongs: the agent must change it."""
        if os.geteuid() == 0:
            owner = self._state_dir.stat()
            os.chown(path, owner.st_uid, owner.st_gid)


def slot_of(bundle: Bundle, *, forced: bool = False) -> BundleSlot:
    manifest = bundle.manifest
    return BundleSlot(
        sha256=bundle.sha256, name=manifest.name, version=manifest.version, forced=forced
    )


def _copy(source: Path, target: Path, limit_bytes: int) -> None:
    with (
        open(source, "rb", opener=reader.no_link) as reading,
        target.open("xb") as writing,
    ):
        left = limit_bytes
        while left > 0 and (data := reading.read(min(left, 1 << 20))):
            writing.write(data)
            left -= len(data)
        writing.flush()
        os.fsync(writing.fileno())


def _on_disk(error: OSError) -> UpdateError:
    return UpdateError(
        f"update: {error.filename or 'the state folder'}: {error.strerror}; free the disk, or run "
        "as the agent's user"
    )
