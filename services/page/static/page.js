// Keeps the page current: a stream says that something has changed, the page is asked for again, and the sections that differ are replaced.
// What is over stays over: `data-gone` on the body says to this script and to logs.js that there is nothing left to ask for.
"use strict";
(() => {
  const PAUSE = 1000; // milliseconds between two looks
  const RETRY = 5000; // until a stream is asked for again that was refused: browsers do so by themselves only where none was
  const AGE = 30000; // between two looks while a stage runs, whose time and whose report's age no stream tells
  const FOCUSABLE = "a, button, summary, select, input, [tabindex]";
  const state = document.getElementById("link-state");
  const say = document.getElementById("announce");
  const here = document.body.dataset.page ?? location.href; // an experiment by its id: another may have the name by now
  const sections = (page) => page.querySelectorAll("main > section[id]:not([data-keep])");
  const shown = new Map([...sections(document)].map((section) => [section.id, section.outerHTML]));
  let stream = null;
  let retry = 0;
  let held = false; // whether a section waits for a selection in it to end
  let looking = false;
  let again = false;

  // Put a newer section in the place of the one that is shown, and leave a person's place in it as it was.
  const replace = (newer) => {
    const older = document.getElementById(newer.id);
    if (!older || shown.get(newer.id) === newer.outerHTML) return;
    if (!getSelection().isCollapsed && getSelection().containsNode(older, true)) {
      held = true;
      return;
    }
    shown.set(newer.id, newer.outerHTML);
    const focused = older.contains(document.activeElement) ? [...older.querySelectorAll(FOCUSABLE)].indexOf(document.activeElement) : -1;
    const id = focused >= 0 ? document.activeElement.id : "";
    const scrolled = [...older.querySelectorAll(".scroll, pre")].map((one) => [one.scrollLeft, one.scrollTop]);
    for (const details of older.querySelectorAll("details[open]")) {
      const same = details.id && newer.querySelector(`#${details.id}`);
      if (same) same.open = true;
    }
    const fresh = document.importNode(newer, true);
    for (const chart of fresh.querySelectorAll(".chart")) {
      const old = document.getElementById(chart.id);
      if (old) chart.replaceWith(old); // what is drawn stays, and moves on
    }
    older.replaceWith(fresh);
    [...fresh.querySelectorAll(".scroll, pre")].forEach((one, place) => scrolled[place] && ([one.scrollLeft, one.scrollTop] = scrolled[place]));
    if (focused >= 0) ((id && document.getElementById(id)) || fresh.querySelectorAll(FOCUSABLE)[focused] || document.getElementById("content")).focus();
    if (typeof solfaCharts !== "undefined") {
      solfaCharts.press();
      solfaCharts.draw(fresh);
    }
  };

  const signIn = () => location.assign(`/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`);

  const gone = () => {
    document.body.dataset.gone = "yes";
    stream.close();
    state.textContent = "This experiment has been deleted.";
    document.getElementById("confirm")?.close();
    for (const one of document.querySelectorAll(".headline .actions, .downloads, #downloads-title")) one.remove();
  };

  const tell = () => {
    const lost = stream.readyState !== EventSource.OPEN;
    state.textContent = lost ? "Connection lost; trying again." : held ? "Waiting while text is selected." : "Live";
  };

  const refresh = async () => {
    if (document.body.dataset.gone) return;
    if (looking) {
      again = true;
      return;
    }
    looking = true;
    try {
      const answer = await fetch(here);
      if (answer.status === 401) return signIn();
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (answer.status === 404 && page.title.endsWith("Solfa")) return gone(); // said by the service, and not by a proxy that misses it
      if (!answer.ok) throw new Error(answer.statusText);
      const phase = page.getElementById("phase")?.textContent.trim();
      if (phase && phase !== document.getElementById("phase").textContent.trim()) say.textContent = `The experiment is ${phase.replace(/^\S\s+/, "")}.`;
      document.title = page.title;
      held = false;
      sections(page).forEach(replace);
      if (typeof solfaLogs !== "undefined") solfaLogs.update(page);
      tell();
    } catch {
      state.textContent = "The service does not answer; trying again.";
    }
    setTimeout(() => {
      looking = false;
      if (again) {
        again = false;
        refresh();
      }
    }, PAUSE);
  };

  const listen = () => {
    clearTimeout(retry);
    stream?.close();
    if (document.hidden || document.body.dataset.gone) return;
    stream = new EventSource(document.body.dataset.live + location.search);
    stream.addEventListener("changed", refresh);
    stream.addEventListener("gone", gone);
    stream.onopen = tell;
    stream.onerror = () => {
      tell();
      if (stream.readyState !== EventSource.CLOSED) return;
      retry = setTimeout(listen, RETRY);
      refresh(); // which finds out why
    };
  };

  // Cancel and retry: asked back first, then sent to the API; a refusal is shown in its own sentence.
  const confirmed = async (act) => {
    const error = document.getElementById("confirm-error");
    try {
      const answer = await fetch(`${document.body.dataset.api}/${act}`, { method: "POST" });
      if (answer.status === 401) return signIn();
      if (!answer.ok) throw new Error((await answer.json()).detail);
      document.getElementById("confirm").close();
      refresh();
    } catch (refused) {
      error.textContent = refused instanceof TypeError ? "The service does not answer; try again in a moment." : refused.message;
    }
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-act]");
    if (!button) return;
    document.getElementById("confirm-text").textContent = button.dataset.ask;
    document.getElementById("confirm-error").textContent = "";
    const yes = document.getElementById("confirm-yes");
    yes.textContent = button.dataset.label;
    yes.onclick = () => confirmed(button.dataset.act);
    document.getElementById("confirm").showModal();
  });

  if (document.body.dataset.live) {
    listen();
    document.addEventListener("visibilitychange", listen);
    document.addEventListener("selectionchange", () => held && getSelection().isCollapsed && refresh());
    setInterval(() => !document.hidden && document.querySelector("#stages .running") && refresh(), AGE);
  }
})();
