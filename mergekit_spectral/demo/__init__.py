"""The demo: three LoRA adapters merged into SmolLM2-135M-Instruct, seven ways, and tuned."""

# As on the hub, so that the recipes run unchanged against either copy.
MODEL_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
RECORD = "demo.jsonl"
"""The file in the work folder with what the demo's steps have found."""
