"""A handler's responder, written out for its parameters: a request runs what it needs, and no more.

The function is made as `dataclasses` make theirs, from text: one that walks through lists of
parameters takes a fifth of a request's time. Handlers that take the same share its code.
"""

import functools
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import falcon

from app.loading.body_parameter import Provider
from app.loading.constraints import Check
from app.loading.field_types import Converter
from app.loading.form_values import MakeOfForm
from app.loading.forms import FormReader
from app.loading.handler_signature import REQUIRED
from app.loading.request_faults import UnfitRequest, with_fault
from app.loading.request_values import RequestValue
from app.loading.return_values import Answerer
from app.loading.strict_json import to_json
from app.loading.typed_body import BodyFaults

Responder = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Plan:
    """How the parameters of a handler are filled, and what becomes of what it returns.

    `fields` are those of the template; `converters` and `checks` are for some of them. `providers`
    and `constants` are by parameter. `read_form` reads the form, if one is taken; `of_form` makes
    the parameters that take all of it. `choose` chooses the media type of the answer, before the
    handler is called; None where there is no choice. `answer` is asked for all answers but a dict
    and a model, and for those too unless `is_plain`.
    """

    handler: Callable[..., Any]
    fields: tuple[str, ...]
    converters: Mapping[str, Converter]
    checks: Mapping[str, Check]
    values: tuple[RequestValue, ...]
    read_form: FormReader | None
    of_form: Mapping[str, MakeOfForm]
    providers: Mapping[str, Provider]
    constants: Mapping[str, Any]
    request: tuple[str, ...]
    response: tuple[str, ...]
    choose: Callable[[falcon.Request], str] | None
    answer: Answerer
    is_plain: bool


def build_responder(plan: Plan) -> Responder:
    """Return what answers a request by calling a handler.

    Raises:
        falcon.HTTPRouteNotFound: of the responder; a field does not convert.
        UnfitRequest: of the responder; it names all else that does not fit.
    """
    writer = _Writer(plan)
    writer.write()
    made = _code_of("\n".join(writer.lines), writer.own("respond"))
    return types.FunctionType(made, writer.names)


@functools.lru_cache(maxsize=1024)
def _code_of(source: str, name: str) -> types.CodeType:
    """Return the code of the one function in a text."""
    module = compile(source, "<responder>", "exec", dont_inherit=True)
    return next(
        each
        for each in module.co_consts
        if isinstance(each, types.CodeType) and each.co_name == name
    )


