"""Writes schemas/axolotl.schema.json from an installed or unpacked axolotl.

    pip download axolotl==0.21.0 --no-deps && unzip axolotl-*.whl -d /tmp/axolotl
    python tools/schema_from_framework/axolotl.py /tmp/axolotl 0.21.0 0.18.0=/tmp/older 0.20.0=/tmp/old

Needs pydantic, packaging and PyYAML; nothing else of axolotl's dependencies.
Old spellings and renames, which the newest release no longer shows, are in `axolotl.marks.json`.
"""

import glob
import importlib
import inspect
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import pydantic_schema as tool  # noqa: E402


def models(root):
    from pydantic import BaseModel

    sys.path.insert(0, root)
    # The package's own helpers pull in the whole framework; only the schemas are wanted.
    sys.meta_path.insert(
        0,
        Replaced({"axolotl.utils.logging", "axolotl.utils.datasets", "axolotl.utils", "axolotl.integrations.base"}, root),
    )
    sys.meta_path.append(tool.StandIns("axolotl"))
    config = importlib.import_module("axolotl.utils.schemas.config")
    plugins = []
    for path in sorted(glob.glob(os.path.join(root, "axolotl/integrations/*/args.py"))):
        name = os.path.basename(os.path.dirname(path))
        try:
            module = load(path, f"plugin_{name}")
        except Exception as error:  # a plugin that cannot be read is named, not fatal
            print(f"plugin {name}: {error}", file=sys.stderr)
            continue
        own = [
            c for _, c in inspect.getmembers(module, inspect.isclass)
            if issubclass(c, BaseModel) and c.__module__ == module.__name__ and c.__name__.endswith(("Args", "SwanLabConfig"))
        ]
        plugins += [(name, c) for c in own]
    return config.AxolotlInputConfig, plugins


def load(path, name):
    import importlib.util

    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Replaced(tool.StandIns):
    """Stand-ins for some of the framework's own modules, with the real folder behind packages."""

    def __init__(self, names, root):
        super().__init__("axolotl")
        self.names, self.root = names, root

    def find_spec(self, name, path=None, target=None):
        if name in self.names:
            return tool.importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def exec_module(self, module):
        folder = os.path.join(self.root, module.__name__.replace(".", "/"))
        module.__path__ = [folder] if os.path.isdir(folder) else []


def keys_of(root):
    """The top-level keys of another release, read in a process of its own."""
    out = subprocess.run([sys.executable, __file__, "--keys", root], capture_output=True, text=True)
    return set(json.loads(out.stdout))


def derived(root):
    config, plugins = models(root)
    schema = tool.json_schema(config)
    for name, plugin in plugins:
        part = tool.json_schema(plugin)
        schema["$defs"].update(part.get("$defs", {}))
        for key, value in part.get("properties", {}).items():
            schema["properties"].setdefault(key, value | {"x-plugin": name})
    return tool.strip(schema, schema.get("$defs", {}))


def main():
    if sys.argv[1] == "--keys":
        print(json.dumps(sorted(derived(sys.argv[2])["properties"])))
        return
    root, version = sys.argv[1], sys.argv[2]
    schema = derived(root)
    # `0.18.0=/tmp/axolotl-0.18`, oldest first: when keys came and went.
    releases = [tuple(argument.split("=", 1)) for argument in sys.argv[3:]]
    history = [(release, keys_of(path)) for release, path in releases]
    history.append((version, set(schema["properties"])))
    for (_, before), (release, after) in zip(history, history[1:]):
        for key in after - before:
            schema["properties"].get(key, {})["x-added-in"] = release
        for key in before - after:
            if key not in schema["properties"]:
                schema["properties"][key] = {"x-removed-in": release}
    schema.pop("additionalProperties", None)
    schema = {"type": "object", "additionalProperties": False} | schema
    marks = os.path.join(HERE, "axolotl.marks.json")
    with open(marks, encoding="utf-8") as file:
        tool.merge_marks(schema, json.load(file))
    schema = tool.close_references(schema)
    out = os.path.join(HERE, "../../schemas/axolotl.schema.json")
    tool.write(schema, f"Axolotl config (YAML), keys of {version} and older spellings", out)
    print(f"{len(schema['properties'])} keys, {len(schema['$defs'])} sections", file=sys.stderr)


main()
