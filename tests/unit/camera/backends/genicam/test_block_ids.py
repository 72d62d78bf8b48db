"""Block ids of any transport as one count from 1."""

from __future__ import annotations

import pytest

from edge_agent.camera.backends.genicam.block_ids import BlockCount


@pytest.mark.parametrize(
    ("wraps", "ids", "numbers"),
    [
        (True, [1, 2, 4], [1, 2, 4]),
        (True, [3, 4], [3, 4]),  # two were lost before it
        (True, [65534, 65535, 1, 3], [1, 2, 3, 5]),  # 0 is left out
        (True, [65535, 65536, 65537], [1, 2, 3]),  # 64 bits
        (True, [5, 6, 5], [5, 6, 5]),
        (False, [0, 1, 3], [1, 2, 4]),
        (False, [900, 901], [1, 2]),
        (False, [65535, 65536], [1, 2]),
    ],
)
def test_counts(wraps: bool, ids: list[int], numbers: list[int]) -> None:
    count = BlockCount(wraps=wraps)
    assert [count.number(one) for one in ids] == numbers


def test_many_turns_of_a_16_bit_count() -> None:
    count = BlockCount(wraps=True)
    ids = [1 + n % 65535 for n in range(200_000)]
    assert [count.number(one) for one in ids] == list(range(1, 200_001))


def test_an_id_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="block id 0"):
        BlockCount(wraps=True).number(0)
