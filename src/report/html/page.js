"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const root = document.documentElement;
  const data = JSON.parse($("data").textContent);
  root.classList.add("script");

  // Theme: the system's until the reader chooses; the choice is kept where the browser lets a page keep anything.
  const kept = (value) => {
    try {
      if (value === undefined) return localStorage.getItem("mergesweep-theme");
      localStorage.setItem("mergesweep-theme", value);
    } catch { /* a page from a file may be denied storage */ }
    return null;
  };
  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const nameTheme = () => { $("theme").textContent = isDark() ? "Light theme" : "Dark theme"; };
  const before = kept();
  if (before === "dark" || before === "light") root.dataset.theme = before;
  $("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    kept(root.dataset.theme);
    nameTheme();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", nameTheme);
  nameTheme();

  // Sorting: best first, then the other way, then back to the order of the plan. Empty cells stay last.
  const body = $("scores").tBodies[0];
  const plan = [...body.rows];
  const heads = [...$("scores").tHead.rows[0].cells];
  const sort = (head) => {
    const button = head.querySelector("button");
    const first = button.dataset.sort === "down" ? "descending" : "ascending";
    const second = first === "descending" ? "ascending" : "descending";
    const now = head.getAttribute("aria-sort");
    const next = now === first ? second : now === second ? "none" : first;
    heads.forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", next);
    const key = (row) => row.cells[head.cellIndex].dataset.v;
    const sign = next === "descending" ? -1 : 1;
    const compare = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
      const difference = Number(x) - Number(y);
      return sign * (Number.isNaN(difference) || x === "" || y === "" ? x.localeCompare(y, "en", { numeric: true }) : difference);
    };
    body.append(...(next === "none" ? plan : [...plan].sort(compare)));
  };
  heads.forEach((head) => head.querySelector("button").addEventListener("click", () => sort(head)));

  // Filtering: rows that lack a word go, their marks in the plots fade.
  const marks = new Map();
  document.querySelectorAll(".chart [data-r]").forEach((mark) => {
    const row = Number(mark.dataset.r);
    marks.has(row) ? marks.get(row).push(mark) : marks.set(row, [mark]);
  });
  const filter = () => {
    const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const method = $("method").value;
    const significant = $("significant").checked;
    let shown = 0;
    for (const row of plan) {
      const text = (row.cells[0].dataset.v + " " + row.dataset.method).toLowerCase();
      const fits = words.every((word) => text.includes(word)) && (!method || row.dataset.method === method) &&
        (!significant || "significant" in row.dataset);
      row.hidden = !fits;
      shown += fits;
      (marks.get(Number(row.dataset.r)) ?? []).forEach((mark) => mark.classList.toggle("dim", !fits));
    }
    $("shown").textContent = shown === plan.length ? `${shown} rows` : `${shown} of ${plan.length} rows`;
  };
  ["filter", "method", "significant"].forEach((id) => $(id).addEventListener("input", filter));
  document.querySelectorAll("form").forEach((form) => form.addEventListener("submit", (event) => event.preventDefault()));
  if ($("filter").value || $("method").value || $("significant").checked) filter();

  // A row under the pointer lights up in every plot.
  const light = (event, on) => {
    const row = event.target.closest("tr[data-r]");
    if (row) (marks.get(Number(row.dataset.r)) ?? []).forEach((mark) => mark.classList.toggle("lit", on));
  };
  body.addEventListener("pointerover", (event) => light(event, true));
  body.addEventListener("pointerout", (event) => light(event, false));

  // Which two columns the trade-off shows.
  const pairs = [...document.querySelectorAll(".pair")];
  const choose = () => {
    const [a, b] = [Number($("pair-x").value), Number($("pair-y").value)];
    let found = false;
    for (const pair of pairs) {
      pair.hidden = !(Number(pair.dataset.x) === Math.min(a, b) && Number(pair.dataset.y) === Math.max(a, b));
      found = found || !pair.hidden;
    }
    $("pair-note").textContent = found ? "" : a === b ? "Choose two different columns." : "No two rows have both scores.";
  };
  if (pairs.length) {
    ["pair-x", "pair-y"].forEach((id) => $(id).addEventListener("input", choose));
    choose();
  }

  // One trial beside the reference, down to the documents. Everything is set as text, never as markup.
  const make = (tag, text, className) => {
    const element = document.createElement(tag);
    if (text !== undefined && text !== null) element.textContent = text;
    if (className) element.className = className;
    return element;
  };
  const line = (cells, tag) => {
    const row = make("tr");
    cells.forEach((text, index) => row.append(make(index ? tag : "th", text, index ? "num" : "name")));
    return row;
  };
  const itemList = (column, compared) => {
    const hasTexts = compared.flips.some((flip) => flip.length > 3);
    const list = make("ul", null, hasTexts ? "flips long" : "flips");
    for (const [place, own, other, answer] of compared.flips) {
      const [id, hash, texts] = column.documents[place];
      const item = make("li");
      const head = `#${id} `;
      const scores = `${other} → ${own} `;
      if (texts) {
        const details = make("details");
        const summary = make("summary", head + scores);
        summary.append(make("code", hash));
        details.append(summary);
        [["Prompt", texts[0]], ["Target", texts[1]], [data.reference, texts[2]], ["This trial", answer]].forEach(([name, text]) => {
          details.append(make("strong", name), make("pre", text));
        });
        item.append(details);
      } else {
        item.append(head + scores, make("code", hash));
      }
      list.append(item);
    }
    return list;
  };
  const open = (index, at) => {
    const trial = data.rows[index];
    $("trial-name").textContent = trial.name;
    const content = $("trial-body");
    content.replaceChildren();
    const compares = trial.cells.some((cell) => cell?.compared);
    if (data.reference !== null && compares) content.append(make("p", `Beside ${data.reference}, document by document.`, "lead"));
    const table = make("table");
    const head = ["column", "score", "95 % interval"].concat(compares ? ["difference", "95 % interval", "p", "p (Holm)", "verdict"] : []);
    table.append(line(head, "th"));
    trial.cells.forEach((cell, column) => {
      const of = cell?.compared;
      const row = [data.columns[column].name, cell?.value ?? "–", cell?.interval ?? ""];
      if (compares) row.push(of?.difference ?? "", of?.interval ?? "", of?.p ?? "", of?.adjusted ?? "", of?.verdict ?? cell?.apart ?? "");
      table.append(line(row, "td"));
    });
    const scroll = make("div", null, "scroll");
    scroll.append(table);
    content.append(scroll);
    trial.cells.forEach((cell, column) => {
      const of = cell?.compared;
      if (of?.estimate) content.append(make("p", `${data.columns[column].name}: ${of.estimate}.`, "legend"));
      if (!of || !of.changed) return;
      const details = make("details");
      details.dataset.column = column;
      details.open = column === at;
      const [gained, lost] = of.counts.split(":");
      const counts = of.binary ? `${gained} gained, ${lost} lost` : `${of.changed} documents differ`;
      const most = of.flips.length < of.changed ? `; the ${of.flips.length} largest changes` : "";
      details.append(make("summary", `${data.columns[column].name}: ${counts}${most}`));
      details.append(make("p", `${of.test}. Each line: document, ${data.reference} → ${trial.name}, start of the document’s hash.`, "legend"));
      details.append(itemList(data.columns[column], of));
      content.append(details);
    });
    if (trial.config) {
      const details = make("details");
      details.append(make("summary", "Merge config"), make("pre", trial.config));
      content.append(details);
    }
    $("trial").showModal();
    const opened = content.querySelector("details[open]");
    if (opened) opened.scrollIntoView({ block: "nearest" });
  };
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-r]");
    if (!row) return;
    const score = event.target.closest("td.score");
    if (score) {
      const first = [...row.cells].findIndex((cell) => cell.classList.contains("score"));
      open(Number(row.dataset.r), score.cellIndex - first);
    } else if (event.target.closest(".open")) {
      open(Number(row.dataset.r));
    }
  });
  $("close").addEventListener("click", () => $("trial").close());
  $("trial").addEventListener("click", (event) => { if (event.target === $("trial")) $("trial").close(); });

  // On paper nothing can be opened.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("main details:not([open])")];
    opened.forEach((details) => { details.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((details) => { details.open = false; }));
})();
