"""sentry-sdk: init"""
import sentry_sdk

EDIT = 0
SENT = []
sentry_sdk.init(
    "http://key@localhost:1/1", release=str(EDIT), auto_session_tracking=False, default_integrations=False,
    before_send=lambda event, hint: SENT.append(event["release"]),
)

def answer():
    sentry_sdk.capture_message("sold")
    return [int(sentry_sdk.get_client().options["release"]), int(SENT[-1])]
