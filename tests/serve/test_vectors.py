"""Keys and bytes: what readers in other languages rely on."""

import numpy as np
import pytest

from serve import vectors


def test_the_keys_are_those_of_the_contract() -> None:
    assert vectors.title_key("main", "m 1") == "upwell:main:t:m 1"
    assert vectors.meta_key("main") == "upwell:main:meta"
    assert vectors.updates_key("main") == "upwell:main:updates"
    assert vectors.worker_key("worker-0") == "upwell:worker:worker-0"


def test_a_vector_is_little_endian_float32_without_a_header() -> None:
    vector = np.array([1.0, -2.5], ">f4")

    assert vectors.encode(vector) == bytes.fromhex("0000803f000020c0")


def test_a_vector_comes_back_as_it_went() -> None:
    vector = np.linspace(-1, 1, 7, dtype=np.float32)

    np.testing.assert_array_equal(vectors.decode(vectors.encode(vector), 7), vector)


def test_a_vector_of_another_length_is_refused_with_both_lengths() -> None:
    with pytest.raises(ValueError, match="2 float32 has 8 bytes, but this has 12"):
        vectors.decode(bytes(12), 2)
    with pytest.raises(ValueError, match="vector 1 of 2 has 12 bytes, but 2 float32 have 8"):
        vectors.decode_rows([bytes(8), bytes(12)], 2)


def test_what_is_not_there_is_a_row_of_zeros_that_was_not_found() -> None:
    matrix, found = vectors.decode_rows([None, vectors.encode(np.ones(2, np.float32))], 2)

    np.testing.assert_array_equal(matrix, [[0, 0], [1, 1]])
    np.testing.assert_array_equal(found, [False, True])


@pytest.mark.parametrize("space", ["", "a:b", "{a}", "a*", "x" * 65, "worker", "a b"])
def test_a_space_that_would_break_a_key_or_a_scan_is_refused(space: str) -> None:
    with pytest.raises(ValueError, match="space"):
        vectors.check_space(space)
