"""The files of a complete artifact, as a reader sees them."""

from __future__ import annotations

import pytest

from hmcli.errors import DataError
from hmcli.store.listed import listed


def test_a_folder_without_a_manifest_is_no_artifact(tmp_path):
    with pytest.raises(DataError, match="the artifact has no manifest") as error:
        listed(tmp_path)
    assert error.value.where["artifact"] == tmp_path.resolve()
