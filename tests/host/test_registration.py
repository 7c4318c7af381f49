"""Our methods in mergekit's table of methods."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
from mergekit.merge_methods import registered_methods

from mergekit_spectral.host.registration import MethodTable
from mergekit_spectral.methods import SpectralMethod

OURS = {m.spec.name for m in registered_methods() if isinstance(m, SpectralMethod)}


@pytest.fixture
def table() -> MethodTable:
    """mergekit's own methods, as they are before anybody has asked for ours."""
    own = {m.spec.name: m for m in registered_methods() if m.spec.name not in OURS}
    return MethodTable(own)


def test_ours_join_when_somebody_asks(table: MethodTable):
    before = set(table)
    assert table["ties"].spec.name == "ties"
    with pytest.raises(KeyError, match="drn"):
        table["drn"]
    assert set(table) - before == OURS
    assert {method.spec.name for method in table.values()} == set(table)


def test_a_name_that_is_taken_stays_theirs(table: MethodTable, caplog: pytest.LogCaptureFixture):
    theirs = replace(table["ties"], method_name="star")
    table["star"] = theirs
    assert table["drm"].spec.name == "drm"
    assert table["star"] is theirs
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "a merge method named 'star' is registered already" in record.getMessage()


def test_methods_that_cannot_be_imported_are_tried_again(
    table: MethodTable, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    with monkeypatch.context() as broken:
        broken.setitem(sys.modules, "mergekit_spectral.methods.catalog", None)
        for _ in range(2):
            with pytest.raises(KeyError):
                table["drm"]
            assert len(table.values()) == len(table)
    (record,) = caplog.records
    assert "mergekit-spectral's methods cannot be imported" in record.getMessage()
    assert table["drm"].spec.name == "drm"
