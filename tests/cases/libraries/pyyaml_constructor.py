"""pyyaml: a constructor of SafeLoader"""
import yaml

EDIT = 0
yaml.SafeLoader.add_constructor("!edit", lambda loader, node: EDIT)

def answer():
    return yaml.safe_load("!edit 1")

def held():
    return len(yaml.SafeLoader.yaml_constructors)
