/* The scatter: points by component or uncertainty on a canvas, ellipses and means above them.
 *
 * Points are reached with the pointer or, the chart in focus, with the arrow keys. */

import { $, svg } from "./dom.js";
import { ellipseOf } from "./geometry.js";
import { axis, valueAxisSize } from "./lines.js";
import { colourOf, ink, outline, rampColour, shapeOf } from "./palette.js";

const REACH = 16;
const UNSURE = 0.8;

export class Scatter {
  /* ``describe`` makes what is shown beside a point out of its index. */
  constructor(host, describe) {
    Object.assign(this, { host, describe, scene: null, chart: null, here: null });
    host.tabIndex = 0;
    host.setAttribute("role", "application");
    host.setAttribute("aria-label", "Scatter of the rows. Arrow keys go from point to point.");
    host.addEventListener("keydown", (event) => this.onKey(event));
    host.addEventListener("blur", () => this.leave());
    new ResizeObserver(() => this.fit()).observe(host);
    document.addEventListener("themechange", () => this.rebuild());
  }

  /* points: {x, y, component, certainty (largest share), uncertainty (0 to 1)} by x;
   * components: {mean, covariance}; labels of both axes; colour by component or uncertainty. */
  draw(scene) {
    this.scene = scene;
    this.rebuild();
  }

  clear() {
    this.scene = null;
    this.rebuild();
  }

  height() {
    return Math.round(Math.min(520, Math.max(300, this.host.clientWidth * 0.6)));
  }

  fit() {
    const width = this.host.clientWidth;
    if (width === 0) return;
    if (this.chart) this.chart.setSize({ width, height: this.height() });
    else this.rebuild();
  }

  rebuild() {
    this.leave();
    this.chart?.destroy();
    this.chart = null;
    if (!this.scene || this.host.clientWidth === 0) return;
    this.chart = new uPlot(this.options(), extended(this.scene), this.host);
    this.overlay = svg("svg", { role: "img", "aria-label": this.summary() });
    this.chart.over.append(this.overlay);
    this.chart.over.addEventListener("pointermove", (event) => this.onPointer(event));
    this.chart.over.addEventListener("pointerleave", () => this.leave());
  }

  summary() {
    const { components, x, y } = this.scene;
    return `Ellipses of ${components.length} components at one and two standard deviations over ${x} and ${y}.`;
  }

  options() {
    return {
      width: this.host.clientWidth,
      height: this.height(),
      legend: { show: false },
      cursor: { x: false, y: false, points: { show: false }, drag: { x: true, y: true, uni: 20 } },
      scales: { x: { time: false, range: roomy }, y: { range: roomy } },
      axes: [axis(this.scene.x, { size: 34 }), axis(this.scene.y, { size: valueAxisSize })],
      series: [{}, { paths: () => null, points: { show: false } }],
      hooks: { draw: [(chart) => { this.drawPoints(chart); this.placeEllipses(chart); }] },
    };
  }

  drawPoints(chart) {
    const { ctx, bbox } = chart;
    const ratio = uPlot.pxRatio;
    const radius = (this.scene.points.length > 1500 ? 2.5 : 4) * ratio;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    ctx.lineWidth = 1.5 * ratio;
    for (const point of this.scene.points) {
      const [x, y] = [chart.valToPos(point.x, "x", true), chart.valToPos(point.y, "y", true)];
      this.drawPoint(ctx, point, outline(shapeOf(point.component), x, y, this.sizeOf(point, radius)));
    }
    ctx.restore();
  }

  sizeOf(point, radius) {
    return this.scene.colour === "uncertainty" ? radius * (0.75 + 0.75 * point.uncertainty) : radius;
  }

  drawPoint(ctx, point, path) {
    if (this.scene.colour === "uncertainty") {
      ctx.fillStyle = rampColour(point.uncertainty);
      ctx.fill(path);
      return;
    }
    const colour = colourOf(point.component);
    const isUnsure = point.certainty < UNSURE;
    ctx.globalAlpha = isUnsure ? 1 : 0.7;
    ctx.fillStyle = isUnsure ? ink("--surface") : colour;
    ctx.fill(path);
    if (isUnsure) {
      ctx.strokeStyle = colour;
      ctx.stroke(path);
    }
    ctx.globalAlpha = 1;
  }

