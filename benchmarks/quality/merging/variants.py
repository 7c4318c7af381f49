"""Variants of the methods, each of which changes one thing."""

from __future__ import annotations

from benchmarks.quality.merging.methods import METHODS, Method

VARIANTS = {
    method.name: method
    for method in (
        Method(
            "drm_without_renormalization",
            {"density": 0.2, "renormalize": False},
            recipe_name="drm",
        ),
        *(
            Method(f"{name}_{direction}", {**own, "direction": direction}, recipe_name=name)
            for name, own in (("drm", {"density": 0.2}), ("knots_ties", {"density": 1.0}))
            for direction in ("vertical", "auto")
        ),
        *(
            Method(f"actmat_{direction}", {"direction": direction}, recipe_name="actmat")
            for direction in ("horizontal", "vertical")
        ),
        *(
            Method(f"{name}_rank_{share}", {**own, "rank": share}, recipe_name=name)
            for name, own in (("drm", {"density": 0.2}), ("knots_ties", {"density": 1.0}))
            for share in (0.5, 0.25, 0.2, 0.125)
        ),
        Method("ties_density_1", {"density": 1.0}, recipe_name="ties"),
        Method("knots_ties_density_0.2", {"density": 0.2}, recipe_name="knots_ties"),
        *(Method(f"star_eta_{eta}", {"eta": eta}, recipe_name="star") for eta in (20, 60, 80, 100)),
    )
}

COMPARISONS = {
    "renormalization": ("drm", "drm_without_renormalization"),
    "direction": (
        "drm",
        "drm_auto",
        "drm_vertical",
        "knots_ties",
        "knots_ties_auto",
        "knots_ties_vertical",
    ),
    "weights or coordinates": ("ties_density_1", "knots_ties", "ties", "knots_ties_density_0.2"),
    "η of STAR": ("star_eta_20", "star", "star_eta_60", "star_eta_80", "star_eta_100"),
}
COMPARED = tuple(dict.fromkeys(name for names in COMPARISONS.values() for name in names))


def method_named(name: str) -> Method:
    """Return one of `METHODS` or of `VARIANTS`."""
    return METHODS.get(name) or VARIANTS[name]
