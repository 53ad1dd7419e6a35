"""Print the requirements of the dev group, quoted for a shell: pip before 25.1 cannot read it."""

import shlex
import tomllib
from pathlib import Path

if __name__ == "__main__":
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    print(*map(shlex.quote, project["dependency-groups"]["dev"]))
