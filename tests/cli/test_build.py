"""`unnoise build` as a user runs it: what is missing is said in one line."""

from tests.cli.test_app import refused


def test_packages_that_are_not_there(tmp_path):
    said = refused("build", "photographs", tmp_path / "out", "--packages", tmp_path)
    assert "lacks Debian's mate-backgrounds" in said and "dpkg -x" in said
    assert "size=8 is outside 16..256" in refused("build", "emoji", tmp_path / "out", "--size", "8")
    assert not (tmp_path / "out").exists()
