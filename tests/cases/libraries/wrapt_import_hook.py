"""wrapt: a hook at an import"""
import wrapt

EDIT = 0

@wrapt.when_imported("this_module_is_never_imported")
def seen(module):
    return EDIT

def answer():
    hooks = wrapt.importer._post_import_hooks["this_module_is_never_imported"]
    return [hook(None) for hook in hooks]

def held():
    return len(wrapt.importer._post_import_hooks["this_module_is_never_imported"])