class _Writer:
    """Writes the text of one responder, and collects what its names stand for."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.lines: list[str] = []
        self.names: dict[str, Any] = {}
        self._mark = "_"
        while any(field.startswith(self._mark) for field in plan.fields):
            self._mark += "_"
        # Under names of their own, too: a field may be called `type`.
        self._type = self.own("type", type)
        self._misfit = self.own("ValueError", ValueError)

    def own(self, name: str, stands_for: Any = None) -> str:
        """Return a name that no field of the template has, and note what it stands for."""
        found = self._mark + name
        if stands_for is not None:
            self.names[found] = stands_for
        return found

    def write(self) -> None:
        """Write it."""
        plan, own = self.plan, self.own
        req, resp, faults, answer = own("req"), own("resp"), own("faults"), own("answer")
        star = ", *, " if plan.fields else ""
        self._add(0, f"def {own('respond')}({req}, {resp}, /{star}{', '.join(plan.fields)}):")
        chosen = ""
        if plan.choose is not None:
            chosen = f", {own('media_type')}"
            self._add(1, f"{own('media_type')} = {own('choose', plan.choose)}({req})")
        if plan.checks or plan.values or plan.providers or plan.of_form:
            self._add(1, f"{faults} = None")
        given = {name: name for name in plan.fields}
        self._write_fields(faults)
        given |= self._write_values(req, faults)
        given |= dict.fromkeys(plan.request, req) | dict.fromkeys(plan.response, resp)
        for number, (name, value) in enumerate(plan.constants.items()):
            given[name] = own(f"constant{number}", value)
        given |= self._write_providers(req, resp, faults)
        if plan.checks or plan.values:
            unfit = own("UnfitRequest", UnfitRequest)
            self._add(1, f"if {faults} is not None:", f"    raise {unfit}({faults})")
        arguments = ", ".join(f"{name}={value}" for name, value in given.items())
        self._add(1, f"{answer} = {own('handler', plan.handler)}({arguments})")
        call = f"{own('answer_by', plan.answer)}({req}, {resp}, {answer}{chosen})"
        if plan.is_plain:  # the usual answer, without a call
            encode, kind, has = own("to_json", to_json), own("kind"), own("hasattr", hasattr)
            self._add(
                1,
                f"{kind} = {self._type}({answer})",
                f"if {kind} is {own('dict', dict)} or {has}({kind}, '__pydantic_serializer__'):",
                f"    {resp}.content_type = {falcon.MEDIA_JSON!r}",
                f"    {resp}.data = {resp}.answered = {encode}({answer})",
                "else:",
                f"    {call}",
            )
        else:
            self._add(1, call)

    def _write_fields(self, faults: str) -> None:
        error, add = self.own("error"), self.own("with_fault", with_fault)
        # As with Falcon's converters: what does not convert is not of this route.
        nowhere = self.own("NotFound", falcon.HTTPRouteNotFound)
        for number, (name, converter) in enumerate(self.plan.converters.items()):
            convert = self.own(f"convert{number}", converter)
            self._try(f"{name} = {convert}({name})", self._misfit, f"raise {nowhere} from None")
        for number, (name, check) in enumerate(self.plan.checks.items()):
            made = f"{name} = {self.own(f'check{number}', check)}({name})"
            noted = f"{faults} = {add}({faults}, {name!r}, 'path', {error})"
            self._try(made, f"{self._misfit} as {error}", noted)

    def _write_values(self, req: str, faults: str) -> dict[str, str]:
        params, found, error = self.own("params"), self.own("found"), self.own("error")
        add, given = self.own("with_fault", with_fault), {}
        form = self.own("form")
        if self.plan.read_form is not None:
            self._add(1, f"{form} = {self.own('read_form', self.plan.read_form)}({req})")
        if any(value.find is None for value in self.plan.values):
            self._add(1, f"{params} = {req}.params")
        for number, value in enumerate(self.plan.values):
            local = given[value.parameter] = self.own(f"value{number}")
            place = f"{faults}, {value.name!r}, {value.where!r}"
            if value.find is None:
                self._add(1, f"{found} = {params}.get({value.name!r})")
            else:
                place_of = form if value.where == "form" else req
                self._add(1, f"{found} = {self.own(f'find{number}', value.find)}({place_of})")
            self._add(1, f"if {found} is None:")
            if value.default is REQUIRED:
                self._add(2, f"{faults} = {add}({place}, 'it is missing')")
            else:
                default = self.own(f"default{number}")
                self.names[default] = value.default
                self._add(2, f"{local} = {default}")
            if value.is_text or value.convert is not None:
                made = found
                if value.convert is not None:
                    made = f"{self.own(f'make{number}', value.convert)}({found})"
                self._add(1, f"elif {self._type}({found}) is {self.own('str', str)}:")
                # What does not fit is read again, by whom that knows how to say it.
                self._try(f"{local} = {made}", self._misfit, f"{local} = {found} = [{found}]", 2)
                self._add(1, f"if {self._type}({found}) is {self.own('list', list)}:")
            else:
                self._add(1, "else:")
            read = self.own(f"read{number}", value.read)
            noted = f"{faults} = {add}({place}, {error})"
            self._try(f"{local} = {read}({found})", f"{self._misfit} as {error}", noted, 2)
        return given

    def _write_providers(self, req: str, resp: str, faults: str) -> dict[str, str]:
        given = {}
        error, body_faults = self.own("error"), self.own("BodyFaults", BodyFaults)
        unfit = self.own("UnfitRequest", UnfitRequest)
        form = self.own("form")
        asked: list[tuple[str, Callable[..., Any], str]]
        asked = [(name, make, form) for name, make in self.plan.of_form.items()]
        asked += [(name, make, f"{req}, {resp}") for name, make in self.plan.providers.items()]
        for number, (name, provider, of) in enumerate(asked):
            local = given[name] = self.own(f"provided{number}")
            self._try(
                f"{local} = {self.own(f'provide{number}', provider)}({of})",
                f"{body_faults} as {error}",
                f"raise {unfit}([*({faults} or ()), *{error}.faults]) from None",
            )
        return given

    def _try(self, what: str, kind: str, otherwise: str, depth: int = 1) -> None:
        self._add(depth, "try:", f"    {what}", f"except {kind}:", f"    {otherwise}")

    def _add(self, depth: int, *lines: str) -> None:
        self.lines += ["    " * depth + line for line in lines]
