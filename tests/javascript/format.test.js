// Sizes, numbers and shares, as the user reads them.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  capitalised,
  count,
  counted,
  percent,
  size,
  sizeOfWhole,
} from "#explorer/ui/format.js";

test("sizes have two decimals from the first KiB on", () => {
  assert.equal(size(0), "0B");
  assert.equal(size(1023), "1023B");
  assert.equal(size(1024), "1.00KiB");
  assert.equal(size(1.5 * 2 ** 30), "1.50GiB");
});

test("sizes can be digits, or exceed every unit", () => {
  assert.equal(size("1048576"), "1.00MiB");
  assert.equal(size(1n << 63n), "8.00EiB");
  assert.equal(size(2 ** 72), "4096.00EiB");
});

test("numbers have their thousands apart", () => {
  assert.equal(count(999), "999");
  assert.equal(count(1234567), "1,234,567");
  assert.equal(count(10n ** 18n), "1,000,000,000,000,000,000");
});

test("one thing is singular, any other number plural", () => {
  assert.equal(counted(1, "extent"), "1 extent");
  assert.equal(counted(1n, "extent"), "1 extent");
  assert.equal(counted(0, "extent"), "0 extents");
  assert.equal(counted(1234, "copy", "copies"), "1,234 copies");
});

test("something is never 0%, and less than everything never 100%", () => {
  assert.equal(percent(0, 100), "0%");
  assert.equal(percent(1, 100000), "<0.1%");
  assert.equal(percent(1, 1000), "0.1%");
  assert.equal(percent(999, 1000), "99%");
  assert.equal(percent(1000, 1000), "100%");
});

test("small shares have a decimal, large ones none", () => {
  assert.equal(percent(99, 1000), "9.9%");
  assert.equal(percent(100, 1000), "10%");
  assert.equal(percent(346, 1000), "35%");
});

test("a share of nothing is 0%", () => {
  assert.equal(percent(5, 0), "0%");
  assert.equal(percent(-1, 10), "0%");
});

test("a part of a whole in bytes and in percent", () => {
  assert.equal(sizeOfWhole(2 ** 29, 2 ** 30), "512.00MiB of 1.00GiB, 50%");
});

test("only the first letter becomes a capital", () => {
  assert.equal(capitalised("data, RAID1"), "Data, RAID1");
  assert.equal(capitalised(""), "");
});
