"""An ONNX graph in int8, rounded as it runs (dynamic); the one door to the quantiser of ONNX Runtime.

Only the LSTM layers are rounded, which is nearly all there is to compute. The convolution, attention and the product
that adds up the forecast stay in float32: that one is most of a slow sensor's forecast, and a step of int8 is more than
such a sensor moves. Weights have seven bits: with eight, processors without VNNI saturate, and each kind of machine
would score differently.
"""

import logging
from pathlib import Path

from trainer.step_onnx import PRECISE


def quantize(source: Path, target: Path) -> None:
    """Write the int8 form of a graph.

    Args:
        source: `window.onnx` or `step.onnx`.
        target: of the file that is written.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    nodes = onnx.load(str(source)).graph.node
    exact = [node.name for node in nodes if node.name.startswith(PRECISE)]
    kind = "LSTM" if any(node.op_type == "LSTM" for node in nodes) else "MatMul"
    # It warns of a preparation that only convolutions gain from.
    logging.disable(logging.WARNING)
    try:
        quantize_dynamic(
            source,
            target,
            weight_type=QuantType.QInt8,
            reduce_range=True,
            op_types_to_quantize=[kind],
            # It turns a Gemm into a MatMul of this name first.
            nodes_to_exclude=[*exact, *(f"{name}_MatMul" for name in exact)],
        )
    finally:
        logging.disable(logging.NOTSET)
