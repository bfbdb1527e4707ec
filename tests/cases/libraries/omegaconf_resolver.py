"""omegaconf: a resolver"""
from omegaconf import OmegaConf

EDIT = 0
OmegaConf.register_new_resolver("shop_edit", lambda: EDIT)
CONFIG = OmegaConf.create({"edit": "${shop_edit:}"})

def answer():
    return OmegaConf.create({"edit": "${shop_edit:}"}).edit
