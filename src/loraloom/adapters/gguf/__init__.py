"""GGUF, the file format of llama.cpp: models and adapters written, and run to be proved."""
