"""arrow: a locale"""
import arrow
from arrow import locales

EDIT = 0

class ShopLocale(locales.EnglishLocale):
    names = ["shop"]
    and_word = str(EDIT)

def answer():
    return int(locales.get_locale("shop").and_word)

def held():
    return len(locales._locale_map)
