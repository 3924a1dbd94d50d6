// Draws the points of #data: one plot per cost, details of the point under the mouse beside them.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const keyOf = (view) => `${view.network} on ${view.data}`;
let kept = null; // the point that a click has pinned

function fill(select, names) {
  const before = select.value;
  select.replaceChildren(...names.map((name) => new Option(name)));
  if (names.includes(before)) select.value = before;
}

function chosenView() {
  return data.views.find((v) => keyOf(v) === byId("network").value && v.machine === byId("machine").value);
}

function cell(row, text, className) {
  const td = row.insertCell();
  td.textContent = text;
  if (className) td.className = className;
  return td;
}

function heading(parent, text, level = "h3") {
  const element = document.createElement(level);
  element.textContent = text;
  parent.append(element);
}

function table(parent, id) {
  const box = document.createElement("div");
  box.id = id;
  box.append(document.createElement("table"));
  parent.append(box);
  return box.firstChild;
}

const figures = (value) => value.toLocaleString("en", { maximumSignificantDigits: 4 });
const accuracyOf = (p) =>
  `${p.accuracy.toFixed(2)} %` + (p.half === null ? " (1 seed)" : ` ± ${p.half.toFixed(2)} (${p.seeds} seeds)`);

// "16.0 (12.8 to 20.1)", or the cost alone where nothing of it is estimated.
const costOf = (p, axis) => {
  const [low, high] = p.ends[axis];
  return figures(p.cost[axis]) + (low < high ? ` (${figures(low)} to ${figures(high)})` : "");
};

function show(point) {
  const panel = byId("point");
  panel.replaceChildren();
  if (!point) {
    panel.innerHTML = '<span class="hint">Point at a mark.</span>';
    return;
  }
  heading(panel, `${point.label}: ${accuracyOf(point)}`, "h2");
  const costs = table(panel, "costs");
  data.axes.forEach((axis, i) => {
    const row = costs.insertRow();
    cell(row, axis.label);
    cell(row, costOf(point, i), "number");
  });
  const gap = costs.insertRow();
  cell(gap, "worst mapping gap");
  cell(gap, `${figures(100 * point.gap)} %`, "number");

  heading(panel, "Energy by component");
  const components = table(panel, "components");
  const parts = Object.entries(point.components).sort((a, b) => b[1] - a[1]);
  const total = parts.reduce((sum, [, energy]) => sum + energy, 0) || 1;
  for (const [name, energy] of parts) {
    const row = components.insertRow();
    cell(row, name);
    cell(row, `${(100 * energy / total).toFixed(1)} %`, "number");
    const bar = document.createElement("div");
    bar.className = "bar";
    bar.style.width = `${9 * energy / total}rem`;
    cell(row, "").append(bar);
  }
  heading(panel, "Offsets (layers)");
  panel.append(Object.entries(point.offsets).map(([name, count]) => `${name} ${count}`).join(", "));

  const bits = Object.entries(data.layers[point.layers]);
  heading(panel, `Bits of weight / input, ${bits.length} layers`);
  const layers = table(panel, "layers");
  for (const [name, pair] of bits) {
    const row = layers.insertRow();
    cell(row, name);
    cell(row, pair, "number");
  }
  for (const [title, command] of [["Train it again", point.train], ["Price it again", point.price]]) {
    heading(panel, title);
    const code = document.createElement("code");
    code.textContent = command;
    panel.append(code);
  }
}

// A colour of the page in its present scheme.
const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Labels where they cover neither each other nor a mark: of many places around each mark, the best free one.
function placeLabels(box, marks) {
  const places = [];
  for (const radius of [12, 20, 30, 42, 56, 72, 90])
    for (let turn = 0; turn < 16; turn++) places.push([radius * Math.cos(turn * Math.PI / 8), radius * Math.sin(turn * Math.PI / 8), radius]);
  const taken = marks.map((m) => [m.x - 6, m.y - 6, m.x + 6, m.y + 6]);
  const overlap = (a, b) => Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0])) * Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));
  return marks.map((mark) => {
    const width = 5.8 * mark.text.length + 8, height = 13;
    let best = null;
    for (const [dx, dy, radius] of places) {
      const x = mark.x + dx + (dx > 1 ? width / 2 : dx < -1 ? -width / 2 : 0), y = mark.y + dy;
      const rectangle = [x - width / 2, y - height / 2, x + width / 2, y + height / 2];
      const outside = rectangle[0] < 0 || rectangle[1] < 0 || rectangle[2] > box.width || rectangle[3] > box.height;
      const cost = radius + (outside ? 1e4 : 0) + taken.reduce((sum, other) => sum + 4 * overlap(rectangle, other), 0);
      if (best === null || cost < best.cost) best = { cost, rectangle, x: x - mark.x, y: y - mark.y };
    }
    taken.push(best.rectangle);
    return best;
  });
}

