"""Time and memory of the conversion of weights.

    python benchmarks/weights.py [FILE...] [--out FILE.json]

Each file is converted to each kind in a new process. Its peak resident memory is reported as a
multiple of the size of the weights. Without files, net D with random weights is converted from
each kind that can be written. The benchmark needs Linux for the peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from measuring import machine, report

from vgg_keras import vgg, weights

CONVERT = """
import json, sys, time
from vgg_keras import weights
started = time.perf_counter()
found = weights.convert(sys.argv[1], sys.argv[2])
status = open("/proc/self/status").read()
print(json.dumps({
    "seconds": time.perf_counter() - started,
    "peak_bytes": 1024 * int(status.split("VmHWM:")[1].split()[0]),
    "net": found.net,
}))
"""


def measure_conversion(source: Path, target: Path) -> dict:
    """Converts a file in a new process and returns its figures."""
    done = subprocess.run(
        [sys.executable, "-c", CONVERT, source, target], check=True, stdout=subprocess.PIPE
    )
    size = target.stat().st_size
    target.unlink()
    figures = json.loads(done.stdout)
    return {
        "source": source.name,
        "target": target.name,
        **figures,
        "weights_bytes": size,
        "memory_ratio": figures["peak_bytes"] / size,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help="Weights files.")
    parser.add_argument("--out", type=Path, help="JSON file for the results.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = arguments.files
        if not files:
            files = [Path(folder) / f"d{ending}" for ending in weights.TARGETS]
            model = vgg("D")
            for file in files:
                weights.save(model, file)
        runs = [
            measure_conversion(file, Path(folder) / f"out{ending}")
            for file in files
            for ending in weights.TARGETS
        ]
    rows = [(r["source"], r["target"], r["net"], r["seconds"], r["memory_ratio"]) for r in runs]
    columns = ("from", "to", "net", "seconds", "memory / weights")
    report(
        {"benchmark": "weights", "machine": machine(), "runs": runs}, rows, columns, arguments.out
    )


if __name__ == "__main__":
    main()
