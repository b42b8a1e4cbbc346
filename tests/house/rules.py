"""House rules over a syntax tree: each takes a parsed file and yields its violations."""

import ast
from collections.abc import Iterator

_CODE_READERS = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
_CODE_RUNNERS = {"eval", "exec", "compile", "__import__"}
_FORBIDDEN_CALLS = {
    "yaml.load": "reads tags that run code; use yaml.safe_load",
    "yaml.unsafe_load": "runs code; use yaml.safe_load",
    "yaml.full_load": "reads tags; use yaml.safe_load",
    "os.system": "runs a shell; use subprocess.run with a list",
    "os.popen": "runs a shell; use subprocess.run with a list",
    "torch.package.PackageImporter": "runs code",
    "torch.jit.load": "reads foreign code",
    "torch.export.load": "reads foreign code",
}


def unsafe(tree: ast.AST) -> Iterator[str]:
    """Yield every way to run code that a file brings along."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            only_errors = isinstance(node, ast.ImportFrom) and all(a.name.endswith("Error") for a in node.names)
            for name in names:
                if name.split(".")[0] in _CODE_READERS and not only_errors:
                    yield f"line {node.lineno}: imports {name}"
        elif isinstance(node, ast.Call):
            yield from _unsafe_call(node)


def _unsafe_call(node: ast.Call) -> Iterator[str]:
    name = ast.unparse(node.func)
    given = {word.arg: word.value for word in node.keywords}
    if name in _CODE_RUNNERS:
        yield f"line {node.lineno}: calls {name}"
    if name in _FORBIDDEN_CALLS:
        yield f"line {node.lineno}: {name} {_FORBIDDEN_CALLS[name]}"
    if name == "torch.load" and not _is(given.get("weights_only"), True):
        yield f"line {node.lineno}: torch.load without weights_only=True"
    for flag in ("shell", "allow_pickle", "trust_remote_code"):
        if flag in given and not _is(given[flag], False):
            yield f"line {node.lineno}: {name} with {flag}"


def _is(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def undocumented(tree: ast.Module) -> Iterator[str]:
    """Yield the public names of a file without a docstring: itself, functions, classes and their methods."""
    if not ast.get_docstring(tree):
        yield "the file"
    # `forward` is documented by its class; a method documented by another class of the file implements it.
    explained = {"forward"} | {method.name for owner in _classes(tree) for method in _methods(owner, documented=True)}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            if not ast.get_docstring(node):
                yield node.name
            methods = _methods(node, documented=False) if isinstance(node, ast.ClassDef) else []
            silent = [method.name for method in methods if not method.name.startswith("_")]
            yield from (f"{node.name}.{name}" for name in silent if name not in explained)


def _classes(tree: ast.Module) -> list[ast.ClassDef]:
    return [node for node in tree.body if isinstance(node, ast.ClassDef)]


def _methods(owner: ast.ClassDef, documented: bool) -> list[ast.FunctionDef]:
    methods = [node for node in owner.body if isinstance(node, ast.FunctionDef)]
    return [method for method in methods if (ast.get_docstring(method) is not None) == documented]


def imports(tree: ast.AST) -> set[str]:
    """Return the first word of every module that a file imports, at any depth."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found
