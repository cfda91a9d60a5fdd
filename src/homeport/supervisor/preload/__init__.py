"""What makes an unmodified Node or Python server take the inherited socket: variables that load our files first."""

from __future__ import annotations

import os
from collections.abc import Mapping

HERE = os.path.dirname(os.path.abspath(__file__))


def variables(env: Mapping[str, str]) -> dict[str, str]:
    """NODE_OPTIONS and PYTHONPATH, the given ones kept."""
    script = os.path.join(HERE, "node.cjs").replace("\\", "\\\\").replace('"', '\\"')
    node = f'--require "{script}"'
    python = os.path.join(HERE, "python")
    return {
        "NODE_OPTIONS": f"{env['NODE_OPTIONS']} {node}" if env.get("NODE_OPTIONS") else node,
        "PYTHONPATH": f"{python}{os.pathsep}{env['PYTHONPATH']}" if env.get("PYTHONPATH") else python,
    }
