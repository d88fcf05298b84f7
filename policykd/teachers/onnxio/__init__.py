"""ONNX files as teachers: checked as data before anything runs them; a YAML beside them says what they mean."""
