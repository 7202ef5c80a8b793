// Stands where the page opens its WebSocket to hm play: the walk goes on in a worker of this browser.
"use strict";
function openWalk() {
  const threads = new URLSearchParams(location.search).get("threads");
  if (threads !== "1" && !crossOriginIsolated && isSecureContext && navigator.serviceWorker && !sessionStorage.getItem("hm-isolated")) {
    sessionStorage.setItem("hm-isolated", "tried");  // once: some browsers refuse
    const again = () => location.reload();
    navigator.serviceWorker.register("isolate.js").then(() => navigator.serviceWorker.ready).then(again, again);
    return { readyState: 0 };
  }
  const worker = new Worker(`engine.js${location.search}`);
  worker.readyState = 1;
  worker.send = text => worker.postMessage(text);
  worker.onerror = event => worker.onmessage({ data: JSON.stringify({ type: "error", what: event.message || "the engine could not be loaded" }) });
  return worker;
}
