"""The image, without an engine: the root that deploy/static.sh lays out runs in an otherwise empty folder."""

import os
import pathlib
import subprocess

import pytest
from conftest import free_port, status, until

ROOTFS = os.environ.get("GEMWAY_ROOTFS", "")


@pytest.mark.skipif(not ROOTFS, reason="GEMWAY_ROOTFS names no folder; scripts/test builds one")
def test_the_static_binary_serves_from_an_empty_root():
    files = sorted(str(path.relative_to(ROOTFS)) for path in pathlib.Path(ROOTFS).rglob("*") if path.is_file())
    assert files == ["etc/group", "etc/passwd", "gemway"]
    kind = subprocess.run(["ldd", f"{ROOTFS}/gemway"], capture_output=True, text=True)
    assert "statically linked" in kind.stdout + kind.stderr or "not a dynamic" in kind.stdout + kind.stderr
    if os.geteuid() != 0:
        pytest.skip("chroot needs root")
    port, admin = free_port(), free_port()
    inside = ["/gemway", "serve", "--listen", f"127.0.0.1:{port}", "--admin-listen", f"127.0.0.1:{admin}"]
    process = subprocess.Popen(["chroot", "--userspec=65532:65532", ROOTFS, *inside], stderr=subprocess.DEVNULL)
    try:
        until(lambda: status(admin, "/readyz") == 200)
        assert status(port, "/v1/models") == 200
    finally:
        process.terminate()
        process.wait(timeout=30)
