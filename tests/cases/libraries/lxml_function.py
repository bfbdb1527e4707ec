"""lxml: a function of XPath in a namespace"""
from lxml import etree

EDIT = 0
shop = etree.FunctionNamespace("urn:shop")
shop.prefix = "shop"

@shop("edit")
def tell(context):
    return EDIT

page = etree.fromstring(f"<page edit='{EDIT}'/>")

def answer():
    return [int(page.xpath("shop:edit()")), int(page.xpath("string(@edit)"))]

def held():
    return len(list(etree.FunctionNamespace("urn:shop")))
