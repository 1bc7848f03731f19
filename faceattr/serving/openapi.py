"""What the server can be asked, as OpenAPI 3.1: for generators of clients and for the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from faceattr import __version__
from faceattr.serving.limits import Limits
from faceattr.tasks import Task

REFUSALS = {
    "400": "The request is malformed, or asks under another host name.",
    "401": "The token is missing or wrong.",
    "403": "A page of another site asks, and there is no token.",
    "408": "The body did not come in time.",
    "413": "The body or the number of images is too large.",
    "415": "The body is of another type.",
    "429": "The queue is full; the header Retry-After tells the seconds to wait.",
    "503": "There was no answer in time.",
}
FILE = {"type": "string", "format": "binary"}
BASE64 = {"type": "string", "contentEncoding": "base64"}
NUMBERS = {"type": "array", "items": {"type": "number"}}


def openapi(tasks: Sequence[Task], limits: Limits) -> dict[str, Any]:
    """The description of a server whose model has these tasks."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "faceattr",
            "version": __version__,
            "description": "Finds faces and says what the model sees in them. Nothing is stored.",
        },
        "paths": {
            "/analyze": {"post": _analyze(limits)},
            "/analyze/batch": {"post": _batch(limits)},
            "/health": {"get": {"summary": "Whether the server lives.", "responses": _health()}},
            "/model": {"get": {"summary": "What there is, and the limits.", "responses": _model()}},
        },
        "components": {
            "schemas": _schemas(tasks),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _analyze(limits: Limits) -> dict[str, Any]:
    content = {
        "multipart/form-data": {"schema": _object({"image": FILE})},
        "application/json": {"schema": _object({"image": BASE64})},
        "image/*": {"schema": FILE},
    }
    answers = {
        "200": _answer("The faces, from left to right.", _reference("Faces")),
        "422": _answer("The image cannot be read.", _reference("Error")),
    }
    summary = f"The faces of one image of up to {limits.max_pixels:,} pixels."
    return _operation(summary, content, answers)


def _batch(limits: Limits) -> dict[str, Any]:
    content = {
        "multipart/form-data": {"schema": _object({"image": _list(FILE)})},
        "application/json": {"schema": _object({"images": _list(BASE64)})},
    }
    one = {"oneOf": [_reference("Faces"), _reference("Error")]}
    results = {"type": "object", "properties": {"results": _list(one)}}
    answers = {"200": _answer("For each image its faces, or why it cannot be read.", results)}
    return _operation(f"The faces of up to {limits.max_images} images, in order.", content, answers)


def _operation(summary: str, content: dict, answers: dict) -> dict[str, Any]:
    body = {"required": True, "content": content}
    return {"summary": summary, "requestBody": body, "responses": answers | _refused(*REFUSALS)}


def _health() -> dict[str, Any]:
    status = _object({"status": {"type": "string"}})
    lives = {"200": _answer("It does.", status), "503": _answer("It does not.", status)}
    return lives | _refused("400", "403")


def _model() -> dict[str, Any]:
    about = _answer("The model, its classes, the detector and the limits.", {"type": "object"})
    return {"200": about} | _refused("400", "401", "403")


def _refused(*statuses: str) -> dict[str, Any]:
    return {status: _answer(REFUSALS[status], _reference("Error")) for status in statuses}


def _answer(text: str, schema: dict) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _object(properties: dict) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(items: dict) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas(tasks: Sequence[Task]) -> dict[str, Any]:
    left_out = {"type": "integer", "description": "How many more were found, smaller ones."}
    return {
        "Face": _face(tasks),
        "Faces": _object({"faces": _list(_reference("Face")), "left_out": left_out}),
        "Error": _object({"error": {"type": "string"}}),
    }


def _face(tasks: Sequence[Task]) -> dict[str, Any]:
    box = {**NUMBERS, "description": "x0, y0, x1, y1 in pixels of the upright image."}
    return {
        "type": "object",
        "properties": {
            "box": box,
            "landmarks": {"type": ["array", "null"], "items": NUMBERS},
            "score": {"type": "number", "description": "The detector's certainty, 0 to 1."},
            "rotation": {"type": "integer", "description": "Quarter turns that set it upright."},
            "too_small": {"type": "boolean", "description": "Too small to be described."},
            "rejected": {"type": "boolean", "description": "Not of the classes asked for."},
            **{task.name: _prediction(task) for task in tasks},
        },
    }


def _prediction(task: Task) -> dict[str, Any]:
    probabilities = {name: {"type": "number"} for name in task.classes}
    return {
        "type": "object",
        "properties": {
            "label": {"type": ["string", "null"], "enum": [*task.classes, None]},
            "probability": {"type": ["number", "null"]},
            "probabilities": {"type": "object", "properties": probabilities},
        },
    }
