"""An exported ONNX graph and the wanted precision -> a TensorRT engine."""
