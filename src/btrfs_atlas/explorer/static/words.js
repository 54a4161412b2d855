// How a place on the map is told about, in the tooltip and in the panel alike.

import { capitalised, el, size } from "./text.js";

const STATES = {
  unallocated: "Not allocated",
  parity: "Parity",
  free: "Free space",
  extent: "Extent",
  unread: "Not read yet",
  lost: "Could not be read",
};

/** The type, profile and size of a block group: "Data, RAID1, 1.00GiB". */
export function groupWords({ type, profile, length }) {
  return [type, profile, size(length)].filter(Boolean).join(", ");
}

/** What is at a place, in a few words, as a heading. */
export function stateTitle({ state, group, extent }) {
  if (extent) {
    return `${capitalised(extent.kind)} extent`;
  }
  // Where a pixel holds many extents, none of them is it: it is a part of its block group.
  if (group && state === "extent") {
    return `${capitalised(group.type)} block group`;
  }
  return STATES[state] ?? capitalised(state);
}

/** The same, with the bytes that are looked at. */
export function stateWords(found) {
  return el(
    "p.state",
    {},
    el("strong", {}, stateTitle(found)),
    el("span.quiet", {}, ` ${size(found.bytes)} from here`),
  );
}
