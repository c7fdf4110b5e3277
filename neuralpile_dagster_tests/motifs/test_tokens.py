"""Encoding rows as tokens and back: exact for motifs of the vocabulary, total for all others."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import neuralpile_dagster.motifs
from neuralpile_dagster.errors import InvalidArray
from neuralpile_dagster.motifs import Tokenizer, decode, deinterleave, encode, interleave
from neuralpile_dagster.motifs.counts import patches_of
from neuralpile_dagster.motifs.records import MotifShape
from neuralpile_dagster.store import LocalStore
from neuralpile_dagster_tests.fixtures.tokens import (
    as_patches,
    bursty_counts,
    counted,
    patches_by_loops,
    put_vocabulary,
    scores,
    upstream_nearest,
)
from neuralpile_dagster_tests.test_public_names import modules_after

SHAPES = [MotifShape(1, 15), MotifShape(1, 1), MotifShape(2, 3), MotifShape(4, 8), MotifShape(3, 7)]
PUBLISHED = MotifShape(1, 15)


def tokenizer_of(rows: list[np.ndarray], shape: MotifShape, size: int | None = None) -> Tokenizer:
    """Of silence and the most frequent other motifs of rows."""
    motifs = counted(rows, shape)
    del motifs[bytes(shape.cells)]
    chosen = [bytes(shape.cells), *(motif for motif, _ in motifs.most_common(size))]
    return Tokenizer.of(as_patches(chosen, shape), (shape.n_units, shape.n_bins))


counts = st.builds(
    lambda seed, n_units, n_bins, largest: (
        np.random.default_rng(seed).poisson(0.3, (n_units, n_bins)) * largest
    ).astype(np.uint8),
    st.integers(0, 2**32),
    st.integers(0, 7),
    st.integers(0, 40),
    st.sampled_from([1, 3, 16, 60]),
)


@settings(max_examples=60)
@given(counts, st.sampled_from(SHAPES))
def test_motifs_of_the_vocabulary_decode_to_what_was_encoded(row: np.ndarray, shape: MotifShape) -> None:
    tokenizer = tokenizer_of([row], shape)
    tokens = encode(row, tokenizer)
    assert tokens.shape == shape.grid(*row.shape)
    assert tokens.dtype == np.uint16
    decoded = decode(tokens, tokenizer, row.shape[1], row.shape[0])
    np.testing.assert_array_equal(decoded, row)
    assert decoded.dtype == np.uint8


@settings(max_examples=60)
@given(counts, counts, st.sampled_from(SHAPES), st.integers(0, 9))
def test_any_row_can_be_encoded_with_any_vocabulary(
    row: np.ndarray, other: np.ndarray, shape: MotifShape, size: int
) -> None:
    tokenizer = tokenizer_of([other], shape, size)
    tokens, n_exact = tokenizer.encode_row(row)
    assert tokens.max(initial=0) < tokenizer.sep_id
    known = {motif.tobytes() for motif in tokenizer.motifs}
    patches = patches_by_loops(row, shape)
    assert n_exact == sum(patch in known for patch in patches)
    again = encode(decode(tokens, tokenizer, *row.shape[::-1]), tokenizer)
    grid = shape.grid(*row.shape)
    whole = (row.shape[0] // shape.n_units, row.shape[1] // shape.n_bins)
    assert again.shape == grid
    np.testing.assert_array_equal(again[: whole[0], : whole[1]], tokens[: whole[0], : whole[1]])


def test_a_row_of_upstream_shape_has_a_token_per_unit_and_15_bins() -> None:
    row = bursty_counts(9, 2003)
    assert encode(row, tokenizer_of([row], PUBLISHED)).shape == (9, -(-2003 // 15))


def test_tokens_are_those_of_the_published_rule_but_for_near_ties() -> None:
    row = bursty_counts(60, 6000)
    tokenizer = tokenizer_of([row], PUBLISHED, 300)
    patches = as_patches(patches_by_loops(row, PUBLISHED), PUBLISHED)
    known = {motif.tobytes(): token for token, motif in enumerate(tokenizer.motifs)}
    published = upstream_nearest(patches, tokenizer.motifs)
    for place, patch in enumerate(patches):
        published[place] = known.get(patch.tobytes(), published[place])
    ours = encode(row, tokenizer).reshape(-1)
    differ = np.flatnonzero(ours != published)
    assert 0 < len(differ) < len(ours) / 20
    better = scores(patches, tokenizer.motifs, ours) - scores(patches, tokenizer.motifs, published)
    assert np.abs(better[differ]).max() < 1e-6
    assert better.min() > -1e-12


def test_the_share_of_exact_tokens_is_the_coverage_of_the_vocabulary(tmp_path: Path) -> None:
    rows = [bursty_counts(20, 3001, seed) for seed in range(3)]
    record, vocabulary = put_vocabulary(LocalStore(tmp_path), counted(rows, PUBLISHED), PUBLISHED, 80)
    found = [Tokenizer(vocabulary).encode_row(row) for row in rows]
    assert sum(exact for _, exact in found) / sum(tokens.size for tokens, _ in found) == pytest.approx(record.coverage)
    assert sum(exact for _, exact in found) == record.frequency


def test_counts_in_bins_of_another_width_than_those_of_the_motifs_are_refused(tmp_path: Path) -> None:
    row = bursty_counts(20, 300)
    _, of_60_hz = put_vocabulary(LocalStore(tmp_path), counted([row], PUBLISHED), PUBLISHED, 80, bin_width_s=1 / 60)
    tokenizer, unstated = Tokenizer(of_60_hz), tokenizer_of([row], PUBLISHED)
    assert (tokenizer.bin_width_s, unstated.bin_width_s) == (1 / 60, None)
    for width in (1 / 60, 0.016667, None):
        assert np.array_equal(encode(row, tokenizer, width), encode(row, tokenizer))
    with pytest.raises(InvalidArray, match=r"bins of different widths; found: counts in bins of 0\.02 s.*0\.0166667 s"):
        encode(row, tokenizer, bin_width_s=0.02)
    assert np.array_equal(encode(row, unstated, bin_width_s=0.02), encode(row, unstated))


def test_more_than_65535_motifs_give_tokens_of_32_bits() -> None:
    tokenizer = Tokenizer.of(patches_of(np.arange(70_000, dtype=np.uint64), 5), (1, 5))
    row = bursty_counts(4, 200) % np.uint8(16)
    row[0, :5] = 1, 1, 1, 1, 1  # above the last motif, 0x1116f
    tokens = encode(row, tokenizer)
    assert tokens.dtype == np.uint32
    assert tokens.max() > 1 << 16
    assert tokens.max() < tokenizer.sep_id == 70_000


def test_the_sequence_of_a_row_begins_every_time_step_with_the_separator() -> None:
    tokens = np.random.default_rng(0).integers(0, 99, (7, 11)).astype(np.uint16)
    expected = []
    for step in range(11):
        expected.append(99)
        expected.extend(tokens[unit, step] for unit in range(7))
    sequence = interleave(tokens, 99)
    assert sequence.tolist() == expected
    assert sequence.dtype == np.uint16
    np.testing.assert_array_equal(deinterleave(sequence, 7, 99), tokens)
    assert deinterleave(sequence, 7, 99).dtype == np.uint16


@pytest.mark.parametrize("shape", [(3, 0), (0, 3), (1, 1)])
def test_an_interleaved_row_of_any_size_comes_back(shape: tuple[int, int]) -> None:
    again = deinterleave(interleave(np.ones(shape, np.uint16), 4), shape[0], 4)
    np.testing.assert_array_equal(again, np.ones(shape))


@pytest.mark.parametrize(
    ("sequence", "message"),
    [
        ([4, 2, 0, 4, 3], r"not whole; found: 1 of 2 units .*: add 1 token, or cut the step off: sequence\[:3\]\.$"),
        ([2, 0, 4, 3, 1, 4], "token 2 at place 0; expected: the separator, 4, at places 0, 3, 6 and so on"),
        ([4, 2, 0, 1, 4, 2, 0, 1], "found: token 1 at place 3"),
        ([4, 2, 4, 2], "found: the separator at place 2"),
        ([[4, 2, 0]], r"found: int64 of shape \(1, 3\); expected: an array of one dimension"),
    ],
)
def test_a_sequence_that_is_not_one_of_so_many_units_is_refused(sequence: list[int], message: str) -> None:
    with pytest.raises(InvalidArray, match=message):
        deinterleave(np.array(sequence), 2, sep=4)


@pytest.mark.parametrize(
    ("motifs", "message"),
    [
        (np.array([[0, 0], [0, 300]]), "out of range; found: 0 to 300; expected: 0 to 255"),
        ([[0, 0], [0, 256]], "found: 0 to 256"),
        ([[0, 0], [0, -1]], "found: -1 to 0"),
        ([[0, 0], [0, 1.7]], "not integers; found: float64"),
        ([[0, 0], [1, 0], [2, 0], [1, 0]], r"two motifs are equal; found: motifs 1 and 3 are \[1, 0\]"),
        ([[1, 0], [0, 1]], r"the patch without a spike among them.*; what to do: add \[0, 0\]"),
        ([], "there are no motifs"),
        ([[0, 0], [1]], "the motifs are of several shapes"),
        ([[0, 0, 0]], r"not motifs of 1x2; found: int64 of shape \(1, 3\); expected: counts of shape \(n_motifs, 2\)"),
    ],
)
def test_a_vocabulary_is_of_the_motifs_that_were_given_or_refused(motifs: Any, message: str) -> None:
    with pytest.raises(InvalidArray, match=message):
        Tokenizer.of(motifs, (1, 2))


def test_motifs_of_any_type_of_integer_are_the_same_vocabulary() -> None:
    motifs = [[0, 0], [255, 1], [0, 2]]
    for same in (motifs, np.array(motifs), np.array(motifs).reshape(3, 1, 2), np.array(motifs, np.uint8)):
        tokenizer = Tokenizer.of(same, (1, 2))
        assert tokenizer.motifs.tolist() == motifs
        assert tokenizer.motifs.dtype == np.uint8


def test_what_cannot_be_encoded_or_decoded_is_refused() -> None:
    row = bursty_counts(3, 31)
    tokenizer = tokenizer_of([row], MotifShape(2, 6))
    tokens = encode(row, tokenizer)
    for wrong in (row.astype(np.int64), row[0]):
        with pytest.raises(InvalidArray, match="expected: a numpy array of uint8, units x bins"):
            encode(wrong, tokenizer)
    with pytest.raises(InvalidArray, match=r"4 units x 37 bins in patches of 2x6.* n_bins=31 to 36 and n_units=3"):
        decode(tokens, tokenizer, 37)
    with pytest.raises(ValueError, match=r"5 units x 31 bins.*tokens of shape \(3, 6\)"):
        decode(tokens, tokenizer, 31, n_units=5)
    with pytest.raises(InvalidArray, match=r"the separator, .* expected: 0 to .* deinterleave"):
        decode(np.where(tokens == tokens[0, 0], tokenizer.sep_id, tokens), tokenizer, 31)


@pytest.mark.parametrize("given", [[[0, 1]], Path("counts.parquet"), pd.DataFrame([[0, 1]]), np.ones((1, 2))])
def test_what_is_no_array_of_integers_is_refused_with_its_type(given: Any) -> None:
    tokenizer = Tokenizer.of([[0, 0], [1, 0]], (1, 2))
    found = "float64 of shape" if isinstance(given, np.ndarray) else type(given).__name__
    uses: list[Callable[[], object]] = [
        lambda: encode(given, tokenizer),
        lambda: decode(given, tokenizer, 2),
        lambda: interleave(given, tokenizer.sep_id),
        lambda: deinterleave(given, 1, tokenizer.sep_id),
    ]
    for use in uses:
        with pytest.raises(InvalidArray, match=f"found: .*{found}.*; expected: a numpy array of "):
            use()


def test_a_sequence_given_as_a_row_of_tokens_points_to_its_inverse() -> None:
    tokenizer = Tokenizer.of([[0, 0], [1, 0]], (1, 2))
    sequence = interleave(np.array([[0, 1]]), tokenizer.sep_id)
    for use in (lambda: decode(sequence, tokenizer, 4), lambda: interleave(sequence, tokenizer.sep_id)):
        with pytest.raises(InvalidArray, match=r"units x time steps; what to do: deinterleave\("):
            use()


@pytest.mark.parametrize(
    ("tokens", "sep", "message"),
    [
        (np.array([[0, 1, 4]]), 4, "contain the separator; found: 4 at unit 0, time step 2"),
        (np.zeros((1, 2), np.uint8), 300, "tokens of uint8; found: 300; expected: a whole number from 0 to 255"),
        (np.zeros((1, 2), np.uint16), -1, "found: -1"),
        (np.zeros((1, 2), np.uint16), 4.5, "found: 4.5"),
    ],
)
def test_a_separator_that_a_sequence_cannot_have_is_refused(tokens: np.ndarray, sep: Any, message: str) -> None:
    with pytest.raises(InvalidArray, match=message):
        interleave(tokens, sep)


def test_a_tokenizer_may_be_sent_to_other_processes() -> None:
    row = bursty_counts(9, 200)
    tokenizer = tokenizer_of([row], PUBLISHED, 9)
    expected = encode(row, tokenizer)
    sent = pickle.dumps(tokenizer)
    assert len(sent) < 2_000, "tables that are made from the motifs stay here"
    np.testing.assert_array_equal(encode(row, pickle.loads(sent)), expected)


def test_names_for_users_are_imported_when_they_are_used() -> None:
    loaded = modules_after("import neuralpile_dagster.motifs as m; dir(m)")
    assert not loaded & {"numba", "numpy", "pyarrow", "dagster"}
    assert all(hasattr(neuralpile_dagster.motifs, name) for name in neuralpile_dagster.motifs.__all__)
    with pytest.raises(AttributeError, match="no attribute 'encoder'"):
        neuralpile_dagster.motifs.encoder  # noqa: B018
