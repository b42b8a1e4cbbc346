"""Programs for other runtimes: ONNX, OpenVINO and PyTorch's exported programs, verified when they are written."""
