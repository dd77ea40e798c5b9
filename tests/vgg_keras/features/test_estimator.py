"""`DeepFeatures` with the data frames, columns and checks of scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from vgg_keras.errors import ArgumentError
from vgg_keras.features import DeepFeatures


@pytest.fixture(scope="module")
def net(trained, folders):
    """A run folder, whose net is loaded once."""
    return folders[0]


@pytest.fixture(scope="module")
def paths(trained, source):
    return [str(path) for path in source["val"].paths][:3]


def features(net):
    return DeepFeatures(net, test_scales=32)


@pytest.fixture(scope="module")
def rows(net, paths):
    return features(net).fit_transform(paths)


COLUMNS = {
    "array": lambda paths: np.array(paths),
    "column": lambda paths: np.array(paths)[:, None],
    "lists": lambda paths: [[path] for path in paths],
    "series": lambda paths: pd.Series(paths),
    "frame": lambda paths: pd.DataFrame({"path": paths}),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_one_column_of_paths_has_several_forms(kind, net, paths, rows):
    transformer = features(net).fit(COLUMNS[kind](paths))
    assert transformer.n_features_in_ == 1
    assert hasattr(transformer, "feature_names_in_") == (kind == "frame")
    np.testing.assert_array_equal(transformer.transform(COLUMNS[kind](paths)), rows)


def test_what_is_not_a_column_is_refused(net, paths):
    transformer = features(net).fit(paths)
    for one in (paths[0], paths[0].encode()):
        with pytest.raises(ArgumentError, match=r"X must be a column of paths, such as \[path\]"):
            transformer.transform(one)
    two = pd.DataFrame({"path": paths, "x": 1.0})
    mixed = [Path(paths[0]), (paths[1],)]
    for table in (two, two.to_numpy(), two.to_numpy().tolist(), mixed):
        with pytest.raises(ArgumentError, match="must have one column"):
            transformer.fit(table)


def test_outputs_have_names(net, paths, rows):
    frame = pd.DataFrame({"path": paths, "price": [1.0, 2.0, 3.0]}, index=[5, 6, 7])
    columns = make_column_transformer((features(net), ["path"]), ("passthrough", ["price"]))
    found = columns.set_output(transform="pandas").fit_transform(frame)
    names = [f"deepfeatures__deepfeatures{i}" for i in range(rows.shape[1])]
    assert [*found.columns] == [*names, "passthrough__price"]
    assert [*found.index] == [5, 6, 7]
    np.testing.assert_array_equal(found[names], rows)
    scaled = make_pipeline(features(net), StandardScaler()).set_output(transform="pandas")
    assert [*scaled.fit_transform(paths).columns] == [name.split("__")[1] for name in names]
    stack = DeepFeatures(net, test_scales=(32, 40), aggregate="stack").fit(paths)
    assert stack.get_feature_names_out().size == 2 * rows.shape[1]


def test_arguments_are_checked_when_fitted(net, paths):
    with pytest.raises(ArgumentError, match="aggregate"):
        DeepFeatures(net, aggregate="sum").fit(paths)


# Checks that call `transform`, or look for an error of `fit`, with numbers instead of paths.
ON_NUMBERS = {
    "check_dict_unchanged",
    "check_dont_overwrite_parameters",
    "check_estimator_sparse_array",
    "check_estimator_sparse_matrix",
    "check_estimator_sparse_tag",
    "check_estimators_dtypes",
    "check_estimators_pickle",
    "check_f_contiguous_array_estimator",
    "check_fit2d_1feature",
    "check_fit2d_1sample",
    "check_fit_idempotent",
    "check_fit_score_takes_y",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
    "check_pipeline_consistency",
    "check_transformer_general",
    "check_transformer_preserve_dtypes",
}


class _OfTables(DeepFeatures):
    """Scikit-learn has checks only for estimators of tables."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags


def test_checks_of_scikit_learn(folders, trained):
    results = check_estimator(_OfTables(str(folders[0])), on_fail=None, on_skip=None)
    by_status = {
        status: {r["check_name"] for r in results if r["status"] == status}
        for status in ("passed", "failed")
    }
    assert by_status["failed"] <= ON_NUMBERS
    assert len(by_status["passed"]) >= 18
