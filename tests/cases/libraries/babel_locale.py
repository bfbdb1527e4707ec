"""babel: a locale and translations"""
from babel import Locale, numbers
from babel.support import NullTranslations

EDIT = 0
locale = Locale.parse("sv_SE")
texts = NullTranslations()
texts.add_fallback(type("Texts", (NullTranslations,), {"gettext": lambda self, text: str(EDIT)})())

def answer():
    return [int(texts.gettext("edit")), int(numbers.format_decimal(EDIT, locale=locale))]
