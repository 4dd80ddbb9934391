"""A trained model as a file for plain torch, ``torch.export``, ONNX or transformers."""
