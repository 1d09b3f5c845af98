"""Reads names, types, enumerations and defaults of Python dataclasses, and writes JSON Schemas.

The sources are parsed, never imported: nothing but the standard library is needed. Several
versions of a package become one schema. A key that an older version has and the newest has not
is kept, with `x-removed-in`; one that came later gets `x-added-in`. No descriptive text is read.

    pip download --no-deps -d wheels trl==0.9.6 trl==0.20.0 trl==1.16.0 transformers==5.23.0 ...
    python tools/schema_from_framework/dataclasses_to_schema.py --wheels wheels --out schemas

`targets.json` beside this file says which classes of which packages make which schema, and
holds what no dataclass knows: renames, keys that a launcher reads, looser types.
"""

import argparse
import ast
import json
import pathlib
import re
import zipfile

HERE = pathlib.Path(__file__).parent
SCALARS = {
    "int": {"integer"}, "float": {"number"}, "bool": {"boolean"}, "str": {"string"},
    "dict": {"object"}, "Dict": {"object"}, "Mapping": {"object"}, "PluginConfig": {"object", "string"},
    "list": {"array"}, "List": {"array"}, "tuple": {"array"}, "Tuple": {"array"}, "None": {"null"}, "Path": {"string"},
    "Sequence": {"array"},
}


class Any(Exception):
    """The annotation allows everything, or nothing is known about it."""


class Package:
    """The classes of one version of one package."""

    def __init__(self, files):
        self.classes, self.constants = {}, {}
        for text in files:
            try:
                tree = ast.parse(text)
            except SyntaxError:
                continue
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    self.classes[node.name] = node
            for node in tree.body:
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    self.constants[node.targets[0].id] = node.value

    def enum(self, name):
        node = self.classes.get(name)
        if node is None or not any("Enum" in ast.unparse(b) for b in node.bases):
            return None
        values = []
        for item in node.body:
            if isinstance(item, ast.Assign) and isinstance(item.value, ast.Constant):
                values.append(item.value.value)
        return values

    def types(self, node):
        """The JSON types and the enumeration (or None) of an annotation."""
        if isinstance(node, ast.Constant):
            if node.value is None:
                return {"null"}, None
            return self.types(ast.parse(str(node.value), mode="eval").body)
        if isinstance(node, ast.BinOp):
            return self.union([node.left, node.right])
        if isinstance(node, ast.Subscript):
            outer = ast.unparse(node.value).split(".")[-1]
            inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            if outer == "Optional":
                types, enum = self.types(inner[0])
                return types | {"null"}, enum
            if outer == "Union":
                return self.union(inner)
            if outer == "Annotated":
                return self.types(inner[0])
            if outer == "Literal":
                values = [e.value for e in inner if isinstance(e, ast.Constant)]
                kinds = {{str: "string", int: "integer", bool: "boolean", type(None): "null"}[type(v)] for v in values}
                return kinds, [v for v in values if isinstance(v, str)] or None
            if outer in SCALARS:
                return set(SCALARS[outer]), None
            raise Any
        name = ast.unparse(node).split(".")[-1]
        if name in SCALARS:
            return set(SCALARS[name]), None
        values = self.enum(name)
        if values:
            return {"string"}, [v for v in values if isinstance(v, str)]
        raise Any

    def union(self, parts):
        types, enum = set(), None
        for part in parts:
            part_types, part_enum = self.types(part)
            types |= part_types
            # `SchedulerType | str` means the enumeration; frameworks convert the text.
            enum = enum or part_enum
        return types, enum

    def default(self, node):
        """(has a default, its JSON value); a default that is computed is not known."""
        if node is None:
            return False, None
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("field", "Field"):
            for keyword in node.keywords:
                if keyword.arg == "default":
                    return self.default(keyword.value)
            if node.args:
                return self.default(node.args[0])
            for keyword in node.keywords:
                if keyword.arg == "default_factory":
                    text = ast.unparse(keyword.value)
                    if text in ("list", "dict"):
                        return True, [] if text == "list" else {}
                    if isinstance(keyword.value, ast.Lambda):
                        return self.default(keyword.value.body)
            return False, None
        if isinstance(node, ast.Attribute):
            owner = self.classes.get(ast.unparse(node.value))
            for item in owner.body if owner else []:
                if isinstance(item, ast.Assign) and ast.unparse(item.targets[0]) == node.attr:
                    return self.default(item.value)
            return False, None
        try:
            value = ast.literal_eval(node)
            json.dumps(value)
            return True, value
        except (ValueError, TypeError):
            return False, None

    def fields(self, class_name, seen=()):
        """Name -> property, bases first."""
        node = self.classes.get(class_name)
        if node is None or class_name in seen:
            return {}
        found = {}
        for base in reversed(node.bases):
            found.update(self.fields(ast.unparse(base).split(".")[-1], (*seen, class_name)))
        for item in node.body:
            if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
                continue
            name, text = item.target.id, ast.unparse(item.annotation)
            if name.startswith("_") or "ClassVar" in text or "InitVar" in text:
                continue
            if "init=False" in ast.unparse(item.value or ast.Constant(None)).replace(" ", ""):
                continue
            found[name] = self.property(item)
        return found

    def property(self, item):
        known, default = self.default(item.value)
        result = {}
        try:
            types, enum = self.types(item.annotation)
            choices = re.search(r"'choices': (\[[^\]]*\])", ast.unparse(item.value) if item.value else "")
            if choices and enum is None:
                try:
                    enum = ast.literal_eval(choices.group(1))
                except (ValueError, SyntaxError):
                    enum = None
            if known and default is None:
                types.add("null")
            result["type"] = types
            result["enum"] = enum
        except Any:
            pass
        if known and default is not None:
            result["default"] = default
        return result


