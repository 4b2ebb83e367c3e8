"""What is known about processors: this one and any other."""

import pytest

from chainrule.engines.native import host

X86, ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"
WIDE = "+avx512f,+avx512vl,+avx512bw,+avx512dq"


@pytest.mark.parametrize(
    ("triple", "features", "vector", "registers"),
    [
        (X86, WIDE, 64, 32),
        (X86, "+avx512f,+avx512vl", 32, 16),
        (X86, "+avx2,+fma", 32, 16),
        (X86, "+avx2", 16, 16),
        (X86, "+avx2,-fma", 16, 16),
        (X86, "", 16, 16),
        ("amd64-pc-windows-msvc", "+avx2,+fma", 32, 16),
        (ARM, "+neon", 16, 32),
        ("arm64-apple-darwin", "", 16, 32),
        ("riscv64-unknown-linux-gnu", "", 16, 32),
    ],
)
def test_vectors_follow_from_the_features(triple, features, vector, registers):
    machine = host.of(triple, "generic", features)
    assert (machine.vector_bytes, machine.registers) == (vector, registers)
    assert machine.lanes(4) == vector // 4


def test_features_bring_those_that_they_imply():
    machine = host.of(X86, "generic", WIDE)
    assert all(machine.has(name) for name in ("avx512f", "avx2", "fma", "f16c", "avx", "sse4.1"))
    assert not machine.has("avx512bf16")
    assert not host.of(X86, "generic", "+avx512f,-f16c").has("f16c")
    assert not host.of(ARM, "generic", "+avx512f").has("avx2")


def test_families():
    assert host.of(X86, "", "").x86 and not host.of(X86, "", "").arm
    assert host.of(ARM, "", "").arm and host.of("arm64-apple-darwin", "", "").arm


def test_this_machine():
    machine = host.detect()
    assert machine is host.detect()
    assert machine.cores >= 1 and machine.vector_bytes in (16, 32, 64) and machine.cpu
    assert 4 << 10 <= machine.l1_bytes <= machine.l2_bytes <= 1 << 30
    assert hash(machine) == hash(host.detect())


def put(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text + "\n")


def test_caches_are_read_from_the_system(tmp_path):
    put(tmp_path / "index0", level="1", type="Instruction", size="64K")
    put(tmp_path / "index1", level="1", type="Data", size="48K")
    put(tmp_path / "index2", level="2", type="Unified", size="2M")
    put(tmp_path / "index3", level="3", type="Unified", size="unknown")
    assert [host._cache_from_sys(level, tmp_path) for level in (1, 2, 3)] == [48 << 10, 2 << 20, 0]
    assert host._cache_from_sys(1, tmp_path / "missing") == 0


def test_hyper_threads_count_once(tmp_path):
    for cpu, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        put(tmp_path / f"cpu{cpu}" / "topology", thread_siblings_list=siblings)
    assert host._physical({0, 1, 2, 3}, tmp_path) == 2
    assert host._physical({0, 2}, tmp_path) == 1
    assert host._physical({0, 1, 2}, tmp_path / "missing") == 3


def test_quota_of_control_groups_version_2(tmp_path):
    put(tmp_path, groups="0::/user/work")
    root = tmp_path / "fs"
    put(root / "user" / "work", **{"cpu.max": "max 100000"})
    assert host._quota(root, tmp_path / "groups") is None
    put(root / "user", **{"cpu.max": "150000 100000"})
    assert host._quota(root, tmp_path / "groups") == 1.5
    put(root / "user" / "work", **{"cpu.max": "50000 100000"})
    assert host._quota(root, tmp_path / "groups") == 0.5


def test_quota_of_control_groups_version_1(tmp_path):
    put(tmp_path, groups="3:memory:/a\n2:cpu,cpuacct:/docker/1\n0::/")
    root = tmp_path / "fs"
    put(root / "cpu", **{"cpu.cfs_quota_us": "300000", "cpu.cfs_period_us": "100000"})
    assert host._quota(root, tmp_path / "groups") == 3.0  # the folder of the group is not seen from inside
    put(root / "cpu" / "docker" / "1", **{"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"})
    assert host._quota(root, tmp_path / "groups") == 3.0


def test_a_quota_limits_the_cores(monkeypatch):
    cores = host._cores()
    monkeypatch.setattr(host, "_quota", lambda: 0.5)
    assert host._cores() == 1
    monkeypatch.setattr(host, "_quota", lambda: cores + 7.9)
    assert host._cores() == cores
    monkeypatch.setattr(host, "_quota", lambda: None)
    assert host._cores() == cores
