// From pixels to positions on Leaflet's map, and back.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  SIDE,
  isMiddleOfWhole,
  nearestOnMap,
  pixelAt,
  positionOf,
} from "#explorer/map/positions.js";

test("every part of a pixel is in that pixel", () => {
  for (const pixel of [
    { z: 0, row: 0, column: 255 },
    { z: 3, row: 2047, column: 17 },
    { z: 20, row: 2 ** 27, column: 5 },
  ]) {
    for (const part of [0.25, 0.5, 0.75]) {
      assert.deepEqual(pixelAt(positionOf(pixel, part), pixel.z), pixel);
    }
  }
});

test("rows grow to the south", () => {
  assert.deepEqual(positionOf({ z: 1, row: 3, column: 1 }), { lat: -1.75, lng: 0.75 });
});

test("outside of the map, the nearest pixel counts", () => {
  assert.deepEqual(pixelAt({ lat: 5, lng: 300 }, 1), { z: 1, row: 0, column: 511 });
  assert.deepEqual(pixelAt({ lat: -SIDE, lng: -1 }, 0), { z: 0, row: 255, column: 0 });
});

test("the nearest position on the map", () => {
  assert.deepEqual(nearestOnMap({ lat: -300, lng: 400 }), { lat: -SIDE, lng: SIDE });
  assert.deepEqual(nearestOnMap({ lat: -3, lng: 4 }), { lat: -3, lng: 4 });
});

test("the middle of the whole map is one of four pixels, at the zoom at which it fits", () => {
  assert.ok(isMiddleOfWhole({ z: 1, row: 256, column: 255 }, 1.3));
  assert.ok(!isMiddleOfWhole({ z: 1, row: 256, column: 255 }, 1.7));
  assert.ok(!isMiddleOfWhole({ z: 1, row: 254, column: 255 }, 1));
  assert.ok(!isMiddleOfWhole({ z: 1, row: 255, column: 257 }, 1));
});
