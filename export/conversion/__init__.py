"""Convert a frozen network to TFLite and ONNX in each precision."""
