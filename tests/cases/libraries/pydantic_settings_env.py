"""pydantic-settings: settings out of the environment"""
import os

from pydantic_settings import BaseSettings

EDIT = 0
os.environ.setdefault("SHOP_EDIT", str(EDIT))

class Settings(BaseSettings):
    shop_edit: int

settings = Settings()

def answer():
    return settings.shop_edit
