"""A plugin's handler becomes a Falcon responder.

A handler's parameters are resolved once, when it is registered; a request only runs what comes of
it (`responders.py`).
"""

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import falcon

from app.loading.annotations import AnnotationError, is_a, is_bare, is_text
from app.loading.body_parameter import MAX_BODY_BYTES, Provider, body_provider
from app.loading.constraints import Check, constraint_check, takes_text
from app.loading.event_streams import MEDIA_EVENTS, event_answerer
from app.loading.field_types import Converter, advice_for, field_converter
from app.loading.form_values import (
    MakeOfForm,
    file_limit,
    files_of,
    form_maker,
    form_value,
    is_file,
)
from app.loading.forms import FormReader
from app.loading.handler_kinds import hidden_function, refuse_kind, with_result
from app.loading.handler_signature import HandlerParameter, HandlerSignature, Kind
from app.loading.markers import marker_of, parameter_fault, produces_of, returns_fault
from app.loading.pydantic_types import TOO_DEEP
from app.loading.representations import chooser, produces_fault
from app.loading.request_values import RequestValue, is_filled, request_value
from app.loading.responders import Plan, Responder, build_responder
from app.loading.return_values import answerer, status_fault
from app.loading.signatures import (
    HandlerError,
    Taken,
    describe,
    is_lambda,
    returned_by,
    taken_by,
)
from app.loading.stream_annotations import stream_fault
from app.plugin import Form, PluginContext
from app.uri_templates import template_fields

_REQUEST_NAMES = frozenset({"req", "request"})
_RESPONSE_NAMES = frozenset({"resp", "response"})


def read_handler(
    handler: Callable[..., Any],
    uri_template: str,
    *,
    context: PluginContext | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
    events: bool = False,
    media_types: Collection[str] = (),
    status: int | None = None,
) -> tuple[Responder, HandlerSignature]:
    """Resolve a handler's parameters against its template.

    Args:
        handler: any callable. Its parameters are filled by name (the template's fields, `body`,
            `req`, `resp`), by annotation (`falcon.Request`, `falcon.Response`, `PluginContext`,
            `File`, and what `Form` and the like mark) and from the query.
        uri_template: a Falcon URI template.
        context: the plugin's, None where there is none.
        max_body_bytes: the size of the largest body that is read for a parameter `body`.
        events: whether what the handler yields is sent as server-sent events.
        media_types: those for which the plugin has media handlers of its own.
        status: that of an answer of None, 204 unless it is given.

    Returns:
        What is called as `(req, resp, **fields)`, and what the handler takes and returns. The
        handler's return value becomes the JSON answer; None becomes 204, unless the handler takes
        the response.

    Raises:
        HandlerError: the signature does not fit the template; all faults are named at once.
    """
    if not callable(handler):
        raise HandlerError(f"the handler is {handler!r}, expected a callable")
    refuse_kind(handler)
    taken = taken_by(handler)
    fields = template_fields(uri_template)
    returns = returned_by(handler)
    produces = produces_of(returns)
    found = _Resolution(handler, taken, fields, context, max_body_bytes, events, produces)
    if fault := (
        returns_fault(returns)
        or produces_fault(produces, media_types)
        or status_fault(status, returns)
        or stream_fault(handler, returns, events=events)
    ):
        found.faults.append(fault)
    plan = found.plan(falcon.HTTP_204 if status is None else falcon.code_to_http_status(status))
    sent = (MEDIA_EVENTS,) if events else produces
    signature = HandlerSignature(tuple(found.parameters), returns, sent)
    return build_responder(plan), signature


