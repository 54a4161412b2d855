// How things of a filesystem are described, in the tooltip and in the panel alike.

import { capitalised, counted, size } from "../ui/format.js";

/** @import { BlockGroup, PixelInfo, PixelState } from "../data/types.js" */

/** @type {Record<PixelState, string>} */
const STATES = {
  unallocated: "Not allocated",
  parity: "Parity",
  free: "Free space",
  extent: "Extent",
  unread: "Not read yet",
  lost: "Could not be read",
};

/**
 * What is at a pixel, in a few words, as a heading.
 *
 * @param {Pick<PixelInfo, "state"|"group"|"extent">} info
 */
export function pixelTitle({ state, group, extent }) {
  if (extent) {
    return `${capitalised(extent.kind)} extent`;
  }
  // A pixel that holds many extents stands for a part of their block group.
  if (group && state === "extent") {
    return `${capitalised(group.type)} block group`;
  }
  return STATES[state] ?? capitalised(state);
}

/**
 * The type, profile and size of a block group: "Data, RAID1, 1.00GiB".
 *
 * @param {Pick<BlockGroup, "type"|"profile"|"length">} group
 */
export function groupDescription({ type, profile, length }) {
  return [type, profile, size(length)].filter(Boolean).join(", ");
}

/**
 * A device, by its number and, where that is known, its path.
 *
 * @param {{devid: number, path: string|null}} device
 */
export function deviceName({ devid, path }) {
  return path ? `${devid} ${path}` : String(devid);
}

/**
 * A generation, and how long ago it was: "90, 10 generations ago".
 *
 * @param {string} generation digits, as it can exceed 2^53
 * @param {string} newest that of the filesystem
 */
export function generationAge(generation, newest) {
  const ago = BigInt(newest) - BigInt(generation);
  if (ago <= 0n) {
    return `${generation}, the newest`;
  }
  return `${generation}, ${counted(ago, "generation")} ago`;
}
