"""dependency-injector: a container"""
from dependency_injector import containers, providers

EDIT = 0

class Container(containers.DeclarativeContainer):
    config = providers.Configuration(default={"edit": EDIT})
    price = providers.Singleton(dict, edit=config.edit)

container = Container()

def answer():
    return container.price()["edit"]
