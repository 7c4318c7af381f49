"""What each merge method is worth: fine-tunes of SmolLM2-135M-Instruct, merged and scored."""
