"use strict";
(() => {
  const { charts, images } = JSON.parse(document.getElementById("data").textContent);
  const text = "var(--fg)", quiet = "var(--muted)", line = "var(--line)";
  const font = getComputedStyle(document.body).fontFamily;
  const options = {
    mode: "vega-lite", renderer: "svg", actions: false, ast: true,
    config: {
      background: "transparent", font,
      view: { stroke: null },
      axis: {
        labelColor: text, titleColor: quiet, gridColor: line, domainColor: line, tickColor: line,
        labelFontSize: 12, titleFontSize: 12, titleFontWeight: 500, labelPadding: 5,
      },
      axisQuantitative: { labelSeparation: 8 },
      legend: { labelColor: text, titleColor: quiet, labelFontSize: 12, symbolType: "square" },
    },
  };

  // ---- charts: drawn for the level and protocol that are chosen
  const chosen = (name) => document.querySelector(`input[name=${name}]:checked`).value;
  const NARROW = 430;
  // Where there is little room, the bars need all of it.
  const narrowed = (spec) =>
    spec.layer ? { ...spec, layer: spec.layer.filter((layer) => layer.name !== "beside") } : spec;
  let turn = 0;
  const views = new Map();
  async function draw() {
    const mine = ++turn;
    const level = chosen("level"), protocol = chosen("protocol");
    for (const block of document.querySelectorAll("[data-level]")) block.hidden = block.dataset.level !== level;
    for (const place of document.querySelectorAll("[data-chart]")) {
      const name = place.dataset.chart;
      const key = name === "classes" ? `${level} ${protocol}` : level;
      const spec = charts[name][key];
      place.hidden = !spec;
      if (place.dataset.shown === key || !spec) continue;
      place.dataset.shown = key;
      const drawn = await vegaEmbed(place, place.clientWidth < NARROW ? narrowed(spec) : spec, options);
      const before = views.get(place);
      if (before) before.finalize();
      views.set(place, drawn);
    }
    if (mine === turn) document.documentElement.dataset.drawn = `${level} ${protocol}`;
  }
  // Switches that follow each other fast must not draw into one place at once.
  let queue = Promise.resolve();
  const redraw = () => { queue = queue.then(draw); };
  for (const input of document.querySelectorAll(".bar input")) input.addEventListener("change", redraw);
  document.querySelector(".bar form").addEventListener("submit", (event) => event.preventDefault());
  redraw();

  // ---- the table of images
  const FIRST = 200;
  const table = document.getElementById("images");
  const { columns } = images;
  const rows = columns[0].values.length;
  const state = { column: images.sort, down: false, all: false };
  const filter = document.getElementById("filter"), more = document.getElementById("all");
  const said = document.getElementById("count");
  const haystack = columns.filter((c) => c.digits === undefined);
  const found = Array.from({ length: rows }, (_, i) => haystack.map((c) => c.values[i]).join(" ").toLowerCase());

  const head = table.tHead.insertRow();
  columns.forEach((column, index) => {
    const cell = document.createElement("th");
    cell.scope = "col";
    if (column.digits === undefined) cell.className = "text";
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = column.title;
    button.addEventListener("click", () => {
      state.down = state.column === index ? !state.down : false;
      state.column = index;
      fill();
    });
    cell.append(button);
    head.append(cell);
  });

  function compare(a, b) {
    const values = columns[state.column].values;
    const left = values[a], right = values[b];
    if (left === right) return a - b;
    if (left === null) return 1; // what has no score comes last, whichever way
    if (right === null) return -1;
    const order = left < right ? -1 : 1;
    return state.down ? -order : order;
  }

  function fill() {
    const words = filter.value.toLowerCase().trim().split(/\s+/);
    const kept = [];
    for (let i = 0; i < rows; i++) if (words.every((word) => found[i].includes(word))) kept.push(i);
    kept.sort(compare);
    const shown = state.all ? kept : kept.slice(0, FIRST);
    const body = document.createElement("tbody");
    for (const i of shown) {
      const row = body.insertRow();
      columns.forEach((column, index) => {
        const cell = index ? document.createElement("td") : document.createElement("th");
        if (!index) cell.scope = "row";
        const value = column.values[i];
        cell.className = column.digits === undefined ? "text" : "n";
        cell.textContent = value === null ? "–" : column.digits === undefined ? value : value.toFixed(column.digits);
        row.append(cell);
      });
    }
    table.tBodies[0].replaceWith(body);
    [...head.cells].forEach((cell, index) => {
      if (index === state.column) cell.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    });
    more.hidden = kept.length <= FIRST;
    more.textContent = state.all ? `Show the first ${FIRST}` : `Show all ${kept.length.toLocaleString("en")}`;
    said.textContent = `${shown.length.toLocaleString("en")} of ${rows.toLocaleString("en")} images`;
  }
  filter.addEventListener("input", fill);
  more.addEventListener("click", () => { state.all = !state.all; fill(); });
  fill();

  // ---- print: what is folded away is opened, and folded again after
  const opened = [];
  addEventListener("beforeprint", () => {
    for (const fold of document.querySelectorAll("details:not([open])")) { fold.open = true; opened.push(fold); }
  });
  addEventListener("afterprint", () => { while (opened.length) opened.pop().open = false; });
})();
