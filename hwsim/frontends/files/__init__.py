"""Network files read as data, never executed: `.pt2` archives of torch.export, ONNX and QONNX, quantized TFLite.

`pt2.read_pt2`, `onnx_graph.read_onnx` and `tflite.read_tflite_graph` return the `OpGraph` that the handlers of
`hwsim.extraction` lower; none of them imports torch or unpickles anything.
"""
