"""pillow: a format of images"""
from PIL import Image, ImageFile

EDIT = 0

class ShopImage(ImageFile.ImageFile):
    format = "SHOP"
    format_description = "A shop's"

    def _open(self):
        self._size, self._mode = (EDIT + 1, 1), "L"
        self.tile = []

Image.register_open("SHOP", ShopImage, lambda prefix: prefix == b"shop" * 4)

def answer():
    import io
    return Image.open(io.BytesIO(b"shop" * 4), formats=["SHOP"]).width - 1

def held():
    return Image.ID.count("SHOP")
