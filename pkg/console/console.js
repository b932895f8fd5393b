// Keeps a page of the console up to date. Every page works without it.
"use strict";
(() => {
  const body = document.body, data = body.dataset;
  const offset = data.now ? Number(data.now) - Date.now() : 0; // of the server's clock
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const byId = (id) => document.getElementById(id);
  const now = () => Date.now() + offset;

  // Times. The words are those of distance and inSentence in pages.go.
  const duration = (ms) => {
    const s = Math.floor(ms / 1000);
    if (s < 120) return s + " s";
    if (s < 7200) return Math.floor(s / 60) + " min";
    if (s < 172800) return Math.floor(s / 3600) + " h";
    return Math.floor(s / 86400) + " days";
  };
  const distance = (at, from) => {
    const d = at - from, size = Math.abs(d);
    if (size < 1000) return "now";
    return d < 0 ? duration(size) + " ago" : "in " + duration(size);
  };

  const words = (time, from) => {
    const at = Date.parse(time.dateTime), text = distance(at, from), past = at <= from;
    switch (time.dataset.verb) {
      case "due": return past ? "now" : text;
      case "expires": return (past ? "expired " : "expires ") + text;
    }
    return text;
  };

  // A bar shows how much of the token's life is left. Bars of short lives move all the time.
  const drawBar = (svg, from) => {
    const began = Number(svg.dataset.from), until = Number(svg.dataset.until);
    const left = until > began ? Math.min(1, Math.max(0, (until - from) / (until - began))) : 0;
    const short = until - began < 600000;
    if (short) svg.classList.add("short");
    svg.lastElementChild.style.width = left * 100 + "%";
    svg.classList.toggle("low", left < 0.15);
  };
  const inView = new Set();
  const seen = new IntersectionObserver((entries) => {
    for (const e of entries) {
      if (e.isIntersecting) { inView.add(e.target); redraw(e.target, now()); } else inView.delete(e.target);
    }
  });
  const redraw = (element, from) => {
    if (element.localName === "time") {
      const text = words(element, from);
      if (element.textContent !== text) element.textContent = text;
    } else drawBar(element, from);
  };
  const animate = (root) => {
    for (const element of root.querySelectorAll("time[datetime], svg.life-bar")) {
      if (element.localName === "time" && !element.title) element.title = element.dateTime.replace("T", " ").replace("Z", " UTC");
      seen.observe(element);
    }
  };
  const forget = (root) => {
    for (const element of root.querySelectorAll("time[datetime], svg.life-bar")) { seen.unobserve(element); inView.delete(element); }
  };
  setInterval(() => {
    if (document.hidden) return;
    const from = now();
    for (const element of inView) redraw(element, from);
  }, 1000);

  // Copy buttons.
  const prepare = (root) => {
    animate(root);
    for (const picture of root.querySelectorAll(".scroll")) picture.scrollLeft = picture.scrollWidth; // to what is newest
    for (const button of root.querySelectorAll("[data-copy]")) button.hidden = !navigator.clipboard;
  };
  document.addEventListener("click", async (e) => {
    const button = e.target.closest("[data-copy]");
    if (button) {
      const text = button.parentElement.querySelector("code").textContent;
      try { await navigator.clipboard.writeText(text); button.textContent = "Copied"; } catch { button.textContent = "Not copied"; }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    }
    const dialog = byId("result");
    if (e.target.closest("[data-close]") && dialog && dialog.open) { e.preventDefault(); dialog.close(); }
  });

  // Put new HTML in place of an element, and leave the focus where it was.
  const parse = (html) => {
    const t = document.createElement("template");
    t.innerHTML = html;
    return t.content.firstElementChild;
  };
  const keyOf = (e) => e && (e.id ? "#" + CSS.escape(e.id) : e.getAttribute("formaction") ? `[formaction="${CSS.escape(e.getAttribute("formaction"))}"]`
    : e.getAttribute("href") ? `[href="${CSS.escape(e.getAttribute("href"))}"]` : "");
  const replace = (old, fresh) => {
    const active = document.activeElement, inside = old.contains(active);
    const key = inside ? keyOf(active) : "";
    forget(old);
    old.replaceWith(fresh);
    prepare(fresh);
    if (inside && key) { const again = fresh.matches(key) ? fresh : fresh.querySelector(key); if (again) again.focus({ preventScroll: true }); }
  };

  // Rows. A bar that was refilled moves from where it was.
  const replaceRow = (old, fresh) => {
    const before = old.querySelector("svg.life-bar"), after = fresh.querySelector("svg.life-bar");
    const refilled = before && after && before.dataset.until !== after.dataset.until;
    const width = refilled ? before.lastElementChild.style.width : "";
    replace(old, fresh);
    if (refilled && width && !calm.matches) {
      after.lastElementChild.style.width = width;
      after.getBoundingClientRect();
      after.classList.add("refill");
      drawBar(after, now());
      setTimeout(() => after.classList.remove("refill"), 900);
    }
    fresh.classList.add("changed");
  };
  const rows = byId("rows");
  const rowOf = (name) => rows.querySelector(`[data-row="${CSS.escape(name)}"]`);
  const applyRows = (changed) => {
    for (const [name, html] of Object.entries(changed)) {
      const fresh = parse("<table><tbody>" + html + "</tbody></table>").querySelector("tr"), old = rowOf(name);
      if (old) replaceRow(old, fresh); else { rows.append(fresh); prepare(fresh); }
    }
  };
  // applyOrder reports whether every row is there.
  const applyOrder = (order) => {
    const wanted = new Set(order);
    for (const row of [...rows.children]) if (!wanted.has(row.dataset.row)) { forget(row); row.remove(); }
    let complete = true;
    order.forEach((name) => {
      const row = rowOf(name);
      if (!row) complete = false;
    });
    let place = rows.firstElementChild;
    for (const name of order) {
      const row = rowOf(name);
      if (!row) continue;
      if (row === place) place = place.nextElementSibling; else rows.insertBefore(row, place);
    }
    return complete;
  };

  // Loading a page again, in whole or in part.
  let loading = 0;
  const load = async (address, use) => {
    const mine = ++loading;
    try {
      const answer = await fetch(address, { credentials: "same-origin", headers: { Accept: "text/html" } });
      if (answer.status >= 500) { later(); return; } // the store may be back soon; the page that is here stays
      if (!answer.ok || answer.redirected) { location.reload(); return; }
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (mine === loading) use(page);
    } catch { later(); }
  };
  const adopt = (page, ids) => {
    for (const id of ids) {
      const old = byId(id), fresh = page.getElementById(id);
      if (old && fresh) replace(old, document.importNode(fresh, true));
    }
    data.seq = page.body.dataset.seq;
  };
  const refreshList = (address) => load(address, (page) => {
    if (!page.getElementById("rows") || !rows) { location.assign(address); return; }
    forget(rows);
    rows.replaceChildren(...[...page.getElementById("rows").children].map((r) => document.importNode(r, true)));
    prepare(rows);
    adopt(page, ["fault", "attention", "summary", "pages", "panel", "notices"]);
    data.query = page.body.dataset.query;
    history.replaceState(null, "", address);
    connect();
  });
  const refreshOne = () => load(location.pathname, (page) => {
    for (const fresh of page.querySelectorAll("[data-live]")) {
      const old = byId(fresh.id);
      if (!old) continue;
      const inputs = "input:not([type=hidden])", kept = old.querySelector(inputs + ":focus") || [...old.querySelectorAll(inputs)].some((i) => i.value);
      // What somebody types is not lost, unless there is nothing left to type.
      if (kept && fresh.querySelector(inputs) || old.outerHTML === fresh.outerHTML) continue;
      const open = old.querySelector("details[open]");
      const node = document.importNode(fresh, true);
      const scroll = old.querySelector(".scroll"), back = scroll && scroll.scrollLeft < scroll.scrollWidth - scroll.clientWidth - 5;
      const at = scroll && scroll.scrollLeft;
      if (open && node.querySelector("details")) node.querySelector("details").open = true;
      replace(old, node);
      if (back) node.querySelector(".scroll").scrollLeft = at; // the person looks at something older
    }
    data.seq = page.body.dataset.seq;
  });

  // The stream.
  let source, waiting;
  const live = byId("live");
  const say = (on) => {
    if (!live) return;
    const text = on ? "live" : "not live";
    if (live.textContent !== text) live.textContent = text;
    live.className = "badge " + (on ? "good" : "off");
  };
  const later = () => { say(false); clearTimeout(waiting); waiting = setTimeout(connect, 10000); };
  const receive = (e) => {
    const u = JSON.parse(e.data);
    say(true);
    if (u.reload) { location.reload(); return; }
    if (u.stale) { refreshOne(); return; }
    for (const [id, html] of Object.entries(u.parts || {})) { const old = byId(id); if (old) replace(old, parse(html)); }
    if (rows && u.rows) applyRows(u.rows);
    if (u.order && !rows && u.order.length) { location.reload(); return; } // the first connection
    if (rows && u.order) { order = u.order; }
    if (rows && order && !applyOrder(order)) missing(); else clearTimeout(gap);
    data.seq = u.seq;
  };
  let order, gap;
  const missing = () => { // the rest comes within moments, or was lost
    clearTimeout(gap);
    gap = setTimeout(() => refreshList(location.pathname + location.search), 3000);
  };
  const disconnect = () => {
    if (source) source.close();
    clearTimeout(waiting);
  };
  // Browsers allow about six connections to a host over HTTP/1.1, in all tabs together: a tab that nobody sees takes none.
  const connect = () => {
    disconnect();
    if (document.hidden) { say(false); return; }
    order = undefined;
    const ask = new URLSearchParams(data.query || "");
    if (data.connection) ask.set("connection", data.connection);
    ask.set("boot", data.boot);
    ask.set("seq", data.seq);
    source = new EventSource("/events?" + ask);
    source.onopen = () => say(true);
    source.onmessage = receive;
    source.onerror = () => { source.close(); later(); };
  };

  // Find, filter and sort without loading the whole page.
  const find = byId("find");
  if (find) {
    find.querySelector("button").hidden = true;
    let typing;
    const go = () => {
      const ask = new URLSearchParams([...new FormData(find)].filter(([, value]) => value));
      refreshList(ask.size ? "/?" + ask : "/");
    };
    find.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(go, 200); });
    find.addEventListener("submit", (e) => { e.preventDefault(); clearTimeout(typing); go(); });
  }

  // Actions: the answer is a page, and its middle is shown in a dialog.
  const dialog = byId("result");
  const answerWith = (content, problem) => {
    const panel = parse(`<div class="panel ${problem ? "bad" : "good"}"></div>`);
    panel.append(...content, parse('<p class="row"><button type="button" class="second" data-close>Close</button></p>'));
    const title = panel.querySelector("h1");
    if (title) title.id = "result-title";
    dialog.replaceChildren(panel);
    prepare(dialog);
    dialog.showModal();
  };
  let cameFrom = ""; // the button, which may be replaced while the dialog is open
  document.addEventListener("submit", async (e) => {
    const form = e.target, button = e.submitter;
    if (form.method !== "post" || !dialog || (button && button.hasAttribute("data-plain"))) return;
    e.preventDefault();
    const address = button && button.getAttribute("formaction") || form.getAttribute("action");
    cameFrom = keyOf(button);
    if (button) { button.disabled = true; button.setAttribute("aria-busy", "true"); }
    try {
      const answer = await fetch(address, { method: "POST", credentials: "same-origin", body: new URLSearchParams(new FormData(form)),
        headers: { Accept: "text/html", "X-Tokenturn-Script": "1" } });
      if (answer.status === 204) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const result = page.getElementById("answer"), refusal = page.querySelector("main");
      if (result) for (const back of result.querySelectorAll("[data-close]")) back.closest("p").remove();
      answerWith(result ? [...result.childNodes] : [...refusal.childNodes], !result || result.classList.contains("bad"));
      if (answer.ok) form.reset();
    } catch {
      answerWith([parse("<h1>No answer</h1>"),
        parse('<p role="alert">tokenturn does not answer. It is not known whether the action was carried out.</p>')], true);
    } finally {
      if (button) { button.disabled = false; button.removeAttribute("aria-busy"); }
    }
  });
  // The link is shown once: nothing keeps it when the dialog is closed.
  if (dialog) dialog.addEventListener("close", () => {
    dialog.replaceChildren();
    const back = cameFrom && document.querySelector(cameFrom);
    (back || byId("content")).focus({ preventScroll: true });
    if (data.connection) refreshOne();
  });

  prepare(document);
  if (data.boot) {
    connect();
    addEventListener("pagehide", disconnect);
    addEventListener("pageshow", (e) => { if (e.persisted) location.reload(); });
    document.addEventListener("visibilitychange", connect);
  }
})();
