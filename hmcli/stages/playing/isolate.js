// Threads need a page that is isolated from others, and a host of plain files does not say so: this service worker
// adds the headers to what the host answers. It keeps nothing, and asks nobody else.
"use strict";
const ISOLATED = {
  "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp", "Cross-Origin-Resource-Policy": "same-origin",
};
addEventListener("install", () => skipWaiting());
addEventListener("activate", event => event.waitUntil(clients.claim()));
addEventListener("fetch", event => {
  if (new URL(event.request.url).origin !== location.origin) return;
  event.respondWith((async () => {
    const answer = await fetch(event.request);
    if (!answer.status) return answer;
    const headers = new Headers(answer.headers);
    for (const [name, value] of Object.entries(ISOLATED)) headers.set(name, value);
    return new Response(answer.body, { status: answer.status, statusText: answer.statusText, headers });
  })());
});
