"""click: a command"""
import click

EDIT = 0

@click.command()
@click.option("--edit", default=EDIT)
def tell(edit):
    return edit

def answer():
    return tell.main([], standalone_mode=False)
