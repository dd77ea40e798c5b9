"""The steps of a plan: ordinary runs, prediction files and results, as data.

This module does not import TensorFlow.
"""

from __future__ import annotations

from dataclasses import dataclass

from vgg_keras.recipes import Recipe


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a plan.

    Attributes:
        name: unique name, such as "train D-384-seed1".
        output: the file or run folder that the step makes, below the folder of the plan.
        needs: names of the steps whose outputs it takes.
        rows: rows of the paper's tables that the output stands beside, as pairs of the number of
            the table and the index in `options.ROWS`.
    """

    name: str
    output: str
    needs: tuple[str, ...] = ()
    rows: tuple[tuple[int, int], ...] = ()

    @property
    def tables(self) -> tuple[int, ...]:
        """Numbers of the tables that the output stands in."""
        return tuple(sorted({number for number, _ in self.rows}))

    @property
    def lock(self) -> str:
        """Name of the lock: two steps with the same lock never run at the same time."""
        return self.name


@dataclass(frozen=True, kw_only=True)
class Train(Step):
    """Trains a net, for classification or localisation.

    Attributes:
        recipe: its `init_from` is the output of another step, or empty.
    """

    recipe: Recipe


@dataclass(frozen=True, kw_only=True)
class Evaluate(Step):
    """Computes the predictions of a net, at the paper's test scales (`Procedure`).

    Attributes:
        run: run folder.
        protocol: a name of `PROTOCOLS`.
        multi_scale: whether to test at several scales.
    """

    run: str
    protocol: str
    multi_scale: bool

    @property
    def lock(self) -> str:
        # Protocols share passes: two processes would compute them twice.
        return f"evaluate {self.run}"


@dataclass(frozen=True, kw_only=True)
class Fuse(Step):
    """Averages predictions.

    Attributes:
        files: prediction files.
    """

    files: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Localise(Step):
    """Tests localisation nets.

    Attributes:
        runs: run folders of localisation nets.
        classifiers: run folders of the nets that rate the boxes.
        protocol: a name of `LOCALISATION_PROTOCOLS`.
        test_scales: Q for each of `runs`.
    """

    runs: tuple[str, ...]
    classifiers: tuple[str, ...]
    protocol: str
    test_scales: tuple[tuple[int, ...], ...]

    @property
    def lock(self) -> str:
        # The rows of a seed share the posteriors of its classifiers.
        return f"localise {self.output.rpartition('-')[2].removesuffix('.json')}"


@dataclass(frozen=True, kw_only=True)
class ExtractFeatures(Step):
    """Computes descriptors of other data.

    Attributes:
        run: run folder.
        data: the other data.
        test_scales: Q.
        aggregate: how the descriptors of several scales are combined.
    """

    run: str
    data: str
    test_scales: tuple[int, ...]
    aggregate: str

    @property
    def lock(self) -> str:
        return f"features {self.run}"


@dataclass(frozen=True, kw_only=True)
class Transfer(Step):
    """Scores descriptors with linear SVMs.

    Attributes:
        files: files of features, which are stacked.
        protocol: a name of `TRANSFER_PROTOCOLS`, or "custom".
    """

    files: tuple[str, ...]
    protocol: str
