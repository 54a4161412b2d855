// The panel: all there is to know about a place that was clicked, or about the filesystem.

import {
  age,
  bar,
  count,
  counted,
  deviceName,
  el,
  errorWords,
  fact,
  facts,
  partWords,
  percent,
  size,
} from "./text.js";
import { groupWords, stateTitle } from "./words.js";

const COPIES_COUNT =
  "All sizes are those on the devices: what is there in two copies counts twice.";

/** Opens at the right, on a phone at the bottom. */
export class Panel {
  #element;
  #title;
  #body;
  #onClose;
  #abort = new AbortController();

  /**
   * @param {HTMLElement} element with a heading, a button .close and a .body
   * @param {function(): void} onClose the user has closed it
   */
  constructor(element, onClose) {
    this.#element = element;
    this.#title = element.querySelector("h2");
    this.#body = element.querySelector(".body");
    this.#onClose = onClose;
    element.querySelector(".close").addEventListener("click", () => this.#onClose());
  }

  get isOpen() {
    return !this.#element.inert;
  }

  /**
   * Open with what is promised; only the latest promise counts.
   *
   * @param {function(AbortSignal): Promise<{title: string, content: Node[]}>} ask
   * @param {boolean} refreshed it is open already and shows the same, as it was before
   */
  async open(ask, refreshed = false) {
    this.#abort.abort();
    this.#abort = new AbortController();
    const { signal } = this.#abort;
    this.#element.inert = false;
    this.#element.classList.add("open");
    if (!refreshed) {
      this.#show("Reading …", [el("p.quiet", {}, "Reading …")]);
    }
    const { title, content } = await ask(signal).catch(failure);
    if (!signal.aborted) {
      this.#show(title, content);
    }
  }

  close() {
    this.#abort.abort();
    this.#element.classList.remove("open");
    // Closed, it is out of sight but still there: nobody may tab into it.
    this.#element.inert = true;
  }

  /** Move the focus to the heading, from where a screen reader reads on. */
  focus() {
    this.#title.focus();
  }

  #show(title, content) {
    if (this.#title.textContent !== title) {
      this.#title.textContent = title;
    }
    this.#body.replaceChildren(...content);
  }
}

function failure(error) {
  return { title: "This could not be read", content: [el("p.error", {}, errorWords(error))] };
}

/**
 * What the panel says about a place.
 *
 * @param {object} found the details of a source
 * @param {string} newest generation of the filesystem
 * @param {?function(string): void} find shows what a query finds; null if that is not possible
 */
export function placePage(found, newest, find) {
  const { group, extent, owners } = found;
  return {
    title: stateTitle(found),
    content: [
      section(null, whereFacts(found)),
      extent && section("Extent", extentFacts(extent, newest)),
      owners && section("Owners", ...ownerList(owners, find)),
      group && section("Block group", ...groupFacts(group)),
      group?.contents?.length && section("What is in it", contents(group)),
      group?.stripes && section("Where it lies", stripes(group.stripes)),
    ].filter((part) => part instanceof Node),
  };
}

/** What the panel says about the whole filesystem. */
export function filesystemPage(filesystem) {
  const { label, path, fsid, damage, notes, devices } = filesystem;
  return {
    title: label || "Filesystem",
    content: [
      damage && el("p.error", {}, damage),
      section(
        null,
        facts(fact("Path", path), fact("UUID", fsid), ...sizeFacts(filesystem)),
        el("p.note", {}, COPIES_COUNT),
      ),
      section(
        counted(devices.length, "device"),
        ...devices.map((device) => partBar(deviceName(device), device.allocated, device.size)),
      ),
      notes.length > 0 && section("Notes", ...notes.map((note) => el("p", {}, note))),
    ].filter((part) => part instanceof Node),
  };
}

function sizeFacts({ size: all, allocated, used, generation, sectorsize, nodesize, mounted }) {
  return [
    fact("Size", size(all)),
    fact("Allocated", `${size(allocated)}, ${percent(allocated, all)}`),
    fact("Not allocated", `${size(all - allocated)}, ${percent(all - allocated, all)}`),
    fact("Used", `${size(used)}, ${percent(used, all)}`),
    fact("Generation", generation),
    fact("Sector, node", `${size(sectorsize)}, ${size(nodesize)}`),
    fact("Mounted", mounted ? "yes" : "no"),
  ];
}

