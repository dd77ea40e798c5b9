"""Files of cached rows that several processes open at once."""

from __future__ import annotations

import multiprocessing

import numpy as np

from vgg_keras.evaluation.cache import open_row_cache


def fill_often(folder, barrier, row, failures):
    """Opens 30 new tables, each at the same time as another process, and fills a row of each."""
    for i in range(30):
        barrier.wait()
        try:
            table = open_row_cache(folder, f"dense-{i}", ["same", i], (2, 10))
            table[row] = 0.1
            table.flush()
        except OSError as error:
            failures.put(str(error))


def test_processes_that_open_the_same_table_share_its_rows(tmp_path):
    spawn = multiprocessing.get_context("spawn")  # TensorFlow's threads do not survive a fork
    barrier, failures = spawn.Barrier(2), spawn.Queue()
    pair = [
        spawn.Process(target=fill_often, args=(tmp_path, barrier, row, failures)) for row in (0, 1)
    ]
    for process in pair:
        process.start()
    for process in pair:
        process.join()
    assert failures.empty()
    tables = [np.load(file) for file in tmp_path.glob("*.npy")]
    assert len(tables) == 30
    np.testing.assert_array_equal(tables, np.full((30, 2, 10), 0.1, np.float32))