def version_key(version):
    return tuple(int(part) if part.isdigit() else 0 for part in re.split(r"[.]", version))


def sources(wheels, package, prefixes):
    """Version -> texts of the wanted files, oldest first."""
    found = {}
    for wheel in pathlib.Path(wheels).rglob("*.whl"):
        name, version = wheel.name.split("-")[:2]
        if name.replace("_", "-") != package:
            continue
        with zipfile.ZipFile(wheel) as archive:
            files = [n for n in archive.namelist() if n.endswith(".py") and any(re.match(p, n) for p in prefixes)]
            found[version] = [archive.read(n).decode("utf-8", "replace") for n in files]
    return dict(sorted(found.items(), key=lambda pair: version_key(pair[0])))


def merge(mark, by_version):
    """One property map out of several versions."""
    versions = list(by_version)
    newest = versions[-1]
    names = {}
    for version in versions:
        for name, prop in by_version[version].items():
            names.setdefault(name, []).append((version, prop))
    properties = {}
    for name, seen in sorted(names.items()):
        last_version, last = seen[-1]
        prop = {}
        if all("type" in p for _, p in seen):
            types = set().union(*(p["type"] for _, p in seen))
            if "number" in types:
                types.discard("integer")
            prop["type"] = sorted(types)
            if last.get("enum") and types <= {"string", "null", "array"}:
                values = []
                for _, p in reversed(seen):
                    values += [v for v in p.get("enum") or [] if v not in values]
                if "array" not in types:
                    prop["enum"] = values + ([None] if "null" in types else [])
        if "default" in last:
            prop["default"] = last["default"]
        first = versions.index(seen[0][0])
        if first > 0:
            prop["x-added-in"] = f"{mark}{versions[first]}"
        if last_version != newest:
            prop["x-removed-in"] = f"{mark}{versions[versions.index(last_version) + 1]}"
        properties[name] = prop
    return properties


