"""redis: a client and a script"""
import redis

EDIT = 0
client = redis.Redis.from_url(f"redis://localhost/{EDIT}")
script = client.register_script(f"return {EDIT}")

def answer():
    return [client.get_connection_kwargs()["db"], int(script.script.split()[-1])]
