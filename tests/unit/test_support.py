"""What tests share lies in `tests/support/`: no test knows another one."""

import ast
from collections.abc import Iterator
from pathlib import Path

import tests

ROOT = Path(tests.__file__).parent


def imported_by(file: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports, those of a package's members among them."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = list(file.relative_to(ROOT.parent).parts[: -node.level]) if node.level else []
            module = ".".join([*package, *filter(None, [node.module])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def is_of_tests(name: str) -> bool:
    """Tell whether a module holds tests, or fixtures, which pytest hands out itself."""
    first, *more = name.split(".")
    return first == "tests" and any(m == "conftest" or m.startswith("test_") for m in more)


def test_no_test_imports_another_test_module() -> None:
    files = [file for file in ROOT.rglob("*.py") if "__pycache__" not in file.parts]
    assert len(files) > 100, "the tests are where this test looks"
    found = {
        f"{file.relative_to(ROOT.parent)} imports {name}"
        for file in files
        for name in imported_by(file)
        if is_of_tests(name)
    }
    assert not found, "put what is shared into tests/support/"
