"""Hold the pinned packages against the known vulnerabilities, with pip-audit.

Exit code 1 when one is affected. What could not be looked up is said and is no finding: a machine
without a network, or with an index that has no such data, still builds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

_LIMIT_S = 120


def main(pins: str) -> int:
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--no-deps"]
    command += ["--format", "json", "--progress-spinner", "off", "-r", pins]
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, check=False, timeout=_LIMIT_S
        )
    except subprocess.TimeoutExpired:
        print(f"audit: skipped, the database did not answer within {_LIMIT_S} s")
        return 0
    try:
        report = json.loads(done.stdout)
    except ValueError:  # no report at all: its last line says why
        why = (done.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1]
        # requests' errors are named so; anything else is a fault of ours, a bad pin for one.
        if any(word in why for word in ("requests.exceptions.", "ConnectionError", "ServiceError")):
            print("audit: skipped, the database cannot be reached")
            return 0
        print(f"audit: failed: {why}", file=sys.stderr)
        return 1
    text, code = verdict(report)
    print(text)
    return code


def verdict(report: dict[str, Any]) -> tuple[str, int]:
    """pip-audit's report in lines, and the exit code. None looked up is not none affected."""
    packages = report["dependencies"]
    found = [p for p in packages if "vulns" in p]
    if not found:
        return f"audit: skipped, the index knows nothing of any of {len(packages)} packages", 0
    lines = [
        f"{p['name']} {p['version']}: {v['id']}, fixed in {', '.join(v['fix_versions']) or 'none'}"
        for p in found
        for v in p["vulns"]
    ]
    affected = sum(bool(p["vulns"]) for p in found)
    unknown = len(packages) - len(found)
    lines.append(
        f"audit: {affected} of {len(found)} packages affected"
        + (f", {unknown} could not be looked up" if unknown else "")
    )
    return "\n".join(lines), int(affected > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
