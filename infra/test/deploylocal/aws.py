#!/usr/bin/env python3
"""As much of the AWS command line as the runbooks use, on the AWS SDK that comes with moto."""
import json
import sys

import boto3
import jmespath
from botocore import xform_name


RENAMED = {"notification-endpoint": "endpoint"}  # --endpoint would read like --endpoint-url


def value(shape, texts):
    if shape.type_name == "list" and not texts[0].startswith("["):
        return [value(shape.member, [t]) for t in texts]
    (text,) = texts
    if shape.type_name == "structure" and not text.startswith("{"):
        pairs = dict(pair.split("=", 1) for pair in text.split(","))
        return {name: value(shape.members[name], [v]) for name, v in pairs.items()}
    if shape.type_name in ("structure", "list", "map"):
        return json.loads(text)
    return {"integer": int, "long": int, "boolean": lambda t: {"true": True, "false": False}[t]}.get(shape.type_name, str)(text)


def main(service, operation, *rest):
    client = boto3.client(service)
    options, name = {}, None
    for word in rest:
        if word.startswith("--"):
            name = RENAMED.get(word[2:], word[2:])
            options[name] = []
        else:
            options[name].append(word) if name else sys.exit(f"aws: unexpected {word}")
    query, form = options.pop("query", None), options.pop("output", ["json"])
    wire = next((o for o in client.meta.service_model.operation_names if xform_name(o, "-") == operation), None)
    if wire is None:
        sys.exit(f"aws {service}: there is no {operation}")
    members = {xform_name(m, "-"): (m, shape) for m, shape in client.meta.service_model.operation_model(wire).input_shape.members.items()}
    arguments = {}
    for option, texts in options.items():
        known = option if option in members else option.removeprefix("no-")
        if known not in members:
            sys.exit(f"aws {service} {operation}: there is no option --{option}")
        member, shape = members[known]
        arguments[member] = option == known if shape.type_name == "boolean" and not texts else value(shape, texts)
    answer = getattr(client, xform_name(wire))(**arguments)
    answer.pop("ResponseMetadata", None)
    answer = jmespath.search(query[0], answer) if query else answer
    print(answer if form == ["text"] else json.dumps(answer, default=str, indent=4))


def wait(service, what, *rest):
    names = {word.removeprefix("--"): text for word, text in zip(rest[::2], rest[1::2])}
    members = boto3.client(service).meta.service_model.operation_model("DescribeTable").input_shape.members
    boto3.client(service).get_waiter(what.replace("-", "_")).wait(
        **{m: names[xform_name(m, "-")] for m in members if xform_name(m, "-") in names},
        WaiterConfig={"Delay": 0, "MaxAttempts": 2})  # gives up before a restored table is there, as the command line of AWS does


if sys.argv[2] == "wait":
    wait(sys.argv[1], *sys.argv[3:])
else:
    main(*sys.argv[1:])
