"""aiohttp: an application"""
import asyncio

from aiohttp import web
from aiohttp.test_utils import make_mocked_request

EDIT = 0
routes = web.RouteTableDef()

@routes.get("/edit")
async def tell(request):
    return web.json_response({"edit": EDIT})

app = web.Application()
app.add_routes(routes)

def answer():
    import json

    async def ask():
        request = make_mocked_request("GET", "/edit", app=app)
        found = await app.router.resolve(request)
        return json.loads((await found.handler(request)).body)["edit"]

    return asyncio.run(ask())
