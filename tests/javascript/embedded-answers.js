// Reads [contents, pixels] from standard input: the contents of an exported page, and pixels, each
// as [space, curve, z, row, column]. Prints what the page says about each pixel.

import { text } from "node:stream/consumers";
import { EmbeddedSource } from "#explorer/data/embedded-source.js";

/** @import { ExportedContents } from "#explorer/data/types.js" */

/** @type {[ExportedContents, [string, string, number, number, number][]]} */
const [contents, pixels] = JSON.parse(await text(process.stdin));
const source = new EmbeddedSource(contents);
const answers = pixels.map(([space, curve, z, row, column]) =>
  source.at({ space, curve, colour: "profile" }, { z, row, column }),
);
process.stdout.write(JSON.stringify(await Promise.all(answers)));
