"""Integer networks as C, ONNX QDQ and QONNX, and the runs that check them."""
