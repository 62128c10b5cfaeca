// Search, filters, keys and the theme. Without this file the page is complete, only unfiltered.
"use strict";

const root = document.documentElement;
root.classList.add("js");

const stored = {
  get: (key) => { try { return localStorage.getItem(key); } catch { return null; } },
  set: (key, value) => { try { localStorage.setItem(key, value); } catch { /* private pages do without */ } },
};

const theme = stored.get("theme");
if (theme) root.dataset.theme = theme;

document.addEventListener("DOMContentLoaded", () => {
  const search = document.getElementById("search");
  if (search) page(search);
});

function page(search) {
  const $ = (id) => document.getElementById(id);
  const chapter = $("chapter"), status = $("status");
  const tiles = [...document.querySelectorAll(".tile")];
  const cells = new Map([...document.querySelectorAll(".cell")].map((cell) => [cell.dataset.for, cell]));
  const statements = [...document.querySelectorAll("article.statement")].map((article) => ({
    article,
    chapter: article.dataset.chapter,
    misprint: article.dataset.status !== "ok",
    outcomes: [...article.querySelectorAll(".claim")].map((claim) => claim.dataset.outcome),
    text: plain(article),
  }));

  function plain(article) {
    const copy = article.cloneNode(true);
    copy.querySelectorAll("pre, figure").forEach((part) => part.remove());
    return fold(`${copy.textContent} ${article.dataset.status}`);
  }

  function fold(text) {
    return text.normalize("NFKD").replace(/[\u0300-\u036f]/g, "").toLowerCase().replace(/\s+/g, " ");
  }

  const claims = [...document.querySelectorAll(".claim")].map((claim) => claim.dataset.outcome);

  function apply({ keep = false } = {}) {
    const words = fold(search.value.trim()).split(" ").filter(Boolean);
    const pressed = tiles.filter((tile) => tile.getAttribute("aria-pressed") === "true").map((tile) => tile.dataset.filter);
    const counts = {};
    let shown = 0;
    for (const each of statements) {
      const fits = (!chapter.value || each.chapter === chapter.value)
        && (!status.value || each.misprint === (status.value === "misprint"))
        && words.every((word) => each.text.includes(word));
      if (fits) for (const outcome of each.outcomes) counts[outcome] = (counts[outcome] ?? 0) + 1;
      const visible = fits && (!pressed.length || pressed.some((outcome) => each.outcomes.includes(outcome)));
      each.article.hidden = !visible;
      cells.get(each.article.id)?.classList.toggle("away", !visible);
      shown += visible;
    }
    const filtered = words.length || pressed.length || chapter.value || status.value;
    for (const section of document.querySelectorAll("#sheet > .chapter")) {
      section.hidden = Boolean(section.querySelector("article")) && !section.querySelector("article:not([hidden])");
    }
    for (const tile of tiles) {
      const kind = tile.dataset.filter;
      const count = filtered ? counts[kind] ?? 0 : claims.filter((outcome) => outcome === kind).length;
      tile.querySelector(".count").textContent = count;
      tile.toggleAttribute("data-none", !count);
    }
    const all = statements.length;
    $("shown").firstElementChild.textContent = filtered ? `${shown} of ${all}` : all;
    $("nothing").hidden = Boolean(shown) || !all;
    $("clear").hidden = !filtered;
    if (!keep) remember(pressed);
  }

  // The address keeps the filter (#?q=...), and names statements and claims (#background.hoeffding).
  function remember(pressed) {
    const query = new URLSearchParams();
    if (search.value.trim()) query.set("q", search.value.trim());
    if (chapter.value) query.set("chapter", chapter.value);
    if (status.value) query.set("status", status.value);
    if (pressed.length) query.set("verdict", pressed.join(" "));
    const hash = String(query) ? `#?${query}` : "";
    if (hash !== location.hash && (hash || location.hash.startsWith("#?"))) {
      history.replaceState(null, "", hash || location.pathname + location.search);
    }
  }

  function set(query) {
    search.value = query.get("q") ?? "";
    chapter.value = query.get("chapter") ?? "";
    status.value = query.get("status") ?? "";
    if (chapter.selectedIndex < 0) chapter.value = "";
    if (status.selectedIndex < 0) status.value = "";
    const pressed = (query.get("verdict") ?? "").split(" ");
    for (const tile of tiles) tile.setAttribute("aria-pressed", pressed.includes(tile.dataset.filter));
  }

  function follow() {
    const hash = decode(location.hash.slice(1));
    if (hash.startsWith("?")) {
      set(new URLSearchParams(hash.slice(1)));
      apply({ keep: true });
      return;
    }
    const target = hash && document.getElementById(hash);
    if (!target) return;
    if (target.closest("[hidden]")) {
      set(new URLSearchParams());
      apply({ keep: true });
    }
    target.scrollIntoView();
    target.closest("article")?.focus({ preventScroll: true });
  }

  function decode(text) {
    try { return decodeURIComponent(text); } catch { return text; }
  }

  function step(direction) {
    const visible = statements.map((each) => each.article).filter((article) => !article.hidden);
    const line = parseFloat(getComputedStyle(root).scrollPaddingTop) + 2;
    const tops = visible.map((article) => article.getBoundingClientRect().top);
    const next = direction > 0 ? tops.findIndex((top) => top > line) : tops.findLastIndex((top) => top < line - 4);
    const article = visible[next];
    if (!article) return;
    article.scrollIntoView();
    article.focus({ preventScroll: true });
  }

  search.addEventListener("input", () => apply());
  chapter.addEventListener("change", () => apply());
  status.addEventListener("change", () => apply());
  for (const tile of tiles) {
    tile.addEventListener("click", () => {
      tile.setAttribute("aria-pressed", tile.getAttribute("aria-pressed") !== "true");
      apply();
    });
  }
  search.form.addEventListener("submit", (event) => event.preventDefault());
  $("clear").addEventListener("click", (event) => {
    event.preventDefault();
    set(new URLSearchParams());
    apply();
    search.focus();
  });
  $("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    stored.set("theme", root.dataset.theme);
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.closest("input, select, textarea");
    if (event.key === "Escape" && typing === search) {
      search.value = "";
      search.blur();
      apply();
    } else if (!typing && event.key === "/") {
      event.preventDefault();
      search.focus();
      search.select();
    } else if (!typing && (event.key === "j" || event.key === "k")) {
      step(event.key === "j" ? 1 : -1);
    }
  });
  addEventListener("hashchange", follow);
  addEventListener("beforeprint", () => {
    for (const image of document.querySelectorAll("img[loading=lazy]")) image.loading = "eager";
  });
  apply({ keep: true });
  follow();
}
