// Draws the figures and makes the tables sortable; asks for nothing outside of the page.
(function () {
  "use strict";
  const PAGE_ROWS = 50;
  const AXIS_WIDTH = 70;
  // The page's policy runs no text as code and takes no style but page.css.
  const EMBEDDING = {
    renderer: "svg", actions: false, ast: true, defaultStyle: false,
    tooltip: { disableDefaultStyle: true },
  };
  const parsed = (id) => JSON.parse(document.getElementById(id).textContent);
  // A comparison of two studies has no table of trials.
  const trials = document.getElementById("trials-data")
    ? parsed("trials-data") : { rows: [], links: { start: "", ends: [] } };
  const address = new Map();
  trials.rows.forEach((row, index) => {
    const end = trials.links.ends[index];
    if (end !== null && end !== undefined) address.set(row[0], trials.links.start + end);
  });

  // Figures. Text takes the page's own colour, light or dark.
  function fitted(spec, place) {
    const narrow = window.innerWidth < 600;
    delete spec.title;
    spec.width = "container";
    spec.height = narrow ? 280 : 380;
    const ink = { labelColor: "currentColor", titleColor: "currentColor" };
    const config = spec.config;
    config.background = null;
    config.axis = Object.assign({}, config.axis, ink, {
      domainColor: "#8a8a8a", tickColor: "#8a8a8a", gridColor: "#8a8a8a", gridOpacity: 0.25,
    });
    config.legend = Object.assign({}, config.legend, ink);
    if (narrow) {
      config.axis.labelFontSize = 11;
      config.legend.labelFontSize = 11;
    }
    adapt(spec, (place.clientWidth || 640) - AXIS_WIDTH);
    return spec;
  }

  // Legends as wide as there is room for; the addresses of trials, which the page has once.
  function adapt(node, width) {
    if (node === null || typeof node !== "object") return;
    if (node.trial !== undefined && node.url === undefined && !Array.isArray(node)) {
      node.url = address.get(node.trial) ?? null;
      return;
    }
    if (node.legend && node.scale && node.scale.domain) {
      const widest = Math.max(...node.scale.domain.map((label) => String(label).length));
      node.legend.columns = Math.max(1, Math.min(8, Math.floor(width / (38 + 7 * widest))));
      node.legend.labelLimit = width - 30;
    }
    for (const child of Object.values(node)) adapt(child, width);
  }

  const waiting = Array.from(document.querySelectorAll("[data-figure]"));
  const folded = (place) => place.closest("details:not([open])") !== null;
  const drawn = [];
  function drawNext() {
    const index = waiting.findIndex((place) => !folded(place));
    if (index < 0) return false;
    const [place] = waiting.splice(index, 1);
    const spec = fitted(parsed("spec-" + place.dataset.figure), place);
    drawn.push(vegaEmbed(place, spec, EMBEDDING).then(() => hideEmpty(place)));
    return true;
  }
  // A layer without a point has nothing to say; a screen reader would announce it all the same.
  function hideEmpty(place) {
    place.querySelectorAll("[role=graphics-symbol]:empty").forEach((layer) => {
      if (!layer.hasAttribute("aria-label")) layer.setAttribute("aria-hidden", "true");
    });
  }
  // One at a time, so that the page answers meanwhile; what is folded has no width to draw in.
  function drawAll() {
    if (drawNext()) window.setTimeout(drawAll, 0);
    else Promise.all(drawn).then(() => document.documentElement.setAttribute("data-drawn", ""));
  }
  const parts = Array.from(document.querySelectorAll("details"));
  parts.forEach((part) => part.addEventListener("toggle", () => {
    if (!waiting.some((place) => part.open && part.contains(place))) return;
    document.documentElement.removeAttribute("data-drawn");
    window.setTimeout(drawAll, 0);
  }));
  window.addEventListener("beforeprint", () => {
    parts.forEach((part) => { part.open = true; });
    while (drawNext());
  });
  // A link leads into a part that is folded: it opens.
  function openTarget() {
    const name = decodeURIComponent(window.location.hash.slice(1));
    const target = name && document.getElementById(name);
    if (!target) return;
    const inner = target.querySelector(":scope > details");
    if (inner) inner.open = true;
    for (let part = target.closest("details"); part; part = part.parentElement.closest("details")) {
      part.open = true;
    }
    target.scrollIntoView();
  }
  window.addEventListener("hashchange", openTarget);
  openTarget();

  // Tables. A cell sorts by its first number, or as text; what was not measured comes last.
  const NUMBER = /^[-−]?[\d,]*\.?\d+(?:e[-+]?\d+)?/i;
  function key(text) {
    const found = NUMBER.exec(text.trim());
    if (found) return Number(found[0].replace(/,/g, "").replace("−", "-"));
    return text.trim() === "–" || text.trim() === "" ? null : text;
  }
  function compare(a, b, sign) {
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a === "number" && typeof b === "number") return sign * (a - b);
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return sign * a.localeCompare(b, undefined, { numeric: true });
  }

  function rowElement(words) {
    const row = document.createElement("tr");
    words.forEach((word, column) => {
      const cell = row.insertCell();
      const link = column === 0 ? address.get(word) : undefined;
      if (link === undefined) { cell.textContent = word; return; }
      const anchor = cell.appendChild(document.createElement("a"));
      anchor.href = link;
      anchor.textContent = word;
    });
    return row;
  }

  function sortable(table, words, show) {
    const headings = Array.from(table.tHead.rows[0].cells);
    headings.forEach((heading, column) => {
      heading.querySelector("button").addEventListener("click", () => {
        const falling = heading.getAttribute("aria-sort") === "ascending";
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
        const keys = words.map((row) => key(row[column]));
        const order = words.map((_, index) => index);
        order.sort((a, b) => compare(keys[a], keys[b], falling ? -1 : 1) || a - b);
        show(order);
      });
    });
  }

  function paged(table, rows) {
    const pager = table.closest("section").querySelector(".pager");
    const [filter, status] = [pager.querySelector("input"), pager.querySelector("[role=status]")];
    const buttons = Array.from(pager.querySelectorAll("button"));
    const texts = rows.map((row) => row.join(" ").toLowerCase());
    let order = rows.map((_, index) => index);
    let first = 0;
    function show() {
      const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      const kept = order.filter((index) => words.every((word) => texts[index].includes(word)));
      first = Math.max(0, Math.min(first, kept.length - 1));
      first -= first % PAGE_ROWS;
      const shown = kept.slice(first, first + PAGE_ROWS);
      table.tBodies[0].replaceChildren(...shown.map((index) => rowElement(rows[index])));
      const last = first + shown.length;
      const count = kept.length.toLocaleString("en");
      status.textContent = kept.length ? `${first + 1}–${last} of ${count}` : "no trial";
      buttons[0].disabled = first === 0;
      buttons[1].disabled = last >= kept.length;
    }
    filter.addEventListener("input", () => { first = 0; show(); });
    buttons.forEach((button) => button.addEventListener("click", () => {
      first += PAGE_ROWS * Number(button.dataset.turn);
      show();
    }));
    sortable(table, rows, (sorted) => { order = sorted; first = 0; show(); });
    show();
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    if (table.dataset.rows) { paged(table, trials.rows); continue; }
    const rows = Array.from(table.tBodies[0].rows);
    const words = rows.map((row) => Array.from(row.cells, (cell) => cell.textContent));
    sortable(table, words, (order) => {
      table.tBodies[0].replaceChildren(...order.map((index) => rows[index]));
    });
  }
  window.setTimeout(drawAll, 0);
})();
