// What the panel says about a pixel: its addresses, extent, owners and block group.

import { el, fact, facts, present } from "../ui/elements.js";
import { capitalised, count, counted, percent, size } from "../ui/format.js";
import { deviceName, generationAge, groupDescription, pixelTitle } from "./descriptions.js";
import { namedBar, section, usageBar } from "./panel-parts.js";

/** @import { BlockGroup, BlockGroupDetails, Contents, DeviceAddress, Extent, ExtentSizes, FileOwner, Owners, PixelDetails, PixelInfo } from "../data/types.js" */

/** @typedef {(query: string) => void} Find */

/**
 * @param {PixelInfo|PixelDetails} info without details, there is less to say
 * @param {string} newest generation of the filesystem
 * @param {Find|null} find shows what a query finds; null if that is not possible
 */
export function pixelPage(info, newest, find) {
  const { group, extent } = info;
  const owners = "owners" in info ? info.owners : null;
  return {
    title: pixelTitle(info),
    content: present([
      section(null, addressFacts(info)),
      extent && section("Extent", extentFacts(extent, newest)),
      owners && section("Owners", ...ownerLists(owners, find)),
      ...(group ? groupSections(group) : []),
    ]),
  };
}

/** @param {PixelInfo} info */
function addressFacts({ address, bytes, device, vaddr }) {
  return facts(
    device && fact("Device", deviceName(device)),
    device && fact("Physical address", device.paddr),
    vaddr && fact("Virtual address", vaddr),
    fact("Address on the map", address),
    fact("Size of the pixel", size(bytes)),
  );
}

/**
 * @param {Extent} extent
 * @param {string} newest
 */
function extentFacts(extent, newest) {
  return facts(
    fact("Virtual address", extent.vaddr),
    fact("Length", size(extent.length)),
    fact("Kind", extent.kind),
    fact("Generation", generationAge(extent.generation, newest)),
    fact("References", count(extent.refs)),
    fact("Owner", extent.owner),
    ...extent.colours.map(({ title, name }) => fact(capitalised(title), name)),
  );
}

// The block group

/** @param {BlockGroup|BlockGroupDetails} group */
function groupSections(group) {
  const details = "stripes" in group ? group : null;
  const bar = usageBar(groupDescription(group), group.used, group.length);
  return [
    section("Block group", bar, groupFacts(group, details)),
    details?.contents.length && section("What is in it", contents(details)),
    details && section("Where it lies", stripes(details.stripes)),
  ].filter((part) => part instanceof Node);
}

/**
 * @param {BlockGroup} group
 * @param {BlockGroupDetails|null} details
 */
function groupFacts({ vaddr, length, used }, details) {
  const extents = details?.extents;
  return facts(
    fact("Virtual address", vaddr),
    fact("Length", size(length)),
    fact("Used", `${size(used)}, ${percent(used, length)}`),
    extents && fact("Extents", extentsText(extents)),
    extents && extents.count > 0 && fact("Their sizes", sizesText(extents)),
    details?.free && fact("Free space", freeText(details.free)),
  );
}

/** @param {ExtentSizes} extents */
function extentsText({ count: number, bytes }) {
  return number > 0 ? `${count(number)}, ${size(bytes)}` : "none";
}

/** @param {ExtentSizes} extents */
function sizesText({ smallest, average, largest }) {
  return `${size(smallest)} to ${size(largest)}, ${size(average)} on average`;
}

/** @param {NonNullable<BlockGroupDetails["free"]>} free */
function freeText({ count: number, bytes, largest }) {
  if (number === 0) {
    return "none";
  }
  return `${size(bytes)} in ${counted(number, "piece")}, the largest ${size(largest)}`;
}

/** @param {BlockGroupDetails} group */
function contents({ contents: kinds, length }) {
  return el("div", {}, ...kinds.map((kind) => contentsBar(kind, length)));
}

/**
 * @param {Contents} contents
 * @param {number} length of the block group
 */
function contentsBar({ name, bytes, count: number }, length) {
  return namedBar(name, `${size(bytes)}, ${counted(number, "extent")}`, bytes / length);
}

/** @param {DeviceAddress[]} all */
function stripes(all) {
  const items = all.map((stripe) =>
    el("li", {}, `Device ${deviceName(stripe)}`, el("span.quiet", {}, ` at ${stripe.paddr}`)),
  );
  return el("ul.stripes", {}, ...items);
}

// The owners

/**
 * @param {Owners} owners
 * @param {Find|null} find
 */
function ownerLists({ files, more, trees, note }, find) {
  return [
    note && el("p.note", {}, note),
    trees.length > 0 && el("ul.owners", {}, ...trees.map(treeItem)),
    files.length > 0 && el("ul.owners", {}, ...files.map((file) => fileItem(file, find))),
    more > 0 && el("p.quiet", {}, `and ${count(more)} more`),
  ];
}

/** @param {Owners["trees"][number]} tree */
function treeItem({ tree, name }) {
  return el("li", {}, el("span.path", {}, name), el("span.quiet", {}, `tree ${tree}`));
}

/**
 * @param {FileOwner} file
 * @param {Find|null} find
 */
function fileItem(file, find) {
  const { subvolume, inode, path } = file;
  const content = [el("span.path", {}, path), el("span.quiet", {}, fileText(file))];
  if (find === null) {
    return el("li", {}, ...content);
  }
  const click = () => find(`inode ${inode} in ${subvolume}`);
  const title = `Show inode ${inode} of subvolume ${subvolume} on the map`;
  return el("li", {}, el("button.file", { type: "button", title, click }, ...content));
}

/** @param {FileOwner} file */
function fileText({ subvolume, subvolume_path: path, inode, offset }) {
  const where = `${path ? `${path}, ` : ""}subvolume ${subvolume}, inode ${inode}`;
  return Number(offset) > 0 ? `${where}, from ${size(offset)} on` : where;
}
