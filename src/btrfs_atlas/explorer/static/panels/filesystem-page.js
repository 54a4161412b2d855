// What the panel says about the whole filesystem.

import { el, fact, facts, present } from "../ui/elements.js";
import { counted, percent, size } from "../ui/format.js";
import { deviceName } from "./descriptions.js";
import { section, usageBar } from "./panel-parts.js";

/** @import { Filesystem } from "../data/types.js" */

const COPIES_COUNT =
  "All sizes are those on the devices: what is stored in two copies counts twice.";

/** @param {Filesystem} filesystem */
export function filesystemPage(filesystem) {
  const { label, path, fsid, damage, notes, devices } = filesystem;
  const bars = devices.map((device) =>
    usageBar(deviceName(device), device.allocated, device.size),
  );
  return {
    title: label || "Filesystem",
    content: present([
      damage !== null && el("p.error", {}, damage),
      section(
        null,
        facts(fact("Path", path), fact("UUID", fsid), ...sizeFacts(filesystem)),
        el("p.note", {}, COPIES_COUNT),
      ),
      section(counted(devices.length, "device"), ...bars),
      notes.length > 0 && section("Notes", ...notes.map((note) => el("p", {}, note))),
    ]),
  };
}

/** @param {Filesystem} filesystem */
function sizeFacts({ size: total, allocated, used, generation, sectorsize, nodesize, mounted }) {
  const unallocated = total - allocated;
  return [
    fact("Size", size(total)),
    fact("Allocated", `${size(allocated)}, ${percent(allocated, total)}`),
    fact("Not allocated", `${size(unallocated)}, ${percent(unallocated, total)}`),
    fact("Used", `${size(used)}, ${percent(used, total)}`),
    fact("Generation", generation),
    fact("Sector, node", `${size(sectorsize)}, ${size(nodesize)}`),
    fact("Mounted", mounted ? "yes" : "no"),
  ];
}
