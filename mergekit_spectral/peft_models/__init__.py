"""Adapters of a model that is loaded with peft: merged where they are, without files.

- `layers`: the LoRA layers of a loaded model; read an adapter's updates, and add an adapter.
- `merge_adapters`: the function of that name.
"""
