/* Colours that differ for colour-blind eyes too (after Okabe and Ito), and shapes beside them. */

const LIGHT = ["#0072b2", "#d98e00", "#009e73", "#d55e00", "#b8578d", "#3a9bd1", "#8c6d31", "#6a51a3"];
const DARK = ["#4c9be8", "#f0b429", "#2cc295", "#ff7f3f", "#e39ac6", "#8ed1fc", "#c9a45c", "#a78bfa"];
const LIGHT_RAMP = ["#d2cfae", "#bcae6c", "#7c7b78", "#414d6b", "#00224e"];
const DARK_RAMP = ["#4d6285", "#6c7485", "#8a8779", "#c4b56c", "#fee838"];
const SHAPES = ["circle", "square", "triangle", "diamond"];

const isDark = () => document.documentElement.dataset.theme === "dark";

export const colourOf = (component) => (isDark() ? DARK : LIGHT)[component % LIGHT.length];

export const shapeOf = (component) => SHAPES[component % SHAPES.length];

export const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export const rampStops = () => (isDark() ? DARK_RAMP : LIGHT_RAMP);

export function rampColour(share) {
  const stops = rampStops();
  return stops[Math.min(stops.length - 1, Math.floor(share * stops.length))];
}

/* The outline of a shape of about the area of a circle of this radius. */
export const outline = (shape, x, y, radius) => new Path2D(pathOf(shape, x, y, radius));

export function pathOf(shape, x, y, radius) {
  const r = radius * { circle: 1, square: 0.9, triangle: 1.25, diamond: 1.25 }[shape];
  return {
    circle: () => `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`,
    square: () => `M${x - r} ${y - r}h${2 * r}v${2 * r}h${-2 * r}Z`,
    triangle: () => `M${x} ${y - r}L${x + r} ${y + 0.8 * r}L${x - r} ${y + 0.8 * r}Z`,
    diamond: () => `M${x} ${y - r}L${x + r} ${y}L${x} ${y + r}L${x - r} ${y}Z`,
  }[shape]();
}
