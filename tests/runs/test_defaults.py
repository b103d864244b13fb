"""The default and the bounds of every setting, as defaults.txt has them: a change of one changes what runs mean."""

import json
from pathlib import Path

from pydantic import TypeAdapter

from unstir.runs.config import Config
from unstir.runs.toml import to_dict

FILE = Path(__file__).with_name("defaults.txt")
SIGNS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


def settings():
    """A line for each setting, from the schema that values are checked by."""
    schema, defaults = TypeAdapter(Config).json_schema(), to_dict(Config())
    found = schema["$defs"]
    for name, of in schema["properties"].items():
        if "$ref" not in of:
            yield f"{name} = {json.dumps(defaults[name])}"
            continue
        for key, rules in found[of["$ref"].rsplit("/", 1)[1]]["properties"].items():
            parts = [rules, *rules.get("anyOf", ()), rules.get("items", {})]
            bounds = [f"{sign} {json.dumps(part[k])}" for part in parts for k, sign in SIGNS.items() if k in part]
            yield " ".join([f"{name}.{key} = {json.dumps(defaults[name].get(key))}", *bounds])


def test_the_defaults_and_bounds_are_those_written_down():
    assert list(settings()) == FILE.read_text().splitlines()
