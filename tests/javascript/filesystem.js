// A filesystem as the server describes it, for tests.

/** @import { Filesystem } from "#explorer/data/types.js" */

/** @type {Filesystem} */
export const FILESYSTEM = {
  label: "test",
  fsid: "00000000-0000-0000-0000-000000000000",
  mounted: false,
  path: "/dev/sda",
  sectorsize: 4096,
  nodesize: 16384,
  notes: [],
  damage: null,
  generation: "9",
  summary: "",
  size: 2 ** 20,
  allocated: 2 ** 19,
  used: 2 ** 18,
  devices: [
    { devid: 1, path: "/dev/sda", size: 2 ** 19, allocated: 2 ** 18, start: "0" },
    { devid: 2, path: null, size: 2 ** 19, allocated: 2 ** 18, start: String(2 ** 19) },
  ],
  spaces: {
    physical: { total: String(2 ** 20), max_zoom: 2 },
    virtual: { total: String(2 ** 30), max_zoom: 3 },
  },
  labels: { physical: {}, virtual: {} },
  curves: ["hilbert", "snake"],
  colours: [
    { name: "type", title: "Type", description: "" },
    { name: "age", title: "Age", description: "" },
  ],
};
