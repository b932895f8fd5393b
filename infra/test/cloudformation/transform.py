"""Translates a SAM template (JSON on standard input) into a CloudFormation template (JSON on standard output)."""
import json
import os
import sys

os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

json.dump(Translator({}, Parser()).translate(json.load(sys.stdin), {}), sys.stdout)