def tidy(prop):
    """`null` is accepted everywhere, so it is not spelled out."""
    types = prop.get("type")
    if isinstance(types, list):
        types = prop["type"] = [t for t in types if t != "null"]
    if isinstance(prop.get("enum"), list):
        prop["enum"] = [v for v in prop["enum"] if v is not None]
    if prop.get("enum") and prop.get("type") in ("string", ["string"]):
        del prop["type"]  # the values say it, and one mistake should be said once
        types = None
    for inner in prop.get("properties", {}).values():
        tidy(inner)
    if isinstance(types, list) and len(types) == 1:
        prop["type"] = types[0]
    return prop


def build(target, wheels, out):
    properties = {}
    for part in target.get("packages", []):
        texts = sources(part.get("wheels", wheels), part["package"], part["files"])
        if not texts:
            raise SystemExit(f"no wheel of {part['package']} found")
        by_version = {}
        for version, files in texts.items():
            package = Package(files)
            fields = {}
            names = part["classes"]
            if names == "*Config":
                names = sorted(n for n in package.classes if n.endswith(("Config", "Arguments")))
                names = [n for n in names if n not in part.get("not", [])]
            for name in names:
                for key, prop in package.fields(name).items():
                    # Several trainers give a key different defaults: then none is stated.
                    if key in fields and fields[key].get("default") != prop.get("default"):
                        prop = {k: v for k, v in prop.items() if k != "default"}
                        if "type" in prop and "type" in fields[key]:
                            prop["type"] = prop["type"] | fields[key]["type"]
                            prop["enum"] = (prop.get("enum") or []) + [
                                v for v in fields[key].get("enum") or [] if v not in (prop.get("enum") or [])] or None
                    fields[key] = prop
            if fields:
                by_version[version] = fields
        for key, prop in merge(target.get("mark", ""), by_version).items():
            if part.get("unversioned"):
                prop = {k: v for k, v in prop.items() if k not in ("x-added-in", "x-removed-in")}
                if key not in target.get("renamed", {}):
                    for mark in ("x-added-in", "x-removed-in"):
                        properties.get(key, {}).pop(mark, None)
            properties.setdefault(key, prop)
    for key in target.get("drop", []):
        properties.pop(key, None)
    for key, change in target.get("set", {}).items():
        entry = properties.setdefault(key, {})
        for name, value in change.items():
            if value is None:
                entry.pop(name, None)
            else:
                entry[name] = value
    for old, new in target.get("renamed", {}).items():
        properties.setdefault(old, {"type": ["array", "boolean", "number", "null", "object", "string"]})["x-renamed-to"] = new
    for part in target.get("extra", {}).get("allOf", []):
        # A key that the part still has is not gone when the framework stops overriding it.
        shared = json.loads((out / part["$ref"]).read_text())["properties"]
        for key in properties.keys() & shared.keys():
            for mark in ("x-added-in", "x-removed-in"):
                properties[key].pop(mark, None)
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": target["id"],
        "title": target["title"],
        "type": "object",
    }
    schema.update(target.get("extra", {}))
    section = {key: tidy(properties[key]) for key in sorted(properties)}
    if "nest" in target:
        # The dataclass is one section of the file; what stands around it is in `around`.
        around = json.loads(json.dumps(target["around"]))
        around[target["nest"]] = {"type": "object", "additionalProperties": False, "properties": section}
        section = around
    schema["properties"] = section
    return schema


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheels", required=True)
    parser.add_argument("--out", default=str(HERE.parent.parent / "schemas"))
    parser.add_argument("--only")
    options = parser.parse_args()
    for name, target in json.loads((HERE / "targets.json").read_text()).items():
        if options.only and options.only != name:
            continue
        schema = build(target, options.wheels, pathlib.Path(options.out))
        path = pathlib.Path(options.out) / target["file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(schema, indent=1, ensure_ascii=False) + "\n")
        print(f"{path}: {len(schema['properties'])} keys")


if __name__ == "__main__":
    main()
