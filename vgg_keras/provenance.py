"""Records the environment of a run: versions of packages, platform and commit."""

from __future__ import annotations

import contextlib
import json
import logging
import platform
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import keras

from vgg_keras.errors import RunError
from vgg_keras.pipelines.contents import read_json
from vgg_keras.pipelines.files import atomic_write
from vgg_keras.run_files import ENVIRONMENT

_PACKAGES = ("vgg_keras", "tensorflow", "keras", "tensorflow-datasets", "numpy")

log = logging.getLogger(__name__)


def record_environment(path: Path) -> None:
    """Writes the environment into a run folder, if the folder has none yet.

    Raises:
        WriteError: the file cannot be written.
    """
    if not (path / ENVIRONMENT).exists():
        atomic_write(path / ENVIRONMENT, json.dumps(_environment(), indent=2) + "\n")


def warn_of_other_versions(path: Path) -> None:
    """Logs a warning if versions of packages have changed since the run was started.

    A run that continues with other versions is not bit-identical to a run without interruption. A
    missing or damaged record is a warning too.
    """
    try:
        recorded = read_json(path / ENVIRONMENT, _Environment, RunError)["packages"]
    except RunError as error:
        log.warning(
            "%s. It is not known with which versions of packages the run was started; results may "
            "differ from those of a run that was not interrupted",
            error,
        )
        return
    now = _versions()
    changed = [f"{n} {v} -> {now[n]}" for n, v in recorded.items() if n in now and now[n] != v]
    if changed:
        log.warning(
            "%s was started with other versions (%s); results may differ from those of a run that "
            "was not interrupted",
            path,
            ", ".join(changed),
        )


def platforms_of(runs: Iterable[Path]) -> list[str]:
    """The platforms and TensorFlow versions that runs were trained with, each once.

    Runs without a record are ignored.
    """
    found = []
    for run in runs:
        with contextlib.suppress(RunError):
            recorded = read_json(run / ENVIRONMENT, _Environment, RunError)
            version = recorded["packages"].get("tensorflow")
            found.append(f"{recorded.get('platform', '?')}, TensorFlow {version or '?'}")
    return list(dict.fromkeys(found))


class _Environment(TypedDict):
    packages: dict[str, str | None]
    platform: NotRequired[str]


def _environment() -> dict[str, Any]:
    return {
        "packages": _versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "backend": keras.backend.backend(),
        "git_commit": git_commit(),
    }


def _versions() -> dict[str, str | None]:
    return {name: _version(name) for name in _PACKAGES}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """Commit of the code, with `-dirty` if files differ; None outside a checkout of the code."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git(
            "ls-files", "--error-unmatch", Path(__file__).name
        )  # fails in a checkout of another project
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
