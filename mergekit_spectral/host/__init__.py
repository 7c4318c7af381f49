"""Everything that touches mergekit's insides: look here when mergekit changes.

Three groups of files, each of which imports its own and those above it.

What is changed in mergekit, and when. These files are loaded by every ``import torch``, and used
while mergekit's modules are being imported, so they import the standard library only, as does this
one:

- `names`: every name of mergekit that this package relies on, and what happens if one is missing.
- `import_hooks`: call a function at the end of a module's import.
- `registration`: the table of merge methods in which ours appear, and that of their evolved
  parameters.
- `changes`: the tables and the four functions that are changed, each when its module is imported.
  `run_merge` and `model_card` change three more functions at the first merge with one of our
  methods.

What mergekit reads, and what it plans:

- `loaders`: what a loader is, and how loaders are lent to mergekit.
- `mergeable`: which stored tensors are weights.
- `checkpoints`: a whole model's files and their headers.
- `hub`: the headers of models on the Hub that are not on this machine.
- `dense_inputs`: loaders for models without an adapter.
- `structure`: the modules of an adapter's base, and which stored tensors belong to them.
- `lora_inputs`: loaders for ``base+adapter``, which read adapters in factors.
- `unread_weights`: the weights of a model that a merge does not read.
- `models`: open the models that a recipe names, from headers alone, and lend their files.
- `chat_templates`: the chat templates that come with mergekit.
- `devices`: the device that an option names.
- `plan`: the plan that mergekit makes of a merge, used by check, inspect and the adapter command.

What is done with a recipe for one of our methods:

- `recipe_check`: find a recipe's method; refuse a recipe before any model is touched.
- `model_card`: what mergekit's model card says of a merge.
- `run_merge`: what happens around mergekit's `run_merge`.
- `evolution`: from `mergekit-evolve`'s genomes to values that a recipe can have.
- `adapter_merge`: merge adapters into one adapter, without the base's weights.
- `parts`: merges of some tensors at a time, and a model put together from them.
- `whole_merges`: merges by mergekit into a folder, and tensors on disk in its format.

This subpackage imports `spectral`, `adapters`, `methods` and `recipe`. `peft_models`, `checking`,
`inspecting`, `tuning`, `scaling` and `command_line` import it. They import from mergekit itself
only the types of recipes, options and merge methods; `tests/host/test_rooms.py` has the list.
"""