function section(heading, ...content) {
  return el("section", {}, heading && el("h3", {}, heading), ...content);
}

function whereFacts({ address, bytes, device, vaddr }) {
  return facts(
    device && fact("Device", deviceName(device)),
    device && fact("Physical address", device.paddr),
    vaddr && fact("Virtual address", vaddr),
    fact("Address on the map", address),
    fact("Looked at", size(bytes)),
  );
}

function extentFacts(extent, newest) {
  return facts(
    fact("Virtual address", extent.vaddr),
    fact("Length", size(extent.length)),
    fact("Kind", extent.kind),
    fact("Generation", age(extent.generation, newest)),
    fact("References", count(extent.refs)),
    fact("Owner", extent.owner),
  );
}

function groupFacts(group) {
  return [
    partBar(groupWords(group), group.used, group.length),
    facts(
      fact("Virtual address", group.vaddr),
      fact("Length", size(group.length)),
      fact("Used", `${size(group.used)}, ${percent(group.used, group.length)}`),
      group.extents && fact("Extents", extentsWords(group.extents)),
      group.extents?.count > 0 && sizesFact(group.extents),
      group.free && fact("Free space", freeWords(group.free)),
    ),
  ];
}

function extentsWords({ count: number, bytes }) {
  return number > 0 ? `${count(number)}, ${size(bytes)}` : "none";
}

function sizesFact({ smallest, average, largest }) {
  const words = `${size(smallest)} to ${size(largest)}, ${size(average)} on average`;
  return fact("Their sizes", words);
}

function freeWords({ count: number, bytes, largest }) {
  if (number === 0) {
    return "none";
  }
  return `${size(bytes)} in ${counted(number, "piece")}, the largest ${size(largest)}`;
}

function partBar(name, part, whole) {
  const words = partWords(part, whole);
  const line = el("p", {}, el("span", {}, name), el("span.quiet", {}, words));
  return el("div.part", {}, line, bar(part / whole));
}

function contents({ contents: parts, length }) {
  return el("div", {}, ...parts.map((part) => contentBar(part, length)));
}

function contentBar({ name, bytes, count: number }, length) {
  const words = `${size(bytes)}, ${counted(number, "extent")}`;
  const line = el("p", {}, el("span", {}, name), el("span.quiet", {}, words));
  return el("div.part", {}, line, bar(bytes / length));
}

function stripes(all) {
  const lines = all.map((stripe) =>
    el("li", {}, `Device ${deviceName(stripe)}`, el("span.quiet", {}, ` at ${stripe.paddr}`)),
  );
  return el("ul.stripes", {}, ...lines);
}

function ownerList({ files, more, trees, note }, find) {
  return [
    note && el("p.note", {}, note),
    trees.length > 0 && el("ul.owners", {}, ...trees.map(treeItem)),
    files.length > 0 && el("ul.owners", {}, ...files.map((file) => fileItem(file, find))),
    more > 0 && el("p.quiet", {}, `and ${count(more)} more`),
  ].filter((part) => part instanceof Node);
}

function treeItem({ tree, name }) {
  return el("li", {}, el("span.path", {}, name), el("span.quiet", {}, `tree ${tree}`));
}

function fileItem(file, find) {
  const { subvolume, inode, path } = file;
  const words = [el("span.path", {}, path), el("span.quiet", {}, whereInFile(file))];
  if (find === null) {
    return el("li", {}, ...words);
  }
  const show = () => find(`inode ${inode} in ${subvolume}`);
  const title = `Show inode ${inode} of subvolume ${subvolume} on the map`;
  return el("li", {}, el("button.file", { type: "button", title, click: show }, ...words));
}

function whereInFile({ subvolume, subvolume_path: path, inode, offset }) {
  const where = `${path ? `${path}, ` : ""}subvolume ${subvolume}, inode ${inode}`;
  return Number(offset) > 0 ? `${where}, from ${size(offset)} on` : where;
}
