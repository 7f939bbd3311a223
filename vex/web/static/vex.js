// Comfort only: copy buttons, lists that are filtered while one types, and "/" for the filter field. Every page works without this.
"use strict";
(() => {
  const say = (text) => { document.querySelector(".status").textContent = text; };

  const copy = async (text) => {
    // Browsers offer the clipboard on HTTPS and localhost only; elsewhere the older way is left.
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    const field = document.createElement("textarea");
    field.value = text;
    field.className = "hidden";
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    if (!done) throw new Error("not copied");
  };

  const addButtons = (place) => {
    for (const holder of place.querySelectorAll(".copy")) {
      const code = holder.firstElementChild;
      const text = holder.dataset.copy || code.textContent;
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = "Copy";
      button.setAttribute("aria-label", "Copy " + text);
      button.addEventListener("click", async () => {
        let result = "Copied";
        try { await copy(text); } catch { result = "Failed"; }
        button.textContent = result;
        say(result);
        setTimeout(() => { button.textContent = "Copy"; }, 1500);
      });
      holder.append(button);
    }
  };

  const field = document.getElementById("q");
  if (field) {
    let asked = 0;
    let timer;
    field.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(async () => {
        const url = new URL(field.form.action);
        url.search = new URLSearchParams(new FormData(field.form));
        const number = ++asked;
        let page;
        try {
          const answer = await fetch(url);
          if (!answer.ok) return;
          page = new DOMParser().parseFromString(await answer.text(), "text/html");
        } catch { return; }
        const fresh = page.getElementById("list");
        if (number !== asked || !fresh) return;
        addButtons(fresh);
        document.getElementById("list").replaceWith(fresh);
        history.replaceState(null, "", url);
      }, 200);
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "/" && !event.ctrlKey && !event.metaKey && !/^(INPUT|TEXTAREA)$/.test(event.target.tagName)) {
        event.preventDefault();
        field.focus();
      }
    });
  }
  addButtons(document);
})();
