"""Settings of the user take precedence over those of the compilation cache."""

import jax
import pytest

from a2f_jax.compilation_cache import enable_compilation_cache

FOLDER = "jax_compilation_cache_dir"
SECONDS = "jax_persistent_cache_min_compile_time_secs"
BYTES = "jax_persistent_cache_min_entry_size_bytes"


@pytest.fixture(autouse=True)
def restored():
    before = {name: jax.config.values[name] for name in (FOLDER, SECONDS, BYTES)}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_the_cache_is_in_the_cache_folder_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: tmp_path)
    jax.config.update(FOLDER, None)
    enable_compilation_cache()
    assert jax.config.values[FOLDER] == str(tmp_path / "compiled")


def test_settings_of_the_user_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv(SECONDS.upper(), "7")
    jax.config.update(FOLDER, str(tmp_path))
    jax.config.update(SECONDS, 7)
    enable_compilation_cache()
    assert jax.config.values[FOLDER] == str(tmp_path)
    assert jax.config.values[SECONDS] == 7


def test_without_a_home_folder_there_is_no_cache(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("platformdirs.user_cache_path", fail)
    jax.config.update(FOLDER, None)
    enable_compilation_cache()
    assert jax.config.values[FOLDER] is None
