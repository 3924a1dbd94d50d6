"""Every way in for a model: torch modules, ONNX, TFLite and .pt2 files, library names; all end in a Workload."""