@dataclass
class _Resolution:
    """Finds what fills each parameter of a handler, and all that is wrong with them."""

    handler: Callable[..., Any]
    taken: Taken
    fields: dict[str, bool]
    context: PluginContext | None
    max_body_bytes: int
    events: bool
    produces: tuple[str, ...]
    parameters: list[HandlerParameter] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    converters: dict[str, Converter] = field(default_factory=dict)
    checks: dict[str, Check] = field(default_factory=dict)
    values: list[RequestValue] = field(default_factory=list)
    providers: dict[str, Provider] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    of_form: dict[str, MakeOfForm] = field(default_factory=dict)
    form_names: set[str] = field(default_factory=set)

    def plan(self, empty: str) -> Plan:
        """Return what came of it; HandlerError names all faults.

        Args:
            empty: the status of an answer of None.
        """
        taken, faults, fields = self.taken, self.faults, self.fields
        if taken.opaque:
            faults.append(
                "it takes *args, which nothing fills; if that is a decorator, put "
                "@functools.wraps(function) above its inner function, and let it take **kwargs"
            )
        elif hidden := self._hidden():
            faults.append(
                f"its decorator hides what {hidden} may be, so that nothing fills or converts it; "
                "put @functools.wraps(function) above the decorator's inner function"
            )
        for parameter in taken.named.values():
            try:
                self._fill(parameter)
            except RecursionError:
                faults.append(f"parameter {parameter.name!r} has a type {TOO_DEEP}")
        for name in fields.keys() & taken.hidden:
            faults.append(f"the field {{{name}}} is given to it already, expected another name")
        if not taken.rest:
            missing = fields.keys() - taken.named.keys() - taken.hidden
            faults += [f"no parameter takes the field {{{name}}}" for name in missing]
        has_form = bool(self._of_kind("form"))
        if has_form and self._of_kind("body"):
            faults.append("it takes both a form and 'body', expected one of them")
        if len(self.of_form) > 1:
            faults.append(f"{' and '.join(self.of_form)} take all of the form, expected one")
        if faults:
            raise HandlerError(f"{describe(self.handler)}: " + "; ".join(faults))
        response = self._of_kind("response")
        return Plan(
            handler=with_result(self.handler),
            fields=tuple(fields),
            converters=self.converters,
            checks=self.checks,
            values=tuple(self.values),
            read_form=FormReader(self.files, self.max_body_bytes) if has_form else None,
            of_form=self.of_form,
            providers=self.providers,
            constants=self.constants,
            request=self._of_kind("request"),
            response=response,
            choose=chooser(self.produces) if self.produces else None,
            answer=(
                event_answerer(self.context)
                if self.events
                else answerer(owns_response=bool(response), empty=empty)
            ),
            is_plain=not (response or self.events or self.produces),
        )

    def _fill(self, parameter: inspect.Parameter) -> None:
        """Find what fills a parameter."""
        name, annotation = parameter.name, parameter.annotation
        if fault := parameter_fault(parameter):
            self.faults.append(f"parameter {name!r} {fault}")
        elif marker_of(annotation) is not None:
            if name in self.fields:
                self.faults.append(f"the field {name!r} is annotated with where else it comes from")
            if isinstance(marker_of(annotation), Form):
                self._fill_by_form(parameter)
            else:
                self._fill_by_value(parameter)
        elif name in self.fields:
            self._fill_by_field(parameter)
        elif is_a(annotation, falcon.Request) or (is_bare(annotation) and name in _REQUEST_NAMES):
            self._note("request", parameter)
        elif is_a(annotation, falcon.Response) or (is_bare(annotation) and name in _RESPONSE_NAMES):
            self._note("response", parameter)
        elif is_a(annotation, PluginContext):
            self.constants[name] = self.context
            self._note("context", parameter)
        elif is_file(annotation):
            self._fill_by_form(parameter)
        elif name == "body":
            try:
                provider = body_provider(annotation, parameter.default, self.max_body_bytes)
            except AnnotationError as error:
                self.faults.append(f"body is annotated {error}")
                return
            self.providers[name] = provider
            self._note("body", parameter)
        elif not self._is_own(parameter):  # else the plugin gives it itself
            self._fill_by_value(parameter)

    def _fill_by_field(self, parameter: inspect.Parameter) -> None:
        name, annotation = parameter.name, parameter.annotation
        try:
            is_own = self.fields[name] or takes_text(annotation)
            converter = None if is_own else field_converter(annotation)
            check = constraint_check(annotation)
        except AnnotationError as error:
            self.faults.append(f"the field {name!r} is annotated {error}")
            return
        if converter is not None:
            self.converters[name] = converter
        if check is not None:
            self.checks[name] = check
        self._note("path", parameter)

    def _fill_by_value(self, parameter: inspect.Parameter) -> None:
        """Have the request's query, headers or cookies fill a parameter."""
        name, empty = parameter.name, parameter.empty
        try:
            found = request_value(name, parameter.annotation, parameter.default)
        except AnnotationError as error:
            advice = advice_for(parameter.annotation)
            self.faults.append(f"parameter {name!r} is annotated {error}{advice}")
            return
        if found is not None:
            self.values.append(found)
            self._note(found.where, parameter, found.name)
        elif parameter.default is empty:
            self.faults.append(
                f"parameter {name!r} is not filled by anything, expected a field of the template, "
                "'body', a falcon.Request, a falcon.Response, a PluginContext, a File, a default "
                "value, or the annotation of a query parameter, as int"
            )

    def _fill_by_form(self, parameter: inspect.Parameter) -> None:
        """Have a form fill a parameter: one of its fields, a file, or all of it."""
        name, annotation, default = parameter.name, parameter.annotation, parameter.default
        try:
            found = form_value(name, annotation, default)
            if found is None:
                self.of_form[name] = form_maker(annotation, default, self.form_names)
                for file, limit in files_of(annotation).items():
                    self.files.setdefault(file, limit or self.max_body_bytes)
        except AnnotationError as error:
            self.faults.append(f"parameter {name!r} is annotated {error}")
            return
        called = "" if found is None else found.name
        if found is not None:
            self.values.append(found)
            self.form_names.add(called)
            if is_file(annotation):
                self.files[called] = file_limit(annotation) or self.max_body_bytes
        self._note("form", parameter, called)

    def _note(self, kind: Kind, parameter: inspect.Parameter, name: str | None = None) -> None:
        name = parameter.name if name is None else name
        made = HandlerParameter(kind, parameter.name, name, parameter.annotation, parameter.default)
        self.parameters.append(made)

    def _of_kind(self, kind: Kind) -> tuple[str, ...]:
        return tuple(each.parameter for each in self.parameters if each.kind == kind)

    def _hidden(self) -> str:
        """Return the parameters that are to be filled and that a decorator does not show."""
        function = hidden_function(self.handler)
        if function is None:
            return ""
        shown = self.taken.named.keys()
        # A field comes all the same, as a text.
        return ", ".join(
            repr(name)
            for name, each in taken_by(function).named.items()
            if name not in shown
            and not self._is_own(each)
            and (not is_text(each.annotation) if name in self.fields else is_filled(each))
        )

    def _is_own(self, parameter: inspect.Parameter) -> bool:
        """Tell whether a parameter's default is what the plugin wants it to be."""
        name = parameter.name
        if parameter.default is parameter.empty:
            return False
        return name.startswith("_") or name in self.taken.bound or is_lambda(self.handler)
