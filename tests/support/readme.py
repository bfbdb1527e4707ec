"""The README as the tests read it."""

import re

from tests.support.checkout import CHECKOUT

README = (CHECKOUT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """Return the README's code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


INSTALLING = [line for line in README.splitlines() if line.startswith("python3 -m venv")]

FROM_A_WHEEL = next(block for block in blocks("sh") if "pip wheel" in block).splitlines()
"""Build a wheel, install it, serve, write a plugin."""
