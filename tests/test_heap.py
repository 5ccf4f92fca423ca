"""Laws of giving memory back."""

from edge_agent.heap import Heap, find_trim


def test_memory_goes_back_once_no_more_assets_come() -> None:
    """While assets come nothing is given back, then once, and again only after others came."""
    heap = Heap()
    assert [heap.settle(assets) for assets in (0, 5, 9, 9, 9, 9, 10, 10, 10)] == [
        False, False, False, True, False, False, False, True, False,
    ]  # fmt: skip


def test_the_c_library_is_asked_where_it_can() -> None:
    """Where the C library knows how, it takes the call; elsewhere there is nothing to call."""
    trim = find_trim()
    assert trim is None or trim(0) in (0, 1)
