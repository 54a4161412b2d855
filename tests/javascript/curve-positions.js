// Reads [curve, pixels] from standard input, each pixel as [order, row, column], and prints the
// positions of the pixels on the curve, as strings of digits.

import { text } from "node:stream/consumers";
import { positionAt } from "#explorer/data/curves.js";

/** @type {[string, [number, number, number][]]} */
const [curve, pixels] = JSON.parse(await text(process.stdin));
const positions = pixels.map((pixel) => String(positionAt(curve, ...pixel)));
process.stdout.write(JSON.stringify(positions));
