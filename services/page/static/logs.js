// Follows the log of one stage, for as long as somebody looks at it.
"use strict";
const solfaLogs = (() => {
  const MOST = 5000; // lines kept on screen
  const RETRY = 5000; // milliseconds until a stream is asked for again that was refused
  const api = document.body.dataset.api;
  const choice = document.getElementById("log-stage");
  const follow = document.getElementById("log-follow");
  const log = document.getElementById("log");
  const state = document.getElementById("log-state");
  let source = null;
  let retry = 0;
  let inView = false;
  let chosenByHand = false;
  let waiting = [];

  const close = () => {
    clearTimeout(retry);
    source?.close();
    source = null;
  };

  const flush = () => {
    log.append(waiting.map((line) => `${line}\n`).join(""));
    waiting = [];
    while (log.childNodes.length > MOST) log.firstChild.remove();
    if (follow.checked) log.scrollTop = log.scrollHeight;
  };

  const open = () => {
    close();
    log.textContent = "";
    const stage = choice.value;
    if (choice.selectedOptions[0]?.dataset.attempts === "0") {
      state.textContent = `${stage} has not been launched yet; its log begins here when it is.`;
      return;
    }
    state.textContent = "Reading…";
    connect(stage);
  };

  const connect = (stage) => {
    close();
    source = new EventSource(`${api}/stages/${encodeURIComponent(stage)}/logs?follow=true`);
    source.onopen = () => {
      log.textContent = "";
      state.textContent = "Following.";
    };
    source.onerror = () => {
      if (document.body.dataset.gone) return close();
      state.textContent = "The log broke off; trying again.";
      if (source.readyState === EventSource.CLOSED) retry = setTimeout(() => connect(stage), RETRY);
    };
    source.addEventListener("line", (event) => {
      if (!waiting.length) requestAnimationFrame(flush);
      waiting.push(event.data);
    });
    source.addEventListener("end", () => {
      close();
      state.textContent = log.textContent || waiting.length ? "This attempt has ended." : "This attempt has ended; it wrote nothing.";
    });
  };

  // What a newer page knows of the stages: another attempt is followed, and so is another stage where nobody has chosen one.
  const update = (page) => {
    const before = `${choice.value} ${choice.selectedOptions[0]?.dataset.attempts}`;
    const newer = page.getElementById("log-stage");
    if (!newer) return;
    for (const option of newer.options) {
      const mine = [...choice.options].find((one) => one.value === option.value);
      if (mine) mine.dataset.attempts = option.dataset.attempts;
    }
    if (!chosenByHand) choice.value = newer.value;
    if (`${choice.value} ${choice.selectedOptions[0]?.dataset.attempts}` !== before && inView) open();
  };

  if (choice) {
    choice.addEventListener("change", () => {
      chosenByHand = true;
      open();
    });
    new IntersectionObserver((entries) => {
      const now = entries[entries.length - 1].isIntersecting;
      if (now && !inView) open();
      if (!now) close();
      inView = now;
    }).observe(document.getElementById("logs"));
    document.addEventListener("visibilitychange", () => (document.hidden ? close() : inView && open()));
  }
  return { update };
})();
