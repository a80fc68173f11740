"use strict";
// Draws every chart of the page from the data in it. Text goes in as text only.
const colours = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#9467bd", "#8c564b"];
const charts = JSON.parse(document.getElementById("charts").textContent);

function short(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e6 || size < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

function ticks(low, high, most) {
  const rough = (high - low) / most;
  if (!(rough > 0) || !isFinite(rough)) return [low];
  const power = Math.pow(10, Math.floor(Math.log10(rough)));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high && found.length < 50; i++) found.push(i * step);
  return found;
}

function show(figure, chart) {
  const canvas = figure.querySelector("canvas"), tip = figure.querySelector(".tip"), log = figure.querySelector("input");
  const all = chart.lines.flatMap((line) => line.points);
  const whole = [Math.min(...all.map((p) => p[0])), Math.max(...all.map((p) => p[0]))];
  let [from, to] = whole, drag = null, hover = null;
  const margin = { left: 62, right: 10, top: 8, bottom: 24 };
  const scale = (v) => (log.checked ? Math.log10(v) : v);
  const fits = (v) => v !== null && isFinite(scale(v));

  function frame() {
    const box = canvas.getBoundingClientRect();
    const inside = all.filter((p) => p[0] >= from && p[0] <= to && fits(p[1])).map((p) => scale(p[1]));
    let low = inside.reduce((a, b) => Math.min(a, b), Infinity), high = inside.reduce((a, b) => Math.max(a, b), -Infinity);
    if (!isFinite(low)) { low = 0; high = 1; }
    if (low === high) { const room = Math.abs(low) * 0.1 || 1; low -= room; high += room; }
    const wide = box.width - margin.left - margin.right, tall = box.height - margin.top - margin.bottom;
    return {
      box, low, high, wide, tall,
      x: (place) => margin.left + ((place - from) / (to - from || 1)) * wide,
      y: (v) => margin.top + (1 - (scale(v) - low) / (high - low)) * tall,
      place: (x) => from + ((x - margin.left) / wide) * (to - from),
    };
  }

  function draw() {
    const f = frame(), ratio = window.devicePixelRatio || 1, pen = canvas.getContext("2d");
    canvas.width = f.box.width * ratio;
    canvas.height = f.box.height * ratio;
    pen.scale(ratio, ratio);
    pen.font = "11px sans-serif";
    pen.fillStyle = "#444";
    pen.strokeStyle = "#e2e2e2";
    pen.textAlign = "right";
    for (const tick of ticks(f.low, f.high, 5)) {
      const y = margin.top + (1 - (tick - f.low) / (f.high - f.low)) * f.tall;
      pen.beginPath(); pen.moveTo(margin.left, y); pen.lineTo(margin.left + f.wide, y); pen.stroke();
      pen.fillText(short(log.checked ? Math.pow(10, tick) : tick), margin.left - 5, y + 4);
    }
    pen.textAlign = "center";
    for (const tick of ticks(from, to, 6)) pen.fillText(String(Math.round(tick)), f.x(tick), f.box.height - 6);
    pen.save();
    pen.beginPath(); pen.rect(margin.left, margin.top, f.wide, f.tall + 6); pen.clip();
    pen.strokeStyle = "#b00020";
    pen.setLineDash([4, 3]);
    for (const mark of chart.marks) { pen.beginPath(); pen.moveTo(f.x(mark[0]), margin.top); pen.lineTo(f.x(mark[0]), margin.top + f.tall); pen.stroke(); }
    pen.setLineDash([]);
    chart.lines.forEach((line, index) => {
      pen.strokeStyle = pen.fillStyle = colours[index % colours.length];
      pen.lineWidth = 1.4;
      pen.beginPath();
      let down = false;
      for (const [place, value] of line.points) {
        if (!fits(value)) { down = false; pen.fillRect(f.x(place) - 1, margin.top + f.tall - 6, 3, 6); continue; }
        if (down) pen.lineTo(f.x(place), f.y(value));
        else { pen.moveTo(f.x(place), f.y(value)); pen.fillRect(f.x(place) - 1.5, f.y(value) - 1.5, 3, 3); }
        down = true;
      }
      pen.stroke();
    });
    if (drag) { pen.fillStyle = "#0072b222"; pen.fillRect(Math.min(drag[0], drag[1]), margin.top, Math.abs(drag[1] - drag[0]), f.tall); }
    if (hover !== null) { pen.strokeStyle = "#999"; pen.lineWidth = 1; pen.beginPath(); pen.moveTo(f.x(hover), margin.top); pen.lineTo(f.x(hover), margin.top + f.tall); pen.stroke(); }
    pen.restore();
  }

  function nearest(points, place) {
    let low = 0, high = points.length - 1;
    while (low < high) { const middle = (low + high) >> 1; if (points[middle][0] < place) low = middle + 1; else high = middle; }
    return low > 0 && place - points[low - 1][0] < points[low][0] - place ? points[low - 1] : points[low];
  }

  function told(x, y) {
    const f = frame(), place = f.place(x);
    if (x < margin.left || x > margin.left + f.wide) { hover = null; tip.style.display = "none"; draw(); return; }
    const found = chart.lines.filter((line) => line.points.length).map((line) => [line.name, nearest(line.points, place)]);
    hover = found.length ? found[0][1][0] : null;
    const marks = chart.marks.filter((mark) => Math.abs(f.x(mark[0]) - x) < 6).map((mark) => mark[0] + ": " + mark[1]);
    tip.textContent = [...found.map(([name, p]) => name + " at " + p[0] + ": " + (p[1] === null ? "not finite" : short(p[1]))), ...marks].join("\n");
    tip.style.display = "block";
    tip.style.left = Math.max(0, Math.min(x + 14, f.box.width - tip.offsetWidth)) + "px";
    tip.style.top = y + 34 + "px";
    draw();
  }

  function zoom(a, b) {
    [from, to] = [Math.max(whole[0], Math.min(a, b)), Math.min(whole[1], Math.max(a, b))];
    if (to - from < 1) [from, to] = whole;
    draw();
  }

  canvas.addEventListener("pointerdown", (event) => { drag = [event.offsetX, event.offsetX]; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", (event) => { if (drag) drag[1] = event.offsetX; told(event.offsetX, event.offsetY); });
  canvas.addEventListener("pointerup", () => {
    if (drag && Math.abs(drag[1] - drag[0]) > 5) { const f = frame(); const [a, b] = drag; drag = null; zoom(f.place(a), f.place(b)); }
    drag = null;
    draw();
  });
  canvas.addEventListener("pointerleave", () => { hover = null; tip.style.display = "none"; draw(); });
  canvas.addEventListener("dblclick", () => { [from, to] = whole; draw(); });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const f = frame(), centre = f.place(event.offsetX), factor = event.deltaY < 0 ? 0.8 : 1.25;
    zoom(centre - (centre - from) * factor, centre + (to - centre) * factor);
  }, { passive: false });
  log.addEventListener("change", draw);
  window.addEventListener("resize", draw);
  draw();
}

document.querySelectorAll("figure").forEach((figure, index) => show(figure, charts[index]));
document.documentElement.dataset.drawn = String(charts.length);
