"""Turns a pydantic model of a training framework into a schema in our form.

Names, types, enumerations, bounds and defaults only: titles and descriptions are dropped.
Packages that the framework's schema modules import and that are not installed (torch,
transformers, ...) are replaced by empty stand-ins, so an unpacked wheel is enough.
"""

import importlib.abc
import importlib.machinery
import json
import sys
import types


class _Anything:
    """Stands for whatever a missing package would have offered."""

    def __init__(self, *args, **kwargs):
        pass

    def __call__(self, *args, **kwargs):
        # As a decorator, leave what is decorated alone.
        return args[0] if len(args) == 1 and callable(args[0]) else self

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything()

    def __bool__(self):
        return False

    @classmethod
    def __get_pydantic_core_schema__(cls, source, handler):
        return {"type": "any"}


class _StandIn(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (_Anything,), {})


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds every module that nothing else finds, except the framework's own."""

    def __init__(self, own, replaced=()):
        self.own, self.replaced = own, set(replaced)

    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if name in self.replaced or top not in (self.own, "org") and top not in sys.stdlib_module_names:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return _StandIn(spec.name)

    def exec_module(self, module):
        module.__path__ = []


def json_schema(model):
    """pydantic's own JSON schema; an enumeration of objects is written by its members' names."""
    from pydantic.json_schema import GenerateJsonSchema

    class Generate(GenerateJsonSchema):
        def enum_schema(self, schema):
            try:
                return super().enum_schema(schema)
            except Exception:
                return {"enum": [member.name for member in schema["members"]]}

    clean_extras(model, set())
    return model.model_json_schema(schema_generator=Generate)


def clean_extras(model, seen):
    """Drops functions from `json_schema_extra`, which pydantic would try to write out."""
    if model in seen:
        return
    seen.add(model)
    for field in model.model_fields.values():
        if isinstance(field.json_schema_extra, dict):
            field.json_schema_extra = {k: v for k, v in field.json_schema_extra.items() if not callable(v)}
        for inner in [field.annotation, *getattr(field.annotation, "__args__", ())]:
            if isinstance(inner, type) and hasattr(inner, "model_fields"):
                clean_extras(inner, seen)
    model.model_rebuild(force=True)


def strip(node, defs):
    """Drops prose and pydantic's titles, and writes `X or null` as one type where it can."""
    if isinstance(node, list):
        return [strip(item, defs) for item in node]
    if not isinstance(node, dict):
        return node
    out = {}
    for key, value in node.items():
        if key in ("title", "description", "examples", "discriminator"):
            if key in ("title", "description") and isinstance(value, dict):
                out[key] = strip(value, defs)  # a property of that name
            continue
        if key == "properties":
            out[key] = {name: strip(value[name], defs) for name in sorted(value)}
        else:
            out[key] = strip(value, defs)
    branches = out.get("anyOf")
    if branches:
        simple = [b for b in branches if set(b) == {"type"} and isinstance(b["type"], str)]
        rest = [b for b in branches if b not in simple]
        kinds = []
        for branch in simple:
            if branch["type"] not in kinds:
                kinds.append(branch["type"])
        if not rest:
            del out["anyOf"]
            out["type"] = kinds[0] if len(kinds) == 1 else kinds
        elif len(rest) == 1 and kinds == ["null"] and "enum" in rest[0]:
            del out["anyOf"]
            out["enum"] = rest[0]["enum"] + [None]
        elif len(rest) == 1 and kinds == ["null"] and isinstance(rest[0].get("type"), str):
            del out["anyOf"]
            inner = dict(rest[0])
            inner["type"] = [inner["type"], "null"]
            out.update(inner)
        elif simple:
            out["anyOf"] = rest + [{"type": kinds[0] if len(kinds) == 1 else kinds}]
    if "enum" in out:
        out.pop("type", None)
    if "const" in out:
        out["enum"] = [out.pop("const")]
        out.pop("type", None)
    if out.get("default", 0) is None:
        del out["default"]
    if out.get("type") == "object" and "properties" in out and "additionalProperties" not in out:
        # What pydantic calls `extra="ignore"`: unknown keys are dropped.
        out["additionalProperties"] = False
    return out


def close_references(schema):
    """A `$ref` beside a default stays; `$defs` that nothing names go."""
    used, text = set(), json.dumps({k: v for k, v in schema.items() if k != "$defs"})
    defs = schema.get("$defs", {})
    open_ = [name for name in defs if f'"#/$defs/{name}"' in text]
    while open_:
        name = open_.pop()
        if name in used:
            continue
        used.add(name)
        inner = json.dumps(defs[name])
        open_ += [other for other in defs if f'"#/$defs/{other}"' in inner]
    schema["$defs"] = {name: defs[name] for name in sorted(used)}
    return schema


def merge_marks(schema, marks):
    """Lays hand-written facts over the derived ones: old spellings, renames, corrections.

    `marks`: `{"": {"property": {...}}, "section/inner": {...}}`; the path names `$defs` entries or
    is empty for the top. A value replaces keys of the property, `null` removes them.
    """
    for place, properties in marks.items():
        target = schema if place == "" else schema["$defs"][place]
        known = target.setdefault("properties", {})
        for name, facts in properties.items():
            if facts is None:
                known.pop(name, None)
                continue
            entry = known.setdefault(name, {})
            for key, value in facts.items():
                if value is None:
                    entry.pop(key, None)
                else:
                    entry[key] = value
        target["properties"] = {name: known[name] for name in sorted(known)}
    return schema


def write(schema, title, path):
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
    }
    head.update({k: v for k, v in schema.items() if k not in ("title", "$defs")})
    if schema.get("$defs"):
        head["$defs"] = schema["$defs"]
    with open(path, "w", encoding="utf-8") as file:
        json.dump(head, file, indent=1, ensure_ascii=False)
        file.write("\n")
