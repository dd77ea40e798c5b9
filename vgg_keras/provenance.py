"""With what a run is made: versions of packages, platform and commit."""

from __future__ import annotations

import json
import logging
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import keras

from vgg_keras.pipelines.files import atomic_write
from vgg_keras.run_files import ENVIRONMENT

_PACKAGES = ("vgg_keras", "tensorflow", "keras", "tensorflow-datasets", "numpy")

log = logging.getLogger(__name__)


def record(path: Path) -> None:
    """Writes them into a run folder, where they are not there yet.

    Raises:
        OSError: see `atomic_write`.
    """
    if not (path / ENVIRONMENT).exists():
        atomic_write(path / ENVIRONMENT, json.dumps(_environment(), indent=2) + "\n")


def warn_of_other_versions(path: Path) -> None:
    """Logs which packages have changed since the run was begun: it no longer goes on to the bit."""
    begun_with = json.loads((path / ENVIRONMENT).read_text())["packages"]
    now = _versions()
    changed = [f"{n} {v} -> {now[n]}" for n, v in begun_with.items() if n in now and now[n] != v]
    if changed:
        log.warning(
            "%s was begun with other versions (%s); results may differ from those of a run that "
            "was not interrupted",
            path,
            ", ".join(changed),
        )


def _environment() -> dict:
    return {
        "packages": _versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "backend": keras.backend.backend(),
        "git_commit": _git_commit(),
    }


def _versions() -> dict[str, str | None]:
    return {name: _version(name) for name in _PACKAGES}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """Commit of the code where it runs from its own checkout, `-dirty` where files differ."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # not a checkout around a venv
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
