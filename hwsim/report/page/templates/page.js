// Sorting, searching, details, hover and keys of a page. Without this script the page shows everything at once.
"use strict";

document.documentElement.classList.add("js");
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const tip = document.getElementById("tip"), said = document.getElementById("said");

// --- hover and focus: what a mark says, and the same layer everywhere ---

function showTip(mark, x, y) {
  tip.textContent = mark.dataset.tip;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 12, innerWidth - box.width - 4))}px`;
  tip.style.top = `${y + 18 + box.height > innerHeight ? Math.max(4, y - box.height - 10) : y + 18}px`;
}

function light(layer) {
  for (const lit of all(".lit")) lit.classList.remove("lit");
  if (layer !== undefined && layer !== "-1") for (const mark of all(`[data-layer="${layer}"]`)) mark.classList.add("lit");
}

function leave() {
  tip.hidden = true;
  light(undefined);
}

document.addEventListener("mousemove", (event) => {
  const mark = event.target.closest("[data-tip]"), owner = event.target.closest("[data-layer]");
  if (mark) showTip(mark, event.clientX, event.clientY);
  else tip.hidden = true;
  if (owner && !owner.matches("tbody")) light(owner.dataset.layer);
  else light(undefined);
});
document.addEventListener("mouseleave", leave);
document.addEventListener("focusin", (event) => {
  const mark = event.target.closest("[data-tip]"), owner = event.target.closest("[data-layer]");
  if (mark) {
    const box = mark.getBoundingClientRect();
    showTip(mark, box.left + box.width / 2, box.top + box.height / 2);
  }
  if (owner && !owner.matches("tbody")) light(owner.dataset.layer);
});
document.addEventListener("focusout", leave);

// --- keys: each chart is one stop; arrows walk through its marks, Enter opens the layer ---

for (const chart of all("[data-roving]")) {
  const marks = all("[tabindex]", chart);
  if (!marks.length) continue;
  marks[0].setAttribute("tabindex", "0");
  chart.addEventListener("keydown", (event) => {
    const now = marks.indexOf(event.target.closest("[tabindex]"));
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -now, End: marks.length - 1 - now }[event.key];
    if (now < 0) return;
    if (step !== undefined) {
      const next = marks[Math.max(0, Math.min(marks.length - 1, now + step))];
      marks[now].setAttribute("tabindex", "-1");
      next.setAttribute("tabindex", "0");
      next.focus();
      event.preventDefault();
    } else if (event.key === "Enter" && !event.target.closest("a")) {
      event.preventDefault(); // the focus moves to a button, which must not take this key as its own
      openLayer(event.target.dataset.layer);
    }
  });
  chart.addEventListener("click", (event) => {
    const mark = event.target.closest("[data-layer]");
    if (mark && !mark.closest("a")) openLayer(mark.dataset.layer);
  });
}
document.addEventListener("keydown", (event) => event.key === "Escape" && leave());

function openLayer(layer) {
  const body = document.getElementById(`layer-${layer}`);
  if (!body) return;
  body.hidden = false;
  toggle(body, true);
  body.scrollIntoView({ block: "center" });
  body.querySelector(".more").focus({ preventScroll: true });
}

// --- the table: details, sorting, searching ---

function toggle(body, open) {
  body.classList.toggle("open", open);
  body.querySelector(".more").setAttribute("aria-expanded", String(body.classList.contains("open")));
}

for (const button of all(".more")) button.addEventListener("click", () => toggle(button.closest("tbody"), undefined));
for (const link of all('a[href^="#layer-"]')) link.addEventListener("click", (event) => {
  event.preventDefault();
  openLayer(link.dataset.layer);
});

function valueOf(body, column) {
  const cell = body.rows[0].cells[column];
  return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
}

function sortBy(table, column, descending) {
  const sign = descending ? -1 : 1;
  const bodies = [...table.tBodies].map((body, place) => [valueOf(body, column), place, body]);
  bodies.sort(([a, i], [b, j]) => sign * (typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true })) || i - j);
  table.append(...bodies.map(([, , body]) => body));
}

for (const table of all("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const first = head.dataset.kind === "number" && column > 0 ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      for (const each of heads) each.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
      sortBy(table, column, order === "descending");
      said.textContent = `sorted by ${button.textContent}, ${order}`;
    });
  });
}

for (const search of all("input[type=search]")) {
  const table = document.getElementById(search.dataset.table), count = document.getElementById(`${search.id}-count`);
  search.addEventListener("input", () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const body of table.tBodies) {
      const text = body.rows[0].textContent.toLowerCase();
      body.hidden = !words.every((word) => text.includes(word));
      shown += !body.hidden;
    }
    count.textContent = words.length ? `${shown} of ${table.tBodies.length} layers` : `${shown} layers`;
    said.textContent = count.textContent;
  });
}

for (const button of all(".copy")) button.addEventListener("click", async () => {
  const code = document.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(code.textContent);
    said.textContent = button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(code);
    said.textContent = "Selected: copy it with your keyboard";
  }
});
document.body.dataset.drawn = "report";
