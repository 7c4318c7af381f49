"""Find the λ, density, rank and method that fit a user's models, on the user's examples.

- `data_files`, `examples`: data files, and what is in them.
- `scoring`: how well a model predicts examples.
- `sets`: answers, texts and tasks as one thing: data sets, ready to be scored.
- `task_names`, `lm_eval_tasks`: tasks of lm-eval by name or file, and as data sets.
- `candidates`: the recipes that are compared.
- `updates`: their merged updates Δ, made once and kept on disk.
- `models`: base + s·Δ for any s, in the memory of one model.
- `scorer`, `record`: scores of settings, each made once.
- `search`: which scales and candidates are scored, within a budget.
- `choice`: which of them is taken, and whether it is better than the recipe.
- `tuner`: the search for one recipe; `options` and `results` are what it takes and gives.
- `reading`: the tokenizer, the data sets, and what an earlier tuning left.
- `summary`, `plots`, `page`: what was found, in words and as a page.
- `tune`: the function that does it all, and writes what was found.

Every method here ends in base + λ·Δ, where Δ does not depend on λ. So one merge serves all λ.
"""
