// How the page starts.
//
// The folders, from the bottom up. A module imports from its own folder and from those above it in
// this list; the linter checks that.
//
//     vendor/   Leaflet
//     ui/       elements, formats, keyboard, theme, address bar: knows nothing of filesystems
//     data/     what the server sends, where the page gets it from, links to views
//     map/      the map in its window: knows nothing of the panels
//     panels/   header, legend, tooltip, panel and find: what stands around the map
//     app/      what connects these
//
// main.js and export-main.js start it, each with data of another source. The server joins all
// modules and style sheets into one page, see web/page.py.

import { byId } from "../ui/elements.js";
import { startTheme } from "../ui/theme.js";
import { Page } from "./page.js";

/** @import { Source } from "../data/types.js" */

/**
 * Start the page.
 *
 * @template Contents
 * @param {new (contents: Contents) => Source} DataSource where the page gets its data, made from
 *     the contents that came with it
 */
export function start(DataSource) {
  startTheme(byId("theme", HTMLElement));
  const contents = JSON.parse(byId("contents", HTMLElement).textContent ?? "");
  new Page(new DataSource(contents)).open();
}
