"""LoRA adapters: read in factors, carried in factors through mergekit's graph, written.

Tensors that mergekit's graph carries. Merge methods import these two files and no others of this
room, because registering the methods must need neither peft nor transformers:

- `deferred`: tensors whose entries are computed or moved to a device on demand, such as inputs that
  stay in main memory.
- `adapted`: the tensor that carries a LoRA update.

Reading and writing adapters, which needs peft and transformers:

- `stored_tensors`: shapes and dtypes in the headers of stored tensors.
- `tensor_names`: parse and find names of tensors.
- `adapter_files`: find an adapter's files.
- `adapter_tensors`: the tensors in these files.
- `patterns`: peft's patterns of module names.
- `lora`: an adapter's updates, by the names of the weights.
- `base_model`: the interfaces to the base's weights and structure, which `host` implements.
- `wrapped`: updates of parameters other than a layer's weight.
- `fitting`: match the updates to the base's weights.
- `writing`: write an adapter.
"""
