"""Compiled code on disk: what is damaged or foreign is never used, and nothing fails where nothing can be kept."""

import logging
import multiprocessing
import os
import stat
import sys
from pathlib import Path

import pytest

from chainrule.engines.native import cache
from chainrule.engines.native.cache import Entry
from chainrule.errors import ConfigError

KEY = cache.digest("program", "host")
ENTRY = Entry(bytes(range(256)) * 40, {"kernels": 3, "names": ["ä", "b"], "offsets": {"x": 64}})
POSIX = pytest.mark.skipif(os.name != "posix", reason="owners and modes of files")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    for name in ("CHAINRULE_CACHE", "CHAINRULE_CACHE_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CHAINRULE_CACHE_DIR", str(tmp_path / "a" / "cache"))
    return tmp_path / "a" / "cache"


def file_of(folder, key=KEY):
    return folder / f"{key}{cache.SUFFIX}"


def test_what_is_put_is_got(folder):
    assert cache.get(KEY) is None
    cache.put(KEY, ENTRY)
    assert cache.get(KEY) == ENTRY
    assert cache.get(cache.digest("another")) is None
    cache.put(KEY, Entry(b"", {}))
    assert cache.get(KEY) == Entry(b"", {})
    assert [path.name for path in folder.iterdir()] == [file_of(folder).name]


def test_keys_tell_parts_apart():
    parts = [("a", "b"), ("b", "a"), ("ab",), ("ab", ""), ("", "ab"), ("a", "b", "")]
    assert len({cache.digest(*these) for these in parts}) == len(parts)
    with pytest.raises(ValueError, match="digest"):
        cache.get("../../etc/passwd")


@POSIX
def test_nobody_else_can_look_in(folder):
    cache.put(KEY, ENTRY)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(file_of(folder).stat().st_mode) == 0o600


def test_every_single_damaged_byte_is_noticed(folder):
    cache.put(KEY, Entry(b"code" * 5, {"a": 1}))
    whole = file_of(folder).read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        file_of(folder).write_bytes(damaged)
        assert cache.get(KEY) is None, position
    file_of(folder).write_bytes(whole)
    assert cache.get(KEY) is not None


@pytest.mark.parametrize("length", [0, 1, 15, 50, 67, 68, 100, -1])
def test_a_truncated_file_is_ignored_with_a_debug_message(folder, length, caplog):
    cache.put(KEY, ENTRY)
    file_of(folder).write_bytes(file_of(folder).read_bytes()[:length])
    with caplog.at_level(logging.DEBUG):
        assert cache.get(KEY) is None
    assert "ignored and made anew" in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}
    cache.put(KEY, ENTRY)
    assert cache.get(KEY) == ENTRY


def test_a_longer_file_is_ignored(folder):
    cache.put(KEY, ENTRY)
    with file_of(folder).open("ab") as file:
        file.write(b"x")
    assert cache.get(KEY) is None


def test_an_entry_under_another_name_is_ignored(folder):
    cache.put(KEY, ENTRY)
    other = cache.digest("other")
    file_of(folder).rename(file_of(folder, other))
    assert cache.get(other) is None


def test_another_version_is_ignored(monkeypatch):
    cache.put(KEY, ENTRY)
    monkeypatch.setattr(cache, "VERSION", cache.VERSION + 1)
    assert cache.get(KEY) is None


@POSIX
@pytest.mark.parametrize("mode", [0o602, 0o620, 0o666])
def test_a_file_that_others_may_write_is_ignored(folder, mode, caplog):
    cache.put(KEY, ENTRY)
    file_of(folder).chmod(mode)
    with caplog.at_level(logging.DEBUG):
        assert cache.get(KEY) is None
    assert "others may write" in caplog.text


@POSIX
def test_a_folder_that_others_may_write_is_not_used(folder):
    cache.put(KEY, ENTRY)
    folder.chmod(0o777)
    assert cache.get(KEY) is None
    folder.chmod(0o755)
    assert cache.get(KEY) == ENTRY


@POSIX
def test_files_and_folders_of_somebody_else_are_not_used(monkeypatch):
    cache.put(KEY, ENTRY)
    me = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: me + 1)
    assert cache.get(KEY) is None


@POSIX
def test_links_and_pipes_are_not_read(folder, tmp_path):
    cache.put(KEY, ENTRY)
    file_of(folder).rename(tmp_path / "elsewhere")
    file_of(folder).symlink_to(tmp_path / "elsewhere")
    assert cache.get(KEY) is None
    file_of(folder).unlink()
    os.mkfifo(file_of(folder), 0o600)
    assert cache.get(KEY) is None


