"""The generated documents are the ones in schemas/, are valid, and describe what the daemon takes and gives."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry
from referencing.jsonschema import DRAFT7

from llmd import schemas
from llmd.rpc import METHODS, NOTIFICATIONS

DIRECTORY = Path(__file__).parent.parent / "schemas"


def test_the_files_are_what_the_types_say() -> None:
    expected = {name: schemas.render(document) for name, document in schemas.documents().items()}
    found = {file.name: file.read_text() for file in DIRECTORY.iterdir()}
    assert found == expected, "run `llmd schema --write schemas`"


@pytest.mark.parametrize("name", [name for name in schemas.documents() if name != "openrpc.json"])
def test_every_schema_is_valid_2020_12(name: str) -> None:
    document = schemas.documents()[name]
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(document)


def test_there_is_a_schema_for_the_params_and_the_result_of_each_method() -> None:
    names = {f"{method}.{side}.schema.json" for method in METHODS for side in ("params", "result")}
    notifications = {f"{name}.params.schema.json" for name in NOTIFICATIONS}
    assert set(schemas.documents()) == names | notifications | {"openrpc.json", "config.schema.json"}


def test_a_schema_refuses_what_the_daemon_refuses() -> None:
    validator = jsonschema.Draft202012Validator(schemas.documents()["execute.params.schema.json"])
    assert validator.is_valid({"prompt": "hi", "max_tokens": 1})
    assert not validator.is_valid({"prompt": "hi", "max_token": 1})
    assert not validator.is_valid({"prompt": "hi", "max_tokens": 0})


def test_every_reference_of_the_openrpc_document_leads_somewhere() -> None:
    document = schemas.documents()["openrpc.json"]
    references = set()

    def collect(value: object) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                references.add(value["$ref"])
            for inner in value.values():
                collect(inner)
        elif isinstance(value, list):
            for inner in value:
                collect(inner)

    collect(document)
    components = document["components"]
    known = {f"#/components/{part}/{name}" for part in components for name in components[part]}
    assert references
    assert references <= known


def _npm(directory: str, package: str, member: str) -> dict[str, Any]:
    """What a module of an npm package exports, as JSON."""
    node = shutil.which("node")
    assert node is not None
    script = "console.log(JSON.stringify(require(process.argv[1])[process.argv[2]]))"
    command = [node, "-e", script, f"{directory}/{package}", member]
    exported: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return exported


@pytest.mark.ci
def test_the_openrpc_document_is_valid_against_its_meta_schema() -> None:
    modules = os.environ.get("LLMD_NODE_MODULES")
    if modules is None:
        pytest.skip("LLMD_NODE_MODULES does not name a node_modules with the meta-schemas; .ci/run installs it")
    meta = _npm(modules, "@open-rpc/meta-schema", "openrpcDocument")
    # Its schemas of params and results follow a meta-schema of its own, in another package.
    tools = _npm(modules, "@json-schema-tools/meta-schema", "default")
    resources = [(uri, DRAFT7.create_resource(tools)) for uri in (tools["$id"], tools["$id"].rstrip("/"))]
    registry: Registry[Any] = Registry().with_resources(resources)
    validator = jsonschema.Draft7Validator(meta, registry=registry)
    document = json.loads((DIRECTORY / "openrpc.json").read_text())
    assert [error.message for error in validator.iter_errors(document)] == []
    del document["methods"][0]["name"]
    assert not validator.is_valid(document)
