"""An ONNX file looked into: its tensors, and its integer products computed as other CPUs do."""
