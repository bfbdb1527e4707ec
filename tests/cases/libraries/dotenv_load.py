"""python-dotenv: an environment file"""
import io
import os

from dotenv import load_dotenv

EDIT = 0
load_dotenv(stream=io.StringIO(f"DOTENV_EDIT={EDIT}"))

def answer():
    return int(os.environ["DOTENV_EDIT"])
