"""itsdangerous: a signed value"""
from itsdangerous import URLSafeSerializer

EDIT = 0
serializer = URLSafeSerializer(f"secret {EDIT}")
SIGNED = serializer.dumps(EDIT)

def answer():
    return serializer.loads(SIGNED)