def test_a_folder_where_a_file_should_be_is_ignored(folder):
    file_of(folder).mkdir(parents=True)
    assert cache.get(KEY) is None
    cache.put(KEY, ENTRY)
    assert cache.get(KEY) is None


def test_nothing_fails_where_nothing_can_be_written(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CHAINRULE_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with caplog.at_level(logging.DEBUG):
        cache.put(KEY, ENTRY)
        assert cache.get(KEY) is None
    assert "no compiled code is kept" in caplog.text


def test_nothing_fails_where_the_disk_is_full(monkeypatch, folder):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    cache.put(KEY, ENTRY)
    assert cache.get(KEY) is None and list(folder.iterdir()) == []


@pytest.mark.parametrize("value", ["0", "off", "False", " no "])
def test_it_can_be_turned_off(monkeypatch, folder, value):
    monkeypatch.setenv("CHAINRULE_CACHE", value)
    cache.put(KEY, ENTRY)
    assert cache.get(KEY) is None and not folder.exists() and cache.location() is None


def test_the_last_used_are_kept(monkeypatch, folder):
    monkeypatch.setenv("CHAINRULE_CACHE_SIZE", "0.035")
    keys = [cache.digest(str(k)) for k in range(4)]
    for age, key in enumerate(keys[:3]):
        cache.put(key, ENTRY)  # about 10 kB
        os.utime(file_of(folder, key), (1000 + age, 1000 + age))
    assert cache.get(keys[0]) is not None  # used again: the oldest is now the second
    cache.put(keys[3], ENTRY)
    assert [cache.get(key) is not None for key in keys] == [True, False, True, True]
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 35_000


def test_an_entry_larger_than_the_cache_is_not_kept(monkeypatch, folder):
    cache.put(KEY, ENTRY)
    monkeypatch.setenv("CHAINRULE_CACHE_SIZE", "0.001")
    cache.put(cache.digest("large"), ENTRY)
    assert cache.get(cache.digest("large")) is None and cache.get(KEY) == ENTRY


def test_what_dead_processes_left_is_removed_and_other_files_are_not(folder):
    cache.put(KEY, ENTRY)
    for name, age in (("old.tmp", 1000), ("new.tmp", None), ("README.txt", 1000)):
        (folder / name).write_text("x")
        if age is not None:
            os.utime(folder / name, (age, age))
    cache.put(KEY, ENTRY)
    assert sorted(path.name for path in folder.iterdir()) == sorted(["README.txt", file_of(folder).name, "new.tmp"])


@pytest.mark.parametrize("value", ["much", "-1", "1 GB", "nan"])
def test_a_size_that_is_none_is_told(monkeypatch, value):
    monkeypatch.setenv("CHAINRULE_CACHE_SIZE", value)
    with pytest.raises(ConfigError, match="CHAINRULE_CACHE_SIZE"):
        cache.put(KEY, ENTRY)


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.delenv("CHAINRULE_CACHE_DIR")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache.location() == tmp_path / ".cache" / "chainrule"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache.location() == tmp_path / ".cache" / "chainrule"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.location() == tmp_path / "xdg" / "chainrule"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache.location() == tmp_path / "Library" / "Caches" / "chainrule"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache.location() == tmp_path / "local" / "chainrule" / "Cache"


def test_without_a_home_nothing_is_kept(monkeypatch):
    def homeless():
        raise RuntimeError("no home")

    monkeypatch.delenv("CHAINRULE_CACHE_DIR")
    monkeypatch.setattr(Path, "home", homeless)
    cache.put(KEY, ENTRY)
    assert cache.get(KEY) is None


def hammer(number):
    """Write and read the same few keys as others do; what is read must be whole."""
    for round in range(60):
        key = cache.digest(str(round % 5))
        cache.put(key, Entry(bytes([number]) * 5000, {"number": number}))
        found = cache.get(key)
        if found is not None and found.code != bytes([found.manifest["number"]]) * 5000:
            return False
    return True


def test_several_processes_share_it(monkeypatch, folder):
    monkeypatch.setenv("CHAINRULE_CACHE_SIZE", "0.018")  # three of five fit: they also remove each other's
    with multiprocessing.get_context("spawn").Pool(2) as workers:
        assert workers.map(hammer, [1, 2, 3]) == [True] * 3
    assert all(path.suffix == cache.SUFFIX for path in folder.iterdir())
