"""The page /docs: a line for each route, from the API's OpenAPI document; it needs no script and no other host."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Haptic: the API</title>
<style>
  body { font: 16px/1.6 system-ui, sans-serif; max-width: 48rem; margin: 3rem auto; padding: 0 1rem; }
  :root { color-scheme: light dark; }
  code, pre { font: 14px/1.5 ui-monospace, monospace; } dt { margin-top: .6rem; } dd { margin: 0 0 0 1.5rem; }
</style>
</head>
<body>
<h1>The API</h1>
<p>This is the list. What each route takes and answers, field by field, is the OpenAPI document at
<a href="/openapi.json">/openapi.json</a>: to try it, open that in a client of your own, such as Swagger UI or Bruno.
What is public can be asked from here by its link, or by a command:</p>
<pre>curl -s http://127.0.0.1:8000/v1/info</pre>
<p>What is private takes a token, as <code>Authorization: Bearer …</code>, from
<code>POST /v1/sessions</code> or <code>POST /v1/login</code>; in Python, <code>service.client</code> does it all.</p>
"""


def page(document: Mapping[str, Any]) -> str:
    """Return the page of an OpenAPI document: routes by their tag, each with its parameters and what it is for."""
    parts, tag = [HEAD], None
    routes = [
        (path, method, route)
        for path, methods in document["paths"].items()
        for method, route in methods.items()
    ]
    for path, method, route in sorted(routes, key=lambda r: r[2]["tags"]):
        if route["tags"] != tag:
            parts.append(f"{'</dl>' if tag else ''}<h2>{escape(' '.join(route['tags']))}</h2><dl>")
            tag = route["tags"]
        parts.append(f"<dt>{_name(path, method, route)}</dt><dd>{escape(_purpose(route))}</dd>\n")
    return "".join([*parts, "</dl></body></html>\n"])


def _name(path: str, method: str, route: Mapping[str, Any]) -> str:
    """Return method and path, a link where a browser can ask for it as it is, with what else the query may say."""
    parameters = route.get("parameters", [])
    query = "&".join(p["name"] for p in parameters if p["in"] == "query")
    private = any(p["name"] == "authorization" for p in parameters)
    shown = escape(path)
    if method == "get" and "{" not in path and not private:
        shown = f'<a href="{shown}">{shown}</a>'
    said = f"<code>{method.upper()} {shown}</code>" + (f" <code>?{escape(query)}</code>" if query else "")
    return f"{said}, private" if private else said


def _purpose(route: Mapping[str, Any]) -> str:
    """Return the first paragraph of a route's description in one line."""
    return " ".join(str(route.get("description", route["summary"])).split("\n\n")[0].split())
