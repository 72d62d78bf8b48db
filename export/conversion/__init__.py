"""Conversion of a frozen network to TFLite and ONNX in each precision."""
