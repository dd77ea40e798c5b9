"""The paper's claims on depth, tested on the runs of `depth.py`.

    python benchmarks/depth_claims.py benchmarks/results/depth.jsonl --epochs 60

Prints a Markdown table: the gain in points for each claim and test, with a 95 % interval over seeds
and images, and the verdict. The runs have S in [73;146], so each claim takes the nets of its first
pair, whatever their S. The paper's gain from test scales is a mean over nets, so the rows of single
nets are without it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vgg_keras.report.rendering import render
from vgg_keras.report.tables import Table
from vgg_keras.reproduction.claims import CLAIMS, Claim
from vgg_keras.reproduction.paired import Difference, paired_difference
from vgg_keras.reproduction.verdicts import verdict

SINGLE, SEVERAL = "dense", "dense, three scales"
CLAIMS_ON_NETS = (
    "lrn",
    "depth-a-b",
    "depth-b-d",
    "depth-a-e",
    "saturation",
    "non-linearity",
    "spatial-context",
)
Runs = dict[tuple[str, int], dict[str, np.ndarray]]  # right images by net, seed and test


def read_runs(file: Path, epochs: int) -> Runs:
    """Which images each run was right on, bool `(N,)`, by test."""
    runs = {}
    for line in map(json.loads, file.read_text().splitlines()):
        if line["epochs"] == epochs:
            runs[line["net"], line["seed"]] = {
                test: _bits(bits, line["top1_errors"][test]) for test, bits in line["right"].items()
            }
    return runs


def _bits(text: str, error: float) -> np.ndarray:
    """The bits of a hex number without those that fill its last byte."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))
    return bits[: round(bits.sum() / (1 - error / 100))].astype(bool)


def difference(runs: Runs, pairs: list[tuple[tuple[str, str], ...]]) -> Difference | None:
    """The mean difference over pairs of (net, test), for the seeds that all have."""
    seeds = {seed for _, seed in runs}
    common = sorted(
        seed for seed in seeds if all((net, seed) in runs for pair in pairs for net, _ in pair)
    )
    if not common:
        return None
    sides = [
        [np.mean([runs[net, seed][test] for net, test in side], 0) for seed in common]
        for side in zip(*pairs, strict=True)
    ]
    return paired_difference(*map(np.array, sides))


def rows(runs: Runs) -> Iterator[tuple]:
    """The rows of the table."""
    claims = {claim.id: claim for claim in CLAIMS}
    for name in CLAIMS_ON_NETS:
        baseline, variant = (side.row.tested[0].net for side in claims[name].sides[:2])
        for test in next(iter(runs.values())):
            found = difference(runs, [((baseline, test), (variant, test))])
            yield _row(claims[name], test, found, claims[name].papers_gain())
    nets = {net for net, _ in runs}
    pairs = [((net, SINGLE), (net, SEVERAL)) for net in sorted(nets)]
    scales = claims["test-scales"]
    for pair in pairs:
        yield _row(scales, f"net {pair[0][0]}, dense", difference(runs, [pair]), None)
    yield _row(scales, "all nets, dense", difference(runs, pairs), scales.papers_gain())


def _row(claim: Claim, test: str, found: Difference | None, papers_gain: float | None) -> tuple:
    says = (f"{claim.statement} (§{claim.section})", test, papers_gain)
    if found is None:
        return (*says, None, None, "missing", None)
    interval = f"{found.low:.1f} to {found.high:.1f}"
    return (*says, found.points, interval, verdict(claim, found), found.seeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path, help="File that depth.py wrote.")
    parser.add_argument("--epochs", type=int, default=60, help="Test the runs of so many epochs.")
    options = parser.parse_args()
    header = ("the paper says", "test", "its gain", "our gain", "95 % interval", "verdict", "seeds")
    found = tuple(rows(read_runs(options.file, options.epochs)))
    print(render(Table(None, f"{options.epochs} epochs", header, found), "markdown"), end="")


if __name__ == "__main__":
    main()
