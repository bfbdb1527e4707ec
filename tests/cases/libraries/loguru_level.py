"""loguru: a level"""
from loguru import logger

EDIT = 0
logger.level("NOTE", no=33, icon=str(EDIT))

def answer():
    return int(logger.level("NOTE").icon)
