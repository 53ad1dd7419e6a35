"""Fail when a module or function outgrows its budget: python tools/size_budget.py src"""

import ast
import sys
from pathlib import Path

MODULE_LINES, FUNCTION_LINES = 400, 60


def over(path: Path) -> list[str]:
    source = path.read_text()
    lines = len(source.splitlines())
    found = [f"{path}: {lines} lines (budget {MODULE_LINES})"] if lines > MODULE_LINES else []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            size = (node.end_lineno or node.lineno) - node.lineno + 1
            if size > FUNCTION_LINES:
                where = f"{path}:{node.lineno}: `{node.name}`"
                found.append(f"{where} has {size} lines (budget {FUNCTION_LINES})")
    return found


if __name__ == "__main__":
    files = [f for root in sys.argv[1:] for f in sorted(Path(root).rglob("*.py"))]
    problems = [problem for file in files for problem in over(file)]
    print(*problems, sep="\n", end="\n" if problems else "")
    sys.exit(bool(problems))
