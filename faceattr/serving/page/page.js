// The server's description as a page, and a form that asks it. Nothing comes from elsewhere.
"use strict";

const byId = id => document.getElementById(id);

function add(parent, name, text) {
  const element = document.createElement(name);
  element.textContent = text;
  parent.append(element);
  return element;
}

function addJson(parent, title, value) {
  const details = document.createElement("details");
  add(details, "summary", title);
  add(details, "pre", JSON.stringify(value, null, 1));
  parent.append(details);
}

function curl(path, method) {
  const ask = `curl ${new URL(`.${path}`, location)}`;
  if (method !== "post") return ask;
  const more = path.endsWith("batch") ? " -F image=@other.jpg" : "";
  return `${ask} -F image=@photo.jpg${more}`;
}

async function describe() {
  const spec = await (await fetch("openapi.json")).json();
  for (const [path, methods] of Object.entries(spec.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const part = add(byId("paths"), "section", "");
      add(part, "h3", `${method.toUpperCase()} ${path}`);
      add(part, "p", operation.summary);
      add(part, "pre", curl(path, method));
      if (operation.requestBody) addJson(part, "request", operation.requestBody.content);
      addJson(part, "answers", operation.responses);
    }
  }
  const schemas = Object.entries(spec.components.schemas);
  for (const [name, schema] of schemas) addJson(byId("schemas"), name, schema);
}

async function analyze(event) {
  event.preventDefault();
  const files = [...byId("files").files], body = new FormData();
  for (const file of files) body.append("image", file);
  const token = byId("token").value;
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const path = files.length > 1 ? "analyze/batch" : "analyze";
  const answer = byId("answer");
  answer.hidden = false;
  answer.textContent = "…";
  try {
    const response = await fetch(path, { method: "POST", body, headers });
    answer.textContent = `${response.status}\n${JSON.stringify(await response.json(), null, 1)}`;
  } catch (error) {
    answer.textContent = `The server did not answer: ${error.message}`;
  }
}

byId("form").addEventListener("submit", analyze);
describe();
