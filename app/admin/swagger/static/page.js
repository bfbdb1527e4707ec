// Shows /openapi.json in Swagger UI, and reads it again when it has changed, while the page is seen.
"use strict";

const PAUSE_MS = 2000;
const ADMIN_SCHEME = "Benana.token";
const root = new URL(".", window.location.href);
const state = document.getElementById("state");
const form = document.getElementById("token");

let etag = "";
let token = "";
let timer = 0;
let ui = null;

function show(text) {
  if (ui === null) {
    ui = window.SwaggerUIBundle({
      spec: JSON.parse(text),
      dom_id: "#swagger-ui",
      presets: [window.SwaggerUIBundle.presets.apis],
      deepLinking: true,
      docExpansion: "list",
      filter: true,
      tryItOutEnabled: true,
      validatorUrl: null,
    });
  } else {
    ui.specActions.updateSpec(text); // what is open, and what was typed, stays
  }
}

async function look() {
  const headers = {};
  if (etag) headers["If-None-Match"] = etag;
  if (token) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(new URL("openapi.json", root), { headers, cache: "no-store" });
  if (answer.status === 304) return;
  if (!answer.ok) throw new Error(`it answers ${answer.status}`);
  const found = await answer.json();
  etag = answer.headers.get("ETag") || "";
  // Behind a proxy the server may stand below a prefix.
  if (root.pathname !== "/") found.servers = [{ url: root.pathname.replace(/\/$/, "") }];
  const hasAdmin = "/plugins" in found.paths;
  form.hidden = hasAdmin;
  show(JSON.stringify(found));
  if (token && hasAdmin) ui.preauthorizeApiKey(ADMIN_SCHEME, token);
}

async function follow() {
  window.clearTimeout(timer);
  try {
    await look();
    state.textContent = token && !form.hidden ? "The token is another one." : "";
  } catch (error) {
    state.textContent = `The server cannot be asked what is live (${error.message}). Trying again.`;
  }
  window.clearTimeout(timer);
  if (document.visibilityState === "visible") timer = window.setTimeout(follow, PAUSE_MS);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  token = form.querySelector("input").value;
  etag = "";
  follow();
});
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") follow();
});
follow();
