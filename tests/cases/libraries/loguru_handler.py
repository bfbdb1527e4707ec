"""loguru: a handler"""
from loguru import logger

EDIT = 0
WRITTEN = []
logger.add(lambda line: WRITTEN.append(EDIT), filter=lambda record: record["extra"].get("to") == "shop")

def answer():
    with logger.contextualize(to="shop"):
        logger.info("sold")
    return WRITTEN[-1]

def held():
    return len(logger._core.handlers)
