"""What the generators share: a clone's history, and Python annotations as JSON Schema.

Nothing of a framework runs or is imported: its sources are parsed, and only names, types,
enumerations and defaults are kept. torchtune has no config classes: each recipe reads what it
wants of a mapping, and `schemas/torchtune.schema.json` is written by hand.
"""

import ast
import json
import pathlib
import subprocess
import sys

SCHEMAS = pathlib.Path(__file__).resolve().parents[2] / "schemas"
SIMPLE = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "Path": "string"}


def clone():
    """The clone named on the command line."""
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} PATH-TO-A-CLONE (the .git directory or a bare clone)")
    return sys.argv[1]


def git(*arguments):
    """Output of git in the clone; None when it fails (a path that a commit does not have)."""
    ran = subprocess.run(["git", f"--git-dir={clone()}", *arguments], capture_output=True, text=True)
    return ran.stdout if ran.returncode == 0 else None


def literal(node):
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        return None


def schema_of(annotation):
    """An annotation as JSON Schema. A class that is not known gives {} (anything)."""
    parts = []

    def walk(node):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            walk(ast.parse(node.value, mode="eval").body)
        elif isinstance(node, ast.Constant):
            pass
        elif isinstance(node, ast.BinOp):
            walk(node.left)
            walk(node.right)
        elif isinstance(node, ast.Name):
            kind = {"list": "array", "List": "array", "tuple": "array", "dict": "object", "Dict": "object"}
            name = SIMPLE.get(node.id) or kind.get(node.id)
            parts.append({"type": name} if name else {})
        elif isinstance(node, ast.Subscript):
            base = ast.unparse(node.value).rsplit(".", 1)[-1]
            inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            if base in ("Optional", "Union"):
                for part in inner:
                    walk(part)
            elif base == "Literal":
                parts.append({"enum": [literal(part) for part in inner if literal(part) is not None]})
            elif base in ("list", "List", "Sequence", "tuple", "Tuple"):
                parts.append({"type": "array", "items": schema_of(inner[0])})
            elif base in ("dict", "Dict"):
                parts.append({"type": "object"})
            else:
                parts.append({})

    walk(annotation)
    if not parts or any(part == {} for part in parts):
        return {}
    if len(parts) == 1:
        return parts[0]
    types = [part["type"] for part in parts if "type" in part]
    if "number" in types and "integer" in types:
        types.remove("integer")
    words = [word for part in parts for word in part.get("enum", [])]
    if words and not types:
        return {"enum": words}
    if words and "string" not in types:
        types.append("string")
    return {"type": types[0] if len(types) == 1 else types}


def default_of(value):
    """A default's value, or None where there is none that JSON can say."""
    if isinstance(value, ast.Call):
        for keyword in value.keywords:
            if keyword.arg == "default_factory":
                if isinstance(keyword.value, ast.Lambda):
                    return literal(keyword.value.body)
                return {"list": [], "dict": {}}.get(getattr(keyword.value, "id", None))
            if keyword.arg == "default":
                return literal(keyword.value)
        return None
    return literal(value) if value is not None else None


def fields(source, name=None):
    """`class -> field -> (annotation, value)` of a module's dataclasses."""
    classes = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and name in (None, node.name):
            classes[node.name] = {
                line.target.id: (line.annotation, line.value)
                for line in node.body
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
            }
    return classes


def entry(annotation, value):
    """One field as a schema with its default."""
    schema = dict(schema_of(annotation))
    default = default_of(value)
    if default is not None:
        schema["default"] = default
    return schema


def nest(properties, path, schema):
    """Puts a schema at a path of sections."""
    for step in path[:-1]:
        section = properties.setdefault(step, {"type": "object", "additionalProperties": False, "properties": {}})
        properties = section["properties"]
    properties[path[-1]] = schema


def write(name, title, body):
    """Writes schemas/NAME.schema.json."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"https://llmlint.github.io/schemas/{name}.schema.json",
        "title": title,
        "type": "object",
        **body,
    }
    path = SCHEMAS / f"{name}.schema.json"
    path.write_text(json.dumps(schema, indent=1) + "\n")
    print(path)
