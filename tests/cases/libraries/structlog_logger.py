"""structlog: a configured logger"""
import structlog

EDIT = 0
WRITTEN = []

def note(logger, method, event):
    WRITTEN.append(EDIT)
    raise structlog.DropEvent

structlog.configure(processors=[note], cache_logger_on_first_use=False)
log = structlog.get_logger()

def answer():
    log.info("sold")
    return WRITTEN[-1]
