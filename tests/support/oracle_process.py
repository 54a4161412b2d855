"""Call a function where `import btrfs` means python-btrfs: FILE FUNCTION ARGUMENT...

Without a FUNCTION, the answer is what the file leaves in its variable `answer`; it finds the
arguments in `args`. The answer is written to standard output as JSON.

This runs in a process of its own, with nothing of the repository in its path.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import uuid
from typing import Any


def main() -> None:
    """Print the answer."""
    file, function, *args = sys.argv[1:]
    spec = importlib.util.spec_from_file_location("asked", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    vars(module)["args"] = args
    spec.loader.exec_module(module)
    answer = getattr(module, function)(*args) if function else module.answer
    json.dump(answer, sys.stdout, default=plain)


def plain(value: Any) -> str:
    """Return what JSON has no form for as text: bytes as hex."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    if isinstance(value, uuid.UUID):
        return str(value)
    raise TypeError(f"no JSON for {value!r}")


if __name__ == "__main__":
    main()
