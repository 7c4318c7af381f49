"""The quality of each merge method: fine-tunes of SmolLM2-135M-Instruct, merged and scored."""
