/* A mixture seen along two axes: where its means lie and how far its components spread.
 *
 * An axis is a line through the space of the rows. A version with preprocessing holds its mixture
 * in another space, z = Aᵀ((x − c) / s); an axis knows its direction there as well. */

const LANE = 0.14;
const GOLDEN = 0.618034;

/* The axes that a version can be looked at along. */
export function axesOf(parameters, names) {
  const size = parameters.means[0].length;
  const basis = parameters.axes?.length ? parameters.axes : null;
  const count = basis ? basis.length : size;
  const center = parameters.center?.length ? parameters.center : Array(count).fill(0);
  const scale = parameters.scale?.length ? parameters.scale : Array(count).fill(1);
  const features = Array.from({ length: count }, (_, i) => ({
    name: names?.[i] ?? `x${i + 1}`,
    offset: center[i],
    direction: Array.from({ length: size }, (_, j) => scale[i] * (basis ? basis[i][j] : Number(i === j))),
    ofRow: (row) => row[i],
  }));
  const principal = basis ? Array.from({ length: size }, (_, j) => ({
    name: `PC ${j + 1}${shareOf(parameters, j)}`,
    offset: 0,
    direction: Array.from({ length: size }, (_, i) => Number(i === j)),
    ofRow: (row) => row.reduce((sum, value, i) => sum + ((value - center[i]) / scale[i]) * basis[i][j], 0),
  })) : [];
  return [...principal, ...features];
}

const shareOf = ({ variance_ratio: ratio }, j) => ratio?.length ? ` (${(100 * ratio[j]).toFixed(0)} %)` : "";

/* Mean and covariance of every component along two axes. */
export function seenAlong(parameters, x, y) {
  return parameters.means.map((mean, k) => {
    const entry = covarianceEntry(parameters, k);
    return {
      mean: [x.offset + dot(x.direction, mean), y.offset + dot(y.direction, mean)],
      covariance: { xx: form(x, entry, x), xy: form(x, entry, y), yy: form(y, entry, y) },
    };
  });
}

/* The same along one axis: a lane for each component, in which its rows and its reach lie. */
export function seenInLanes(parameters, x) {
  return seenAlong(parameters, x, x).map(({ mean, covariance }, k) =>
    ({ mean: [mean[0], k], covariance: { xx: covariance.xx, xy: 0, yy: LANE * LANE } }));
}

/* Where a row lies across its lane: rows of one value are kept apart. */
export const acrossLane = (component, i) => component + 4 * LANE * (((i * GOLDEN) % 1) - 0.5);

function covarianceEntry({ covariance_type: family, covariances }, k) {
  return {
    full: (i, j) => covariances[k][i][j],
    tied: (i, j) => covariances[i][j],
    diag: (i, j) => (i === j ? covariances[k][i] : 0),
    spherical: (i, j) => (i === j ? covariances[k] : 0),
  }[family];
}

const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);

function form(left, entry, right) {
  let sum = 0;
  left.direction.forEach((a, i) => {
    if (a !== 0) right.direction.forEach((b, j) => { if (b !== 0) sum += a * b * entry(i, j); });
  });
  return sum;
}

/* The ellipse of one standard deviation on a screen with this many pixels to a unit. */
export function ellipseOf({ xx, xy, yy }, pixelsX, pixelsY) {
  const a = xx * pixelsX * pixelsX;
  const b = xy * pixelsX * pixelsY;
  const c = yy * pixelsY * pixelsY;
  const middle = (a + c) / 2;
  const reach = Math.hypot((a - c) / 2, b);
  return {
    rx: Math.sqrt(Math.max(0, middle + reach)),
    ry: Math.sqrt(Math.max(0, middle - reach)),
    degrees: (Math.atan2(2 * b, a - c) * 90) / Math.PI,
  };
}

export const entropyOf = (shares) =>
  shares.reduce((sum, share) => (share > 0 ? sum - share * Math.log(share) : sum), 0);
