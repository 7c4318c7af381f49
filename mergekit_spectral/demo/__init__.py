"""The demo: three LoRA adapters merged into SmolLM2-135M-Instruct, seven ways, and tuned."""
