// Links: what the fragment of an address says about the view, and back.

import assert from "node:assert/strict";
import { test } from "node:test";
import { atZoom, formatView, isSamePixel, parseView } from "#explorer/data/view.js";

const NOTHING = {
  space: null,
  curve: null,
  colour: null,
  middle: null,
  query: null,
  picked: null,
};

const VIEW = {
  space: "physical",
  curve: "hilbert",
  colour: "age",
  middle: { z: 3, row: 1024, column: 7 },
  query: null,
  picked: null,
};

test("an empty fragment leaves everything open", () => {
  assert.deepEqual(parseView(""), NOTHING);
  assert.deepEqual(parseView("#"), NOTHING);
});

test("a fragment may say only the first of it", () => {
  assert.deepEqual(parseView("#virtual"), { ...NOTHING, space: "virtual" });
  assert.deepEqual(parseView("#virtual//fill"), { ...NOTHING, space: "virtual", colour: "fill" });
});

test("a view comes back as it was", () => {
  const views = [
    VIEW,
    { ...VIEW, query: "a/path with & and # and = and %2F/\u{1f9ed}" },
    { ...VIEW, picked: { z: 3, row: 1, column: 2 } },
    { ...VIEW, query: "inode 257 in 256", picked: { z: 12, row: 2 ** 19, column: 0 } },
    { ...VIEW, space: "odd/space", curve: "&c" },
  ];
  for (const view of views) {
    assert.deepEqual(parseView(formatView(view)), view);
  }
});

test("the fragment of a view", () => {
  assert.equal(formatView(VIEW), "#physical/hilbert/age/3/1024/7");
  const picked = { z: 3, row: 5, column: 6 };
  assert.equal(
    formatView({ ...VIEW, query: "vaddr 1", picked }),
    "#physical/hilbert/age/3/1024/7&q=vaddr%201&p=5,6",
  );
  assert.match(formatView({ ...VIEW, picked: { ...picked, z: 4 } }), /&p=4,5,6$/);
});

test("a picked pixel without a zoom is at that of the middle", () => {
  assert.deepEqual(parseView("#s/c/a/5/1/2&p=3,4").picked, { z: 5, row: 3, column: 4 });
  assert.equal(parseView("#s/c/a&p=3,4").picked, null);
});

test("what is no pixel is left open", () => {
  for (const numbers of ["1/2", "1/2/x", "-1/2/3", "1.5/2/3", "49/0/0", `1/${"9".repeat(16)}/0`]) {
    assert.equal(parseView(`#s/c/a/${numbers}`).middle, null, numbers);
  }
  assert.deepEqual(parseView("#s/c/a/48/0/0").middle, { z: 48, row: 0, column: 0 });
  assert.equal(parseView("#s/c/a/5/1/2&p=1").picked, null);
});

test("a fragment with a broken escape is taken as it stands", () => {
  assert.equal(parseView("#100%/hilbert").space, "100%");
});

test("a pixel at other zooms", () => {
  const pixel = { z: 2, row: 5, column: 8 };
  assert.deepEqual(atZoom(pixel, 2), pixel);
  assert.deepEqual(atZoom(pixel, 1), { z: 1, row: 2, column: 4 });
  assert.deepEqual(atZoom(pixel, 4), { z: 4, row: 22, column: 34 });
});

test("pixels are the same if all of their numbers are", () => {
  const pixel = { z: 1, row: 2, column: 3 };
  assert.ok(isSamePixel(pixel, { ...pixel }));
  assert.ok(isSamePixel(null, null));
  assert.ok(!isSamePixel(pixel, null));
  assert.ok(!isSamePixel(null, pixel));
  for (const name of ["z", "row", "column"]) {
    assert.ok(!isSamePixel(pixel, { ...pixel, [name]: 9 }), name);
  }
});
