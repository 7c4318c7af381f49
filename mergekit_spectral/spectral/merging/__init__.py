"""Merging place by place; `merge_entries` says how. The other files hold its parts.

- `entries`: what the inputs are compared by, computed when needed.
- `thresholds`: which entries pruning keeps.
- `averaging`: sign election and means.
- `borderline`: entries that are decided again in float64.
"""
