// The curves along which an address line runs over the map: from a pixel to its position on the
// curve. The same as heatmap/curves.py, for a page without a server.

// How a square of the Hilbert curve is turned is a number of two bits, one for each diagonal that
// it may be mirrored on; turns combine by exclusive or.
const QUARTER_AT = [
  [[1, 2], [0, 3]],
  [[1, 0], [2, 3]],
  [[3, 2], [0, 1]],
  [[3, 0], [2, 1]],
];
const TURN = [2, 0, 0, 1];

/**
 * The position of a pixel on a curve.
 *
 * @param {string} curve hilbert, snake or linear
 * @param {number} order the map has 2^order by 2^order pixels
 * @param {number} row counted from the top
 * @param {number} column counted from the left
 */
export function positionAt(curve, order, row, column) {
  if (curve === "hilbert") {
    return hilbert(order, row, column);
  }
  const side = 2 ** order;
  const within = curve === "snake" && row % 2 === 1 ? side - 1 - column : column;
  return (BigInt(row) << BigInt(order)) + BigInt(within);
}

/**
 * @param {number} order
 * @param {number} row
 * @param {number} column
 */
function hilbert(order, row, column) {
  let position = 0n;
  let turned = 0;
  for (let bit = order - 1; bit >= 0; bit -= 1) {
    const quarter = QUARTER_AT[turned][(row >>> bit) & 1][(column >>> bit) & 1];
    position = (position << 2n) | BigInt(quarter);
    turned ^= TURN[quarter];
  }
  return position;
}
