"""Links that are swapped, as Kubernetes does it."""

import shutil
from pathlib import Path


def point(link: Path, target: str) -> None:
    """Put a link into the place of another one, at once."""
    new = link.with_name(link.name + "_tmp")
    new.symlink_to(target)
    new.replace(link)


def kubelet(volume: Path, text: str, *, inside: str = "one/main.py") -> None:
    """Update a ConfigMap's volume as the kubelet does (pkg/volume/util/atomic_writer.go)."""
    volume.mkdir(exist_ok=True)
    old = (volume / "..data").resolve()
    new = volume / f"..2026_11_26_{text}"
    (new / inside).parent.mkdir(parents=True)
    (new / inside).write_text(text)
    point(volume / "..data", new.name)
    first = Path(inside).parts[0]
    if not (volume / first).is_symlink():
        (volume / first).symlink_to(f"..data/{first}")
    if old != volume / "..data":
        shutil.rmtree(old)
