"""Two graphs of one node, as bytes: rows taken out of a table that lies on a device, and put back into it.

They are the same for every forecaster, so that no bundle needs to hold them, and are written here field by field: the
daemon has no package `onnx`. A message of Protocol Buffers is a sequence of fields, each a key and a number, or a key,
a length and bytes. The numbers of the fields are those of `onnx.proto`.
"""

from collections.abc import Sequence

OPSET = 17
IR_VERSION = 8
_FLOAT, _INT64 = 1, 7
_Ends = dict[str, tuple[int, tuple[int | str, ...]]]
"""Tensors by name, each its type and its shape; an open axis is named."""


def gather_graph(width: int) -> bytes:
    """Return the graph `states` (A, S), `asset` (B,) → `state` (B, S), the rows of some assets; S is `width`."""
    ends: _Ends = {"states": (_FLOAT, ("assets", width)), "asset": (_INT64, ("batch",))}
    return _model("Gather", ends, {"state": (_FLOAT, ("batch", width))})


def scatter_graph(width: int) -> bytes:
    """Return the graph `states` (A, S), `asset` (B, 1), `state` (B, S) → `updated` (A, S), with those rows put in.

    `states` and `updated` may be the same memory: ONNX Runtime's ScatterND copies its first input only where its
    output lies elsewhere.
    """
    table: tuple[int, tuple[int | str, ...]] = (_FLOAT, ("assets", width))
    ends: _Ends = {"states": table, "asset": (_INT64, ("batch", 1)), "state": (_FLOAT, ("batch", width))}
    return _model("ScatterND", ends, {"updated": table})


def _model(kind: str, inputs: _Ends, outputs: _Ends) -> bytes:
    """Return a ModelProto of one node that takes all inputs in their order."""
    node = _names(1, inputs) + _names(2, outputs) + _names(3, [kind]) + _names(4, [kind])
    graph = _field(1, node) + _names(2, [kind.lower()]) + _described(11, inputs) + _described(12, outputs)
    return _field(1, IR_VERSION) + _field(7, graph) + _field(8, _field(2, OPSET))


def _names(number: int, names: Sequence[str] | _Ends) -> bytes:
    return b"".join(_field(number, name.encode()) for name in names)


def _described(number: int, ends: _Ends) -> bytes:
    """Return a ValueInfoProto for each tensor."""
    found = b""
    for name, (element, shape) in ends.items():
        axes = (_field(1, size) if isinstance(size, int) else _field(2, size.encode()) for size in shape)
        tensor = _field(1, element) + _field(2, b"".join(_field(1, axis) for axis in axes))
        found += _field(number, _field(1, name.encode()) + _field(2, _field(1, tensor)))
    return found


def _field(number: int, content: int | bytes) -> bytes:
    if isinstance(content, int):
        return _varint(number << 3) + _varint(content)
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Return a number seven bits a byte, the lowest first; the high bit says that more follow."""
    found = b""
    while value > 127:
        found += bytes([value & 127 | 128])
        value >>= 7
    return found + bytes([value])
