/* Charts of lines: the log-likelihood of a fit, the criterion of a selection. */

import { el, number } from "./dom.js";
import { ink, outline } from "./palette.js";

const HEIGHT = 240;
const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000];
const FONT = '12px system-ui, "Segoe UI", "DejaVu Sans", sans-serif';

export const axis = (label, options = {}) => ({
  label,
  font: FONT,
  labelFont: `600 ${FONT}`,
  labelSize: 22,
  labelGap: 6,
  stroke: () => ink("--quiet"),
  grid: { stroke: () => ink("--grid"), width: 1 },
  ticks: { stroke: () => ink("--grid"), width: 1 },
  ...options,
});

/* Room for the longest number beside the axis. */
export function valueAxisSize(chart, values, index, cycle) {
  if (cycle > 1) return chart.axes[index]._size;
  const longest = (values ?? []).reduce((most, text) => Math.max(most, String(text).length), 0);
  return 22 + 7 * longest;
}

export class LineChart {
  constructor(host, { x, y, integers = true }) {
    Object.assign(this, { host, x, y, integers, series: [], mark: null, limits: null, chart: null });
    new ResizeObserver(() => this.fit()).observe(host);
    document.addEventListener("themechange", () => this.rebuild());
  }

  /* Draw the series: a label, a colour, points [x, y] in order of x; mark one point. With limits
     of y, arrows at the edge mark the points beyond. */
  draw(series, mark = null, limits = null) {
    const isAsBefore = this.chart && series.length === this.series.length &&
      series.every((one, i) => one.label === this.series[i].label);
    Object.assign(this, { series, mark, limits });
    if (!isAsBefore) {
      this.rebuild();
      return;
    }
    this.chart.setData(aligned(series));
    this.host.querySelector("p").replaceWith(this.described());
  }

  clear() {
    this.draw([]);
  }

  fit() {
    const width = this.host.clientWidth;
    if (width === 0) return;
    if (this.chart) this.chart.setSize({ width, height: HEIGHT });
    else this.rebuild();
  }

  rebuild() {
    this.chart?.destroy();
    this.chart = null;
    this.host.replaceChildren();
    if (this.series.length === 0 || this.host.clientWidth === 0) return;
    this.host.append(this.described());
    this.chart = new uPlot(this.options(), aligned(this.series), this.host);
  }

  described() {
    const text = this.series.map(({ label, points }) => {
      const last = points.filter(([, y]) => y !== null).at(-1);
      const beyond = this.beyond(points).length;
      const cut = beyond ? `, ${beyond} beyond the axis` : "";
      return last ? `${label}: ${points.length} points${cut}, the last at ${last[0]}: ${number(last[1])}` : label;
    });
    return el("p", { className: "unseen", textContent: text.join("; ") });
  }

  options() {
    return {
      width: this.host.clientWidth,
      height: HEIGHT,
      scales: { x: { time: false, range: padded }, y: { range: (...scale) => this.limits ?? roomy(...scale) } },
      axes: [
        axis(this.x, this.integers ? { incrs: STEPS, size: 34 } : { size: 34 }),
        axis(this.y, { size: valueAxisSize }),
      ],
      cursor: { drag: { x: false, y: false }, points: { size: 8 } },
      legend: { show: this.series.length > 1 },
      series: [
        { label: this.x, value: shown },
        ...this.series.map(({ label, colour, dash, points }) => ({
          label,
          stroke: colour,
          dash,
          width: 2,
          spanGaps: false,
          value: shown,
          points: { show: points.length < 60, size: 6, fill: colour },
        })),
      ],
      hooks: { draw: [(chart) => this.drawMark(chart), (chart) => this.drawArrows(chart)] },
    };
  }

  beyond(points) {
    if (!this.limits) return [];
    const [low, high] = this.limits;
    return points.filter(([, y]) => y !== null && (y < low || y > high));
  }

  /* A row of arrows for each series, so that none hides another. */
  drawArrows(chart) {
    const { ctx, bbox } = chart;
    const size = 4 * uPlot.pxRatio;
    ctx.save();
    this.series.forEach(({ colour, points }, i) => {
      ctx.fillStyle = colour;
      for (const [x, y] of this.beyond(points)) {
        const isAbove = y > this.limits[1];
        const edge = isAbove ? bbox.top : bbox.top + bbox.height;
        const tip = edge + (isAbove ? 1 : -1) * (2 * i + 1) * size * 1.2;
        ctx.fill(arrow(chart.valToPos(x, "x", true), tip, isAbove ? size : -size));
      }
    });
    ctx.restore();
  }

  drawMark(chart) {
    if (!this.mark) return;
    const { ctx } = chart;
    const [x, y] = [chart.valToPos(this.mark[0], "x", true), chart.valToPos(this.mark[1], "y", true)];
    ctx.save();
    ctx.strokeStyle = ink("--ink");
    ctx.lineWidth = 2 * uPlot.pxRatio;
    ctx.stroke(outline("circle", x, y, 8 * uPlot.pxRatio));
    ctx.restore();
  }
}

const arrow = (x, y, size) => new Path2D(`M${x} ${y - size}L${x + size} ${y + size}L${x - size} ${y + size}Z`);

/* Nothing, while the pointer is elsewhere. */
const shown = (_, value) => (value == null ? "" : number(value));

function padded(_, low, high) {
  const room = high > low ? (high - low) * 0.03 : 0.5;
  return [low - room, high + room];
}

/* A line that hardly rises stays flat: the scale never shows less than a thousandth of its level. */
function roomy(_, low, high) {
  if (low === null || high === null) return [0, 1];
  const room = Math.max((high - low) * 0.08, Math.max(Math.abs(low), Math.abs(high)) * 1e-3, 1e-6);
  return [low - room, high + room];
}

function aligned(series) {
  const xs = [...new Set(series.flatMap(({ points }) => points.map(([x]) => x)))].sort((a, b) => a - b);
  const columns = series.map(({ points }) => {
    const known = new Map(points);
    return xs.map((x) => known.get(x) ?? null);
  });
  return [xs, ...columns];
}
