"""pyyaml: a YAMLObject"""
import yaml

EDIT = 0

class Price(yaml.YAMLObject):
    yaml_tag = "!price"
    yaml_loader = yaml.SafeLoader
    edit = EDIT

def answer():
    return yaml.safe_load("!price {}").edit

def held():
    return len(yaml.SafeLoader.yaml_constructors)
