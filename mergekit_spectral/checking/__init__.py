"""What is wrong with a recipe, of any of mergekit's methods, before it is run.

`checks` has the list of all checks, and the function `check`. Each check is in a file of its own,
or with those that are closest, and is a function from one `Subject` to findings. `estimate` says
what the merge takes, and `report` is what was found.
"""
