"""The house rules as functions of a source text, so that each can be shown to find what it forbids."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = ("policykd", "envs", "scripts", "benchmarks")

MAX_FILE = 320  # the budget is 300; the rest is slack for a file that is being split
MAX_FUNCTION = 60
MAX_PARAMETERS = 6

BANNED_IMPORTS = {"pickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve", "jsonpickle"}
BANNED_NAMES = {
    *("eval", "exec", "builtins.eval", "builtins.exec", "os.system", "os.popen"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler"),  # the one module that may import it only writes
    *(
        "torch.load",
        "torch.jit.load",
        "torch.export.load",
        "torch.storage._load_from_bytes",
        "torch.hub.load",
        "joblib.load",
    ),
    *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.unsafe_load_all", "yaml.full_load", "yaml.full_load_all"),
    *("yaml.Loader", "yaml.UnsafeLoader", "yaml.FullLoader", "pandas.read_pickle"),
}
NETWORK = {
    *("socket", "ssl", "http", "urllib", "urllib3", "requests", "httpx", "aiohttp", "ftplib", "smtplib", "telnetlib"),
    *(
        "xmlrpc",
        "socketserver",
        "asyncio",
        "websockets",
        "paramiko",
        "huggingface_hub",
        "torch.hub",
        "wandb",
        "webbrowser",
    ),
}
BANNED_FLAGS = {"shell", "allow_pickle"}
SB3_LOADERS = {"load", "set_parameters", "load_from_zip_file", "load_from_pkl", "load_replay_buffer"}  # all unpickle
PICKLE_WRITERS = {"torch.save", "torch.export.save", "torch.jit.save", "joblib.dump", "pandas.to_pickle"}
SB3_WRITERS = {"data_to_json", "save_to_zip_file", "save_to_pkl", "save_replay_buffer"}


def sources() -> list[Path]:
    """Every Python file that the rules hold for, relative to the checkout."""
    return sorted(path.relative_to(ROOT) for folder in CODE for path in (ROOT / folder).rglob("*.py"))


def tracked() -> list[Path]:
    """Every file that git tracks or would, relative to the checkout."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return [Path(name) for name in names if name and (ROOT / name).is_file()]


def length_problems(text: str) -> Iterator[str]:
    """Files, functions and parameter lists that are too long."""
    lines = len(text.splitlines())
    if lines > MAX_FILE:
        yield f"1: {lines} lines, at most {MAX_FILE}: split the file"
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if length > MAX_FUNCTION:
            yield f"{node.lineno}: {node.name} has {length} lines, at most {MAX_FUNCTION}"
        count = _parameters(node)
        if count > MAX_PARAMETERS and not _is_command(node):
            yield f"{node.lineno}: {node.name} has {count} parameters, at most {MAX_PARAMETERS}: group them"


def banned_problems(text: str) -> Iterator[str]:
    """Imports, names and flags by which a file could run code, under whatever alias they are used."""
    tree = ast.parse(text)
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        for name, target in _imports(node):
            aliases[name] = target
            if target.split(".")[0] in BANNED_IMPORTS or _is_banned(target):
                yield f"{node.lineno}: import of {target}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            name = _dotted(node, aliases)
            if _is_banned(name):
                yield f"{node.lineno}: {name}"
        if isinstance(node, ast.Call):
            for keyword in node.keywords:
                off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                if keyword.arg in BANNED_FLAGS and not off:
                    yield f"{node.lineno}: {keyword.arg}={ast.unparse(keyword.value)}"


def writing_problems(text: str) -> Iterator[str]:
    """Imports and names by which a file could write an archive with pickles inside, under whatever alias."""
    tree = ast.parse(text)
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        for name, target in _imports(node):
            aliases[name] = target
            if target.split(".")[0] in BANNED_IMPORTS or _writes_pickles(target):
                yield f"{node.lineno}: import of {target}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _writes_pickles(name := _dotted(node, aliases)):
            yield f"{node.lineno}: {name}"


def machine_problems(text: str) -> Iterator[str]:
    """Paths of the machine it was written on, and where that machine gets its packages."""
    traces = (
        r"(?<![\w.~$}-])/(?:work|root|home|Users)/|index[-]url|find[-]links|trusted[-]host|pypi\.org|python[h]osted"
    )
    for number, line in enumerate(text.splitlines(), 1):
        found = re.search(traces, line)
        if found:
            yield f"{number}: {found.group()}"


def _is_banned(name: str) -> bool:
    parts = name.split(".")
    return name in BANNED_NAMES or (parts[0] in {"stable_baselines3", "sb3_contrib"} and parts[-1] in SB3_LOADERS)


def _writes_pickles(name: str) -> bool:
    parts = name.split(".")
    return name in PICKLE_WRITERS or (parts[0] == "stable_baselines3" and parts[-1] in SB3_WRITERS)


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    names = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def _is_command(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether the parameters are the options of a command: `@app.command(...)` or `@app.callback(...)`."""
    targets = [deco.func if isinstance(deco, ast.Call) else deco for deco in node.decorator_list]
    return any(isinstance(target, ast.Attribute) and target.attr in {"command", "callback"} for target in targets)


def _imports(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Pairs of a local name and what it stands for."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield (alias.asname, alias.name) if alias.asname else (alias.name.split(".")[0], alias.name.split(".")[0])
    if isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _dotted(node: ast.expr, aliases: dict[str, str]) -> str:
    """The full name behind `t.load` where t is an alias; empty for what is no plain name."""
    if isinstance(node, ast.Name):
        return aliases.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        owner = _dotted(node.value, aliases)
        return f"{owner}.{node.attr}" if owner else ""
    return ""


def network_problems(text: str) -> Iterator[str]:
    """Imports of what could reach another machine, wherever in the file they stand."""
    for node in ast.walk(ast.parse(text)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            names = [str(node.args[0].value)] if called in ("import_module", "__import__") else []
        for name in names:
            if name in NETWORK or name.partition(".")[0] in NETWORK:
                yield f"{node.lineno}: imports {name}, which can reach another machine"
                break