function annotate(plot, view, axis, shown) {
  const { xaxis, yaxis } = plot._fullLayout;
  const marks = shown.map((p) => ({ x: xaxis.d2p(p.cost[axis]), y: yaxis.d2p(p.accuracy), text: p.label }));
  const labels = placeLabels({ width: xaxis._length, height: yaxis._length }, marks);
  Plotly.relayout(plot, {
    annotations: shown.map((p, i) => ({
      x: p.cost[axis], y: p.accuracy, ax: labels[i].x, ay: labels[i].y, text: p.label, showarrow: true, arrowhead: 0,
      arrowwidth: .6, arrowcolor: ink("--faint"), standoff: 4,
      font: { size: 9, color: ink(p.possible[axis] ? "--ink" : "--faint") },
    })),
  });
}

function draw(view, axis) {
  const points = view.points.filter((p) => byId("dominated").checked || p.possible[axis]);
  const front = view.points.filter((p) => p.front[axis]).sort((a, b) => a.cost[axis] - b.cost[axis]);
  const traces = [{
    x: front.map((p) => p.cost[axis]), y: front.map((p) => p.accuracy), mode: "lines", hoverinfo: "skip",
    line: { shape: "hv", color: ink("--quiet"), width: 1 },
  }];
  const colourOf = (p) => (p.possible[axis] ? data.colours[p.config] : data.grey);
  const drawn = [];
  for (const colour of new Set(points.map(colourOf))) {
    const members = points.filter((p) => colourOf(p) === colour);
    drawn.push(...members);
    traces.push({
      x: members.map((p) => p.cost[axis]), y: members.map((p) => p.accuracy), mode: "markers", customdata: members,
      marker: { size: 9, color: colour, symbol: members.map((p) => p.symbol), line: { width: 1.2, color: colour } },
      error_y: { array: members.map((p) => p.half ?? 0), thickness: 1, width: 3, color: colour },
      error_x: {
        symmetric: false, array: members.map((p) => p.ends[axis][1] - p.cost[axis]),
        arrayminus: members.map((p) => p.cost[axis] - p.ends[axis][0]), thickness: .7, width: 0, color: `${colour}80`,
      },
      text: members.map((p) => `${p.label}: ${accuracyOf(p)}, ${costOf(p, axis)}`), hoverinfo: "text",
    });
  }
  const accuracies = view.points.map((p) => p.accuracy);
  const low = Math.min(...accuracies), high = Math.max(...accuracies, view.float ?? 0), room = .08 * (high - low) + .5;
  const shapes = view.float === null ? [] : [{
    type: "line", xref: "paper", x0: 0, x1: 1, y0: view.float, y1: view.float, line: { dash: "dot", width: 1, color: ink("--faint") },
  }];
  const plot = byId(`plot-${axis}`);
  return Plotly.react(plot, traces, {
    showlegend: false, margin: { t: 8, l: 50, r: 10, b: 42 }, hoverlabel: { align: "left", font: { size: 11 } }, shapes,
    paper_bgcolor: ink("--paper"), plot_bgcolor: ink("--paper"), font: { color: ink("--ink") },
    xaxis: { title: { text: data.axes[axis].label }, zeroline: false, showline: true, ticks: "outside", nticks: 6, gridcolor: ink("--line"),
             range: view.ranges[axis] },
    yaxis: { title: { text: "test accuracy (%)" }, zeroline: false, showline: true, ticks: "outside", gridcolor: ink("--line"),
             range: [low - room, high + room] },
  }, { responsive: true, displaylogo: false }).then(() => byId("labels").checked && annotate(plot, view, axis, drawn));
}

async function redraw() {
  fill(byId("machine"), data.views.filter((v) => keyOf(v) === byId("network").value).map((v) => v.machine));
  const view = chosenView();
  byId("note").textContent = view.note;
  byId("plots").hidden = view.points.length === 0;
  show((kept = null));
  if (view.points.length) await Promise.all(data.axes.map((_, axis) => draw(view, axis)));
  document.body.dataset.drawn = `${view.network} ${view.machine}`;
}

byId("source").textContent = data.source;
fill(byId("network"), [...new Set(data.views.map(keyOf))]);
data.axes.forEach((_, axis) => {
  const plot = document.createElement("div");
  plot.id = `plot-${axis}`;
  plot.className = "plot";
  byId("plots").append(plot);
});
for (const id of ["network", "machine", "dominated", "labels"]) byId(id).addEventListener("change", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
redraw().then(() => data.axes.forEach((_, axis) => {
  const plot = byId(`plot-${axis}`);
  plot.on("plotly_hover", (event) => kept ?? show(event.points[0].customdata));
  plot.on("plotly_click", (event) => show((kept = kept === event.points[0].customdata ? null : event.points[0].customdata)));
}));
