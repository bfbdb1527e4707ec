"""django: settings and URLs"""
import django
from django.conf import settings

EDIT = 0
if not settings.configured:
    settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"])
django.setup()
from django.http import JsonResponse
from django.test import RequestFactory
from django.urls import path, resolve

urlpatterns = [path("edit", lambda request: JsonResponse({"edit": EDIT}))]

def answer():
    import json
    view = resolve("/edit").func
    return json.loads(view(RequestFactory().get("/edit")).content)["edit"]
