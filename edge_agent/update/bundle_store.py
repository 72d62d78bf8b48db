"""Bundle store and update record on the disk, below `<state_dir>/update`.

`store/<sha256 of bundle.json>/` holds whole, verified bundles only. A bundle is synced before the
record that names it, and is removed only after a record that no longer names it.
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
"""Limit for one bundle; all artifacts of two large networks take a tenth of it."""
_SPARE_BYTES = 64 << 20
"""Free disk space kept for the spool and the rest of the machine."""
_LOCK_WAIT_S = 5.0

_log = logging.getLogger(__name__)


class BundleStore:
    """Store of bundles and of the update record; agent and commands share it under file locks."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._root = state_dir / "update"
        self._record, self._store = self._root / "record.json", self._root / "store"
        self._incoming = self._root / "incoming"

    def folder(self, slot: BundleSlot) -> Path:
        """Return the folder of a bundle in the store."""
        return self._store / slot.sha256

    @property
    def damaged(self) -> bool:
        """Return True if the record exists and is unusable; the next change rebuilds it."""
        try:
            self._parsed()
        except ValueError:
            return True
        return False

    def mark(self) -> tuple[int, int] | None:
        """Return a value that differs after each change of the record; None without a record."""
        try:
            found = self._record.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def read(self) -> UpdateRecord:
        """Return the record; rebuild a damaged one from the bundles that ran here, and log it."""
        try:
            return self._parsed()
        except ValueError as error:
            _log.error("%s: %s; made anew from the versions that ran here", self._record, error)
            return self._rebuilt()

    def change(self, to: Callable[[UpdateRecord], UpdateRecord]) -> UpdateRecord:
        """Write the record that `to` returns, and remove bundles it does not name."""
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
        """Copy a verified bundle into the store and write the record that `to` returns for it.

        Args:
            source: The bundle's folder.
            trust: Keys that the bundle's signature is verified with.
            to: Called with the record and the copied bundle; returns the record to write.

        Returns:
            The record that was written.

        Raises:
            BundleError: The bundle may not run here.
            UpdateError: The record does not allow it, or the disk cannot be written.
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
        """Remove the leftovers of a crash; do nothing if there never was an update."""
        if not self._root.is_dir():
            return
        try:
            with self._locked("staging.lock", 0, "another bundle is being staged"):
                shutil.rmtree(self._incoming, ignore_errors=True)
        except (OSError, UpdateError) as error:
            _log.info("%s", error)
        self.change(lambda record: record)

    # Bundles

    def _copied(self, source: Path, trust: Trust) -> Bundle:
        """Copy the files that the manifest names, and verify the copy, not the source."""
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
        """Move the copied bundle into the store; replace a damaged one of the same hash."""
        place = self._store / bundle.sha256
        if place.exists():
            with contextlib.suppress(BundleError):
                if reader.load(place, trust).sha256 == bundle.sha256:
                    return
            # The stored copy is damaged, or its key is no longer trusted.
            place.rename(self._incoming / "damaged")
        bundle.folder.rename(place)
        durable.sync_folder(self._store)
        failpoints.reach("in store")

    def _prune(self, record: UpdateRecord) -> None:
        """Remove the bundles that the record does not name."""
        for place in self._store.iterdir():
            if place.name not in record.kept:
                failpoints.reach("prune")
                # Rename first: a partly deleted bundle must not keep a valid name.
                gone = self._root / f"gone-{place.name}"
                shutil.rmtree(gone, ignore_errors=True)
                place.rename(gone)
        for gone in self._root.glob("gone-*"):
            shutil.rmtree(gone, ignore_errors=True)

    # Record

    def _parsed(self) -> UpdateRecord:
        """Return the record, empty without a file; raise ValueError if it is unusable."""
        try:
            return durable.read_json(self._record, UpdateRecord, _MAX_RECORD_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return UpdateRecord()
        except OSError as error:
            raise ValueError(error.strerror) from None

    def _rebuilt(self) -> UpdateRecord:
        """Return a record whose active bundle is the newest stored one that ran here."""
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
        """Return the record and True if it was damaged; quarantine the damaged file."""
        try:
            return self._parsed(), False
        except ValueError:
            record = self.read()
            durable.set_aside(self._record)
            return record, True

    def _write(self, record: UpdateRecord) -> None:
        """Replace the record file atomically and durably. Raises OSError."""
        temporary = self._root / ".record.json.new"
        failpoints.reach(f"write {record.phase}")
        durable.write_json(temporary, record)
        self._own(temporary)
        failpoints.reach(f"replace {record.phase}")
        temporary.replace(self._record)
        durable.sync_folder(self._root)
        failpoints.reach(f"written {record.phase}")

    # Folders and locks

    @contextlib.contextmanager
    def _locked(self, name: str, wait_s: float, busy: str) -> Iterator[None]:
        """Hold a file lock; raise UpdateError with `busy` if it is not free within `wait_s`."""
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
        """Create a folder that does not exist, with the owner of the state folder."""
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            self._own(folder)
        return folder

    def _own(self, path: Path) -> None:
        """Give a path made by root to the owner of the state folder: the agent must change it."""
        if os.geteuid() == 0:
            owner = self._state_dir.stat()
            os.chown(path, owner.st_uid, owner.st_gid)


def slot_of(bundle: Bundle, *, forced: bool = False) -> BundleSlot:
    """Return the record entry of a bundle; `forced` permits an older version."""
    manifest = bundle.manifest
    return BundleSlot(
        sha256=bundle.sha256, name=manifest.name, version=manifest.version, forced=forced
    )


def _copy(source: Path, target: Path, limit_bytes: int) -> None:
    """Copy at most `limit_bytes` of a plain file and sync it; a link is refused."""
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
    """Return the UpdateError that reports a disk error."""
    where, fix = error.filename or "the state folder", "free the disk, or run as the agent's user"
    return UpdateError(f"update: {where}: {error.strerror}; {fix}")