  placeEllipses(chart) {
    const pixels = (scale) => chart.valToPos(1, scale) - chart.valToPos(0, scale);
    const [pixelsX, pixelsY] = [pixels("x"), pixels("y")];
    const marks = this.scene.components.flatMap(({ mean, covariance }, k) => {
      const at = [chart.valToPos(mean[0], "x"), chart.valToPos(mean[1], "y")];
      return componentMarks(k, at, ellipseOf(covariance, pixelsX, pixelsY));
    });
    this.overlay.replaceChildren(...marks);
    this.placeHere();
  }

  placeHere() {
    this.overlay.querySelector(".here")?.remove();
    if (this.here === null) return;
    const point = this.scene.points[this.here];
    this.overlay.append(svg("circle", {
      class: "here", cx: this.chart.valToPos(point.x, "x"), cy: this.chart.valToPos(point.y, "y"), r: 8,
    }));
  }

  onPointer(event) {
    const box = this.chart.over.getBoundingClientRect();
    const [px, py] = [event.clientX - box.left, event.clientY - box.top];
    let [nearest, least] = [null, REACH * REACH];
    this.scene.points.forEach((point, i) => {
      const distance = (this.chart.valToPos(point.x, "x") - px) ** 2 + (this.chart.valToPos(point.y, "y") - py) ** 2;
      if (distance < least) [nearest, least] = [i, distance];
    });
    if (nearest === null) this.leave();
    else this.goTo(nearest);
  }

  onKey(event) {
    if (!this.scene?.points.length) return;
    const last = this.scene.points.length - 1;
    const steps = {
      ArrowRight: () => (this.here === null ? 0 : Math.min(last, this.here + 1)),
      ArrowLeft: () => (this.here === null ? last : Math.max(0, this.here - 1)),
      Home: () => 0,
      End: () => last,
    };
    if (event.key === "Escape") this.leave();
    if (!steps[event.key]) return;
    event.preventDefault();
    this.goTo(steps[event.key]());
  }

  goTo(index) {
    if (this.here !== index) {
      this.here = index;
      this.placeHere();
      $("hint").replaceChildren(...this.describe(index));
    }
    $("hint").hidden = false;
    this.placeHint(this.scene.points[index]);
  }

  placeHint(point) {
    const hint = $("hint");
    const box = this.chart.over.getBoundingClientRect();
    const x = box.left + this.chart.valToPos(point.x, "x");
    const y = box.top + this.chart.valToPos(point.y, "y");
    const isRight = x + 20 + hint.offsetWidth < innerWidth;
    hint.style.left = `${Math.max(4, isRight ? x + 16 : x - 16 - hint.offsetWidth)}px`;
    hint.style.top = `${Math.max(4, Math.min(y + 12, innerHeight - hint.offsetHeight - 8))}px`;
  }

  leave() {
    if (this.here === null) return;
    this.here = null;
    $("hint").hidden = true;
    if (this.chart) this.placeHere();
  }
}

function componentMarks(k, [cx, cy], { rx, ry, degrees }) {
  const stroke = colourOf(k);
  const place = { cx, cy, transform: `rotate(${degrees} ${cx} ${cy})`, stroke, "data-component": k };
  return [
    svg("ellipse", { ...place, class: "sigma-1", rx, ry }),
    svg("ellipse", { ...place, class: "sigma-2", rx: 2 * rx, ry: 2 * ry }),
    svg("path", { class: "mean", fill: stroke, "data-component": k, d: cross(cx, cy, 6, 1.8) }),
  ];
}

const cross = (x, y, r, w) =>
  `M${x - w} ${y - r}h${2 * w}v${r - w}h${r - w}v${2 * w}h${w - r}v${r - w}h${-2 * w}v${w - r}h${w - r}v${-2 * w}h${r - w}Z`;

/* The points between two corners that hold the ellipses too, so that the scales reach them. */
function extended({ points, components }) {
  const spread = (pick, variance, i) => [
    ...points.map(pick),
    ...components.flatMap(({ mean, covariance }) => {
      const reach = 2 * Math.sqrt(covariance[variance]);
      return [mean[i] - reach, mean[i] + reach];
    }),
  ];
  const [xs, ys] = [spread((point) => point.x, "xx", 0), spread((point) => point.y, "yy", 1)];
  return [
    [least(xs), ...points.map((point) => point.x), most(xs)],
    [least(ys), ...points.map((point) => point.y), most(ys)],
  ];
}

const least = (values) => values.reduce((a, b) => Math.min(a, b), Infinity);
const most = (values) => values.reduce((a, b) => Math.max(a, b), -Infinity);

function roomy(_, low, high) {
  const room = high > low ? (high - low) * 0.03 : 1;
  return [low - room, high + room];
}
