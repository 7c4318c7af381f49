"""One merge on many processes or machines: cut into parts, which survive whatever stops it.

- `parts`: the weights that are merged together, of about equal cost
- `resources`: how many workers there is room for, and what a merge takes with them
- `staging`: the folder in which an unfinished merge is kept
- `worker`: merges one part
- `pools`: has workers merge parts: here, in other processes, or on a Ray cluster
- `driver`: cuts, has merged and puts together; the function `merge`
"""

from mergekit_spectral.scaling.driver import Progress, Summary, merge, with_defaults
from mergekit_spectral.scaling.resources import RunCosts, estimate_run

__all__ = ["Progress", "RunCosts", "Summary", "estimate_run", "merge", "with_defaults"]
