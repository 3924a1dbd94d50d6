"""Network files read as data, never executed: `.pt2` archives of torch.export, ONNX and QONNX, quantized TFLite.

Each module has `read(path) -> Workload`-like entry points of its own; none of them imports torch or unpickles anything.
"""
